namespace Privy.Kernel;

/// <summary>
/// Takes memory away from main (munmap, MADV_DONTNEED, a mapping over it) while snapshots keep what they see (rule 4).
/// </summary>
internal static unsafe class Detach
{
    internal static long Run(VcpuArea* v, ulong start, ulong end, byte* populated)
    {
        KernelState* k = v->Kernel;
        ulong first = start & ~(Layout.PageSize - 1);
        ulong address = first;
        while (address < end)
        {
            // A page table's worth at a time, so that page faults of others get through.
            ulong next = (address & ~(Layout.LargePageSize - 1)) + Layout.LargePageSize;
            ulong stop = next < end ? next : end;
            Outcome outcome = Outcome.Done;
            KernelLock.Enter(k, v);
            Tables.FreeRetired(k, v);
            if (k->ActiveMask == 0)
                address = stop;
            while (address < stop && outcome == Outcome.Done)
            {
                outcome = Page(k, v, address, populated[(address - first) >> 12] != 0);
                if (outcome == Outcome.Done)
                    address += Layout.PageSize;
            }
            if (outcome == Outcome.Done)
            {
                // The whole piece, also what was done before a retry: main may have touched it in between.
                ulong piece = (stop - 1) & ~(Layout.LargePageSize - 1);
                RangeEdit.EditGigabyte(k, v, k->Spaces, piece > first ? piece : first, stop, unmap: true);
            }
            KernelLock.Exit(k);
            if (outcome == Outcome.Done)
                continue;
            outcome = Retry.Help(v, outcome);
            if (outcome != Outcome.Done)
                return -Errno.NoMemory;
        }
        return 0;
    }

    private static Outcome Page(KernelState* k, VcpuArea* v, ulong address, bool populated)
    {
        RegionWrites.Settle(k);
        // Views that have a copy already get the same one as the others: that is how it is known that nothing has changed between them.
        ulong readers = CopyOnWrite.Readers(k, address, Vma.Pooled, out ulong early) | early;
        if (readers == 0)
            return Outcome.Done;
        Outcome outcome = CopyOnWrite.MakeTables(k, v, readers, address);
        if (outcome != Outcome.Done)
            return outcome;
        if (!populated)
        {
            outcome = EnsureZeroFrame(k, v);
            if (outcome == Outcome.Done)
                CopyOnWrite.Redirect(k, v, readers, address, k->ZeroFrame, present: true);
            return outcome;
        }

        ulong source = LinearMap.Physical(k, address);
        outcome = DirectMap.Ensure(k, v, source);
        if (outcome == Outcome.Done)
            outcome = FramePool.Reserve(k, v);
        if (outcome != Outcome.Done)
            return outcome;
        ulong frame = FramePool.Take(k);
        // Snapshots may be writing memory they share with main: they must stop before the copy is made.
        if (AnyShared(k, readers, address))
            CopyOnWrite.Redirect(k, v, readers, address, frame, present: false);
        if (!Intrinsics.TryCopyPage(DirectMap.At(k, frame), DirectMap.At(k, source)))
        {
            FramePool.Free(k, frame);
            MarkMissing(k, v, readers, address);
            return Outcome.Done;
        }
        CopyOnWrite.Redirect(k, v, readers, address, frame, present: true);
        CopyOnWrite.Keep(k, readers, frame);
        return Outcome.Done;
    }

    /// <summary>The snapshots had nothing there but a fault, and keep that whatever main maps there next.</summary>
    private static void MarkMissing(KernelState* k, VcpuArea* v, ulong spaces, ulong address)
    {
        for (int i = 0; spaces != 0; i++, spaces >>= 1)
        {
            if ((spaces & 1) == 0)
                continue;
            Space* space = k->Spaces + i;
            ulong old = Walk.Exchange(Walk.Page(k, space, address), Entry.Missing);
            Shootdown.FlushReplaced(k, v, space, old, self: true);
        }
    }

    private static bool AnyShared(KernelState* k, ulong readers, ulong address)
    {
        for (int i = 0; readers != 0; i++, readers >>= 1)
        {
            if ((readers & 1) != 0 && (VmaSet.Find(k->Spaces + i, address)->Flags & Vma.Shared) != 0)
                return true;
        }
        return false;
    }

    private static Outcome EnsureZeroFrame(KernelState* k, VcpuArea* v)
    {
        if (k->ZeroFrame != 0)
            return Outcome.Done;
        Outcome outcome = FramePool.Reserve(k, v);
        if (outcome != Outcome.Done)
            return outcome;
        ulong frame = FramePool.Take(k);
        k->FramesInUse--;
        Intrinsics.ZeroPage(DirectMap.At(k, frame));
        k->ZeroFrame = frame;
        return Outcome.Done;
    }
}
