namespace Privy.Kernel;

/// <summary>Computes entries from mappings.</summary>
internal static unsafe class Rights
{
    private const uint AnyAccess = Vma.Read | Vma.Write | Vma.Execute;

    /// <summary>
    /// Whether a snapshot may see the mapping's memory at its linear place, so that main must not write there
    /// unnoticed. Memory mapped after the newest snapshot was taken is main's alone.
    /// </summary>
    internal static bool Shareable(KernelState* k, Vma* vma) =>
        (vma->Flags & Vma.Shared) == 0 && k->ActiveMask != 0 && vma->Birth <= k->NewestEpoch
        && (k->ActiveMask != k->ViewMask || (vma->Flags & Vma.Region) != 0);

    /// <summary>Whether the mapping allows the access; as on Linux/x86, any right implies reading.</summary>
    internal static bool Allow(Vma* vma, bool write, bool fetch)
    {
        if (write)
            return (vma->Flags & Vma.Write) != 0;
        if (fetch)
            return (vma->Flags & Vma.Execute) != 0;
        return (vma->Flags & AnyAccess) != 0;
    }

    /// <summary>Bits of a computed entry (without address), 0 when the mapping has no linear entries.</summary>
    internal static ulong Linear(KernelState* k, bool main, Vma* vma)
    {
        if ((vma->Flags & AnyAccess) == 0 || (vma->Flags & Vma.Pooled) != 0)
            return 0;
        ulong bits = Entry.Present | Entry.User;
        if ((vma->Flags & Vma.Execute) == 0)
            bits |= Entry.NoExecute;
        bool writable = (vma->Flags & Vma.Write) != 0;
        if (main)
        {
            // Nobody asks whether main touched a page: preset bits spare the hardware a locked store.
            bits |= Entry.Accessed | Entry.Dirty;
            if (writable && !Shareable(k, vma))
                bits |= Entry.Writable;
        }
        else if (writable && (vma->Flags & Vma.Shared) != 0)
        {
            bits |= Entry.Writable | Entry.Dirty;
        }
        // A snapshot's entries start with A = 0: that is how a shootdown is spared.
        return bits;
    }

    /// <summary>An explicit entry of a snapshot: for a copy shared by snapshots, or for a frame of its own.</summary>
    internal static ulong ExplicitEntry(Vma* vma, ulong frame, bool isPrivate)
    {
        ulong entry = frame | Entry.Explicit | Entry.User;
        if ((vma->Flags & AnyAccess) != 0)
            entry |= Entry.Present;
        if ((vma->Flags & Vma.Execute) == 0)
            entry |= Entry.NoExecute;
        if (isPrivate)
        {
            entry |= Entry.Private | Entry.Accessed | Entry.Dirty;
            if ((vma->Flags & Vma.Write) != 0)
                entry |= Entry.Writable;
        }
        return entry;
    }
}
