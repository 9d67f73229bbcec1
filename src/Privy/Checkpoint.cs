namespace Privy;

/// <summary>A checkpoint that is complete and on disk.</summary>
/// <param name="Number">Counts the checkpoints of a folder, from 1 on.</param>
/// <param name="IsFull">All pages, or those that changed since the checkpoint before.</param>
/// <param name="Pages">Pages written.</param>
/// <param name="FileBytes">Length of the file.</param>
/// <param name="Path">The file.</param>
/// <param name="Duration">From the snapshot until everything was on disk.</param>
public sealed record Checkpoint(long Number, bool IsFull, long Pages, long FileBytes, string Path, TimeSpan Duration);

/// <summary>What <see cref="Checkpointer.Restore"/> has loaded.</summary>
/// <param name="Number">The checkpoint whose state the region now has, or 0 if the folder has none: then the region is as it was.</param>
/// <param name="Files">The files it was loaded from, the full checkpoint first.</param>
/// <param name="Problems">Newer checkpoints that could not be used, and why; each names a file. Empty if all is well.</param>
public sealed record RestoredCheckpoint(long Number, IReadOnlyList<string> Files, IReadOnlyList<string> Problems);

/// <summary>There are checkpoints, but none that is complete. Nothing has been loaded.</summary>
public sealed class CheckpointCorruptException : IOException
{
    /// <summary>Makes the exception.</summary>
    public CheckpointCorruptException()
        : this("No checkpoint is complete.")
    {
    }

    /// <summary>Makes the exception.</summary>
    /// <param name="message">What is wrong.</param>
    public CheckpointCorruptException(string message)
        : base(message)
    {
    }

    /// <summary>Makes the exception.</summary>
    /// <param name="message">What is wrong.</param>
    /// <param name="innerException">Why.</param>
    public CheckpointCorruptException(string message, Exception? innerException)
        : base(message, innerException)
    {
    }

    /// <summary>Makes the exception.</summary>
    /// <param name="problems">What is wrong, a line for each file.</param>
    public CheckpointCorruptException(IReadOnlyList<string> problems)
        : base($"No checkpoint is complete: {string.Join(" ", problems)}") =>
        Problems = problems;

    /// <summary>What is wrong, a line for each file, which it names.</summary>
    public IReadOnlyList<string> Problems { get; } = [];
}
