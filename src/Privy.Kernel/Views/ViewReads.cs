namespace Privy.Kernel;

/// <summary>
/// What main's processors may have cached of views, and what spares main's writes the shootdowns for it.
/// </summary>
/// <remarks>
/// A write to a page that a processor may have cached in a view makes all of main's processors forget all that they have cached, so the views' entries can be dropped
/// with it: what is not read again costs no second shootdown. What is read again, by a reader that comes back to the same places, is copied then: 2 MB at a fault, by the
/// reader, so that main's writes there cost no shootdown any more (<see cref="ViewBlocks"/>, <see cref="ReaderCopies"/>).
/// </remarks>
internal static unsafe class ViewReads
{
    /// <summary>A page table of the view has got entries of main's memory.</summary>
    internal static void Add(KernelState* k, Space* space, ulong address)
    {
        ulong area = (address & ~(Layout.LargePageSize - 1)) | (ulong)(space - k->Spaces);
        // When there are more, the oldest are forgotten: they stay mapped until main writes there.
        k->ViewAreas[k->ViewAreaCount++ % KernelState.ViewAreaCapacity] = area;
        if (k->ViewAreaCount == 2 * KernelState.ViewAreaCapacity)
            k->ViewAreaCount = KernelState.ViewAreaCapacity;
    }

    /// <summary>All of main's vCPUs are about to flush: drops the views' entries that they may have cached.</summary>
    internal static void Forget(KernelState* k)
    {
        int count = k->ViewAreaCount < KernelState.ViewAreaCapacity ? k->ViewAreaCount : KernelState.ViewAreaCapacity;
        k->ViewAreaCount = 0;
        for (int i = 0; i < count; i++)
        {
            ulong area = k->ViewAreas[i] & ~(Layout.LargePageSize - 1);
            int index = (int)(k->ViewAreas[i] & (Layout.LargePageSize - 1));
            // It may be another view's by now, or that of a forked child.
            if ((k->ViewMask >> index & 1) != 0)
                ForgetArea(k, k->Spaces + index, area);
        }
    }

    /// <summary>Whether a page table has lost entries that were read: what is read there is copied.</summary>
    internal static bool WasForgotten(KernelState* k, ulong directoryEntry) => Tables.Faults(k, directoryEntry) != 0;

    /// <summary>Whether an explicit entry leads to a copy of what main still has.</summary>
    internal static bool ShowsMain(KernelState* k, ulong entry)
    {
        const ulong early = Entry.Explicit | Entry.Early;
        return (entry & early) == early && (FramePool.Info(k, entry & Entry.AddressMask)->BeginEpoch & FrameInfo.Unwritten) != 0;
    }

    /// <summary>
    /// A copy of the page that another view has and this one can have, too: of what main has now, and kept for a snapshot that is not older. 0: none.
    /// </summary>
    internal static ulong FindCopy(KernelState* k, Space* space, ulong address)
    {
        ulong views = k->ViewMask & k->ActiveMask & ~(1UL << (int)(space - k->Spaces));
        for (int i = 0; views != 0; i++, views >>= 1)
        {
            if ((views & 1) == 0 || k->Spaces[i].Epoch < space->Epoch)
                continue;
            ulong entry = Walk.PageEntry(k, k->Spaces + i, address);
            if (ShowsMain(k, entry))
                return entry & Entry.AddressMask;
        }
        return 0;
    }

    private static void ForgetArea(KernelState* k, Space* space, ulong area)
    {
        ulong* table = Walk.Page(k, space, area);
        if (table == null)
            return;
        bool any = false;
        for (int i = 0; i < Entry.Count; i++)
        {
            ulong entry = Walk.Read(table + i);
            if (entry == 0 || (entry & Entry.Explicit) != 0)
                continue;
            any = true;
            Walk.Write(table + i, 0);
        }
        if (any)
            _ = Tables.CountFault(k, *Walk.Directory(k, space, area));
    }
}
