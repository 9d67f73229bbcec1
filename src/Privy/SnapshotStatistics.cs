namespace Privy;

/// <summary>What the snapshots of a region have cost so far. Counters are since the region was made.</summary>
public sealed record SnapshotStatistics
{
    /// <summary>Snapshots taken.</summary>
    public required long SnapshotsTaken { get; init; }

    /// <summary>Snapshots not yet disposed of.</summary>
    public required int SnapshotsAlive { get; init; }

    /// <summary>Writes that had to wait until their page was copied or noted as changed.</summary>
    public required long Faults { get; init; }

    /// <summary>Pages copied for snapshots.</summary>
    public required long PagesCopied { get; init; }

    /// <summary>Bytes of memory that copies take now, for the snapshots that are alive.</summary>
    public required long CopyBytes { get; init; }

    /// <summary>Snapshots that lost their bytes because there was no memory for a copy.</summary>
    public required long SnapshotsLost { get; init; }

    /// <summary>How long the latest <see cref="SnapshotRegion.TakeSnapshot"/> took.</summary>
    public required TimeSpan LastSnapshotTime { get; init; }

    /// <summary>The mean time of <see cref="SnapshotRegion.TakeSnapshot"/>.</summary>
    public required TimeSpan MeanSnapshotTime { get; init; }

    /// <summary>The longest time of <see cref="SnapshotRegion.TakeSnapshot"/>.</summary>
    public required TimeSpan MaxSnapshotTime { get; init; }
}
