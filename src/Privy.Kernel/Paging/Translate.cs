namespace Privy.Kernel;

/// <summary>What an address of a space leads to.</summary>
public enum PageKind
{
    /// <summary>No entry: the mapping decides (linear memory, or zeros for a pooled mapping).</summary>
    Absent,

    /// <summary>The program's memory at its linear place.</summary>
    Linear,

    /// <summary>A copy shared by snapshots.</summary>
    Redirect,

    /// <summary>A frame of this snapshot.</summary>
    Private,

    /// <summary>The shared frame of zeros.</summary>
    Zero,

    /// <summary>Nothing, though the page is mapped (<see cref="Entry.Missing"/>).</summary>
    Missing,
}

/// <summary>Walks a space's tables without the lock, for the host.</summary>
/// <remarks>
/// A copy on write by main may overtake a reader that found <see cref="PageKind.Linear"/> or
/// <see cref="PageKind.Absent"/>: read the bytes, then look up again; if the answer is the same, the bytes were
/// the snapshot's, since main may write only after the redirect is in place. Copies and private frames stay as
/// long as the space does not change them itself.
/// </remarks>
public static unsafe class Translate
{
    /// <summary>Looks up <paramref name="address"/>; <paramref name="physical"/> is guest-physical, linear when there is no entry.</summary>
    public static PageKind Lookup(KernelState* k, Space* space, ulong address, out ulong entry, out ulong physical)
    {
        physical = LinearMap.Physical(k, address);
        entry = 0;
        ulong* directory = Walk.Directory(k, space, address);
        if (directory == null)
            return PageKind.Absent;
        entry = Walk.Read(directory);
        if ((entry & Entry.Present) == 0)
            return PageKind.Absent;
        if ((entry & (Entry.Large | Entry.Explicit)) == Entry.Large)
            return PageKind.Linear;
        entry = (entry & Entry.Large) != 0
            ? (entry & ~Entry.Large) + ((ulong)Walk.TableIndex(address) << 12)
            : Walk.Read(Tables.At(k, entry) + Walk.TableIndex(address));
        if ((entry & Entry.Explicit) == 0)
            return (entry & Entry.Present) != 0 ? PageKind.Linear : PageKind.Absent;
        if (entry == Entry.Missing)
            return PageKind.Missing;
        ulong frame = entry & Entry.AddressMask;
        physical = frame | (address & (Layout.PageSize - 1));
        if ((entry & Entry.Private) != 0)
            return PageKind.Private;
        return frame == k->ZeroFrame ? PageKind.Zero : PageKind.Redirect;
    }
}
