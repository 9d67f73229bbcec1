namespace Privy;

/// <summary>
/// There was no memory for a copy that a snapshot needed, so that its bytes are gone. The snapshot can only be disposed of; the region and
/// other snapshots are whole.
/// </summary>
public sealed class SnapshotLostException : Exception
{
    /// <summary>Makes the exception.</summary>
    public SnapshotLostException()
        : this("The snapshot has been lost: there was no memory for a copy it needed. Dispose of it, and of snapshots that are no longer used, earlier.")
    {
    }

    /// <summary>Makes the exception.</summary>
    /// <param name="message">What happened.</param>
    public SnapshotLostException(string message)
        : base(message)
    {
    }

    /// <summary>Makes the exception.</summary>
    /// <param name="message">What happened.</param>
    /// <param name="innerException">Why.</param>
    public SnapshotLostException(string message, Exception? innerException)
        : base(message, innerException)
    {
    }
}
