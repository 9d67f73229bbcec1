using Privy.Engines;

namespace Privy;

/// <summary>A snapshot in the books of its region: kept by the snapshot itself and by its marks.</summary>
internal sealed class SnapshotPoint(SnapshotRegion region, EngineSnapshot engine, long epoch)
{
    private volatile bool _removed;

    internal SnapshotRegion Region { get; } = region;

    internal EngineSnapshot Engine { get; } = engine;

    internal long Epoch { get; } = epoch;

    // Under the region's lock.
    internal int References { get; set; } = 1;

    internal bool ViewOpen { get; set; } = true;

    internal bool IsRemoved
    {
        get => _removed;
        set => _removed = value;
    }
}
