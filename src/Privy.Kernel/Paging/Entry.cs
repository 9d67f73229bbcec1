namespace Privy.Kernel;

/// <summary>Bits of page-table entries (Intel SDM vol. 3, 4.5) and the kernel's own in the bits hardware ignores.</summary>
public static class Entry
{
    /// <summary>Present.</summary>
    public const ulong Present = 1;

    /// <summary>Writable.</summary>
    public const ulong Writable = 2;

    /// <summary>Accessible at CPL 3.</summary>
    public const ulong User = 4;

    /// <summary>Accessed: hardware sets it before it caches the translation.</summary>
    public const ulong Accessed = 1UL << 5;

    /// <summary>Dirty.</summary>
    public const ulong Dirty = 1UL << 6;

    /// <summary>In a page-directory entry: maps 2 MB.</summary>
    public const ulong Large = 1UL << 7;

    /// <summary>Software: the entry is not computed from the mappings; the page has a frame of its own.</summary>
    public const ulong Explicit = 1UL << 9;

    /// <summary>Software, with <see cref="Explicit"/>: the frame belongs to this snapshot alone, which may write it.</summary>
    public const ulong Private = 1UL << 10;

    /// <summary>
    /// Software, with <see cref="Explicit"/>: the copy was made because a view was read there, not because main was about to write. Whether it has written since is in
    /// <see cref="FrameInfo.Unwritten"/>.
    /// </summary>
    public const ulong Early = 1UL << 11;

    /// <summary>The entry of a page that a snapshot is to have nothing at: main's mapping had no memory behind it when it went away.</summary>
    public const ulong Missing = Explicit;

    /// <summary>No instruction fetches.</summary>
    public const ulong NoExecute = 1UL << 63;

    /// <summary>The address in an entry of a 4 KB page or of a table.</summary>
    public const ulong AddressMask = 0x000F_FFFF_FFFF_F000;

    /// <summary>The address in a page-directory entry that maps 2 MB.</summary>
    public const ulong LargeAddressMask = 0x000F_FFFF_FFE0_0000;

    /// <summary>Entries a table has.</summary>
    public const int Count = 512;
}
