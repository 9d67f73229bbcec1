namespace Privy;

/// <summary>How a <see cref="SnapshotRegion"/> is made.</summary>
public sealed class SnapshotRegionOptions
{
    /// <summary>The engine to use, or null (the default) for the best there is. <see cref="SnapshotRegion.Create"/> throws if it cannot be had.</summary>
    public SnapshotEngine? Engine { get; init; }

    /// <summary>
    /// Lets <see cref="SnapshotRegion.Create"/> fall back on <see cref="SnapshotEngine.Copying"/> where there is neither Privy nor userfaultfd.
    /// The program must then see to it that nobody writes to the region during <see cref="SnapshotRegion.TakeSnapshot"/>, which takes as long as
    /// copying the region. Off by default.
    /// </summary>
    public bool AllowCopying { get; init; }

    /// <summary>Takes the memory for the whole region at once, so that a lack of it shows in <see cref="SnapshotRegion.Create"/> and not at a later write. Off by default.</summary>
    public bool Populate { get; init; }
}
