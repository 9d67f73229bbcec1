namespace Privy;

/// <summary>What makes the snapshots of a <see cref="SnapshotRegion"/>.</summary>
public enum SnapshotEngine
{
    /// <summary>
    /// Whole copies: <see cref="SnapshotRegion.TakeSnapshot"/> copies the region. The last resort, only by
    /// <see cref="SnapshotRegionOptions.AllowCopying"/>: a snapshot is of one instant only if nobody writes meanwhile.
    /// </summary>
    Copying,

    /// <summary>An ordinary process: userfaultfd write-protection, copies page by page when they are written to.</summary>
    Portable,

    /// <summary>The process was started by <c>privy run</c>: the pages are managed by the guest's kernel.</summary>
    Privileged,
}
