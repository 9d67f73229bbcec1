namespace Privy.Engines;

/// <summary>A snapshot as its engine knows it.</summary>
internal abstract unsafe class EngineSnapshot
{
    /// <summary>First byte of the view, as long as it is open.</summary>
    internal byte* View { get; set; }

    /// <summary>No memory for a copy: the view is closed to readers.</summary>
    internal abstract bool Lost { get; }

    /// <summary>Memory its copies take, in bytes.</summary>
    internal abstract long CopyBytes { get; }
}

/// <summary>Counters since the engine was made.</summary>
internal readonly record struct EngineCounters(long Faults, long PagesCopied, long SnapshotsLost);

/// <summary>Memory and its snapshots. <see cref="SnapshotRegion"/> calls the methods under its lock but for <see cref="FreeView"/>, checks the arguments and knows who is alive.</summary>
internal unsafe interface ISnapshotEngine
{
    SnapshotEngine Kind { get; }

    byte* Memory { get; }

    EngineCounters Counters { get; }

    EngineSnapshot Take();

    /// <summary>Nobody reads the view any more; what has changed since the snapshot is still of interest.</summary>
    /// <returns>What <see cref="FreeView"/> is to be given.</returns>
    byte* CloseView(EngineSnapshot snapshot);

    /// <summary>Gives the memory of a closed view back. Takes long for a large view, so is not called under the region's lock.</summary>
    void FreeView(byte* view);

    /// <summary>Forgets a snapshot whose view is closed.</summary>
    void Remove(EngineSnapshot snapshot);

    /// <summary>Sets the bits of the pages written between two snapshots, neither of them removed.</summary>
    void Changed(EngineSnapshot newer, EngineSnapshot older, Span<ulong> pages);

    /// <summary>Sets the bits of all pages that may hold something other than zeros.</summary>
    void Touched(Span<ulong> pages);

    /// <summary>Takes the memory back. Every snapshot has been removed.</summary>
    void Close();
}
