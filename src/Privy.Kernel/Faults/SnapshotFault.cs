namespace Privy.Kernel;

/// <summary>Page faults of a snapshot: linear read-only entries, private frames on the first write.</summary>
internal static unsafe class SnapshotFault
{
    // self: the host calls, so that no page fault has dropped the vCPU's own stale translation.
    internal static Outcome Handle(
        KernelState* k, VcpuArea* v, Space* space, ulong address, bool write, bool fetch, bool self)
    {
        Vma* vma = VmaSet.Find(space, address);
        if (vma == null)
            return Outcome.NotMapped;
        if (!Rights.Allow(vma, write, fetch))
            return Outcome.Denied;

        ulong* page = Walk.Page(k, space, address);
        ulong entry = page == null ? 0 : Walk.Read(page);
        if ((entry & Entry.Explicit) != 0)
        {
            if (entry == Entry.Missing)
                return Outcome.NoBacking;
            bool isPrivate = (entry & Entry.Private) != 0;
            if (write && !isPrivate)
                return MakePrivate(k, v, space, vma, page, entry & Entry.AddressMask, self);
            ulong wanted = Rights.ExplicitEntry(vma, entry & Entry.AddressMask, isPrivate);
            // Rights only grow here (Protect takes them away) and the frame stays: no flush.
            if (((wanted ^ entry) & ~(Entry.Accessed | Entry.Dirty)) != 0)
                Walk.Exchange(page, wanted | (entry & Entry.Accessed));
            return Outcome.Done;
        }
        if ((vma->Flags & Vma.Pooled) != 0)
            return Pooled(k, v, space, vma, address);
        if (write && (vma->Flags & Vma.Shared) == 0)
            return LinearWrite(k, v, space, vma, address, self);
        return Linear(k, v, space, vma, address);
    }

    /// <summary>Copies a page into a frame of the snapshot's own and points its entry there.</summary>
    private static Outcome MakePrivate(
        KernelState* k, VcpuArea* v, Space* space, Vma* vma, ulong* page, ulong source, bool self)
    {
        Outcome outcome = DirectMap.Ensure(k, v, source);
        if (outcome == Outcome.Done)
            outcome = FramePool.Reserve(k, v);
        if (outcome != Outcome.Done)
            return outcome;
        ulong frame = FramePool.Take(k);
        // Main cannot write the linear page meanwhile: its entry is read-only until it has taken the lock we hold.
        if (!Intrinsics.TryCopyPage(DirectMap.At(k, frame), DirectMap.At(k, source)))
        {
            FramePool.Free(k, frame);
            return Outcome.NoBacking;
        }
        PrivateFrames.Add(k, space, frame);
        ulong old = Walk.Exchange(page, Rights.ExplicitEntry(vma, frame, isPrivate: true));
        Shootdown.FlushReplaced(k, v, space, old, self);
        return Outcome.Done;
    }

    private static Outcome Pooled(KernelState* k, VcpuArea* v, Space* space, Vma* vma, ulong address)
    {
        ulong* page = null;
        Outcome outcome = FramePool.Reserve(k, v);
        if (outcome == Outcome.Done)
            outcome = MakePage(k, space, address, fill: false, out page);
        if (outcome != Outcome.Done)
            return outcome;
        ulong frame = FramePool.Take(k);
        Intrinsics.ZeroPage(DirectMap.At(k, frame));
        PrivateFrames.Add(k, space, frame);
        Walk.Exchange(page, Rights.ExplicitEntry(vma, frame, isPrivate: true));
        return Outcome.Done;
    }

    private static Outcome LinearWrite(KernelState* k, VcpuArea* v, Space* space, Vma* vma, ulong address, bool self)
    {
        ulong physical = LinearMap.Physical(k, address) & ~(Layout.PageSize - 1);
        // The table is filled with its neighbours' linear entries, so their gigabyte's slot must exist.
        Outcome outcome = Slots.Ensure(k, v, physical);
        if (outcome != Outcome.Done)
            return outcome;
        outcome = MakePage(k, space, address, fill: true, out ulong* page);
        return outcome == Outcome.Done ? MakePrivate(k, v, space, vma, page, physical, self) : outcome;
    }

    /// <summary>The page-table entry of an address, with the table made if need be.</summary>
    private static Outcome MakePage(KernelState* k, Space* space, ulong address, bool fill, out ulong* page)
    {
        page = null;
        Outcome outcome = Walk.MakeDirectory(k, space, address, out ulong* directory, out _);
        if (outcome != Outcome.Done)
            return outcome;
        ulong entry = Walk.Read(directory);
        if (entry == 0)
        {
            outcome = Walk.MakeTable(k, space, address, directory);
            if (outcome != Outcome.Done)
                return outcome;
            if (fill)
                Fill.Table(k, space, Tables.At(k, *directory) + Walk.TableIndex(address), address, upgrade: false);
        }
        else if ((entry & Entry.Large) != 0)
        {
            // The fault dropped at most one stale translation of this vCPU: the others of the 2 MB may stay cached,
            // and their entries must go on saying so.
            outcome = Walk.Split(k, space, address, directory, -1, keepAccessed: true, out _);
            if (outcome != Outcome.Done)
                return outcome;
        }
        page = Walk.Page(k, space, address);
        return Outcome.Done;
    }

    private static Outcome Linear(KernelState* k, VcpuArea* v, Space* space, Vma* vma, ulong address)
    {
        Outcome outcome = Slots.Ensure(k, v, LinearMap.Physical(k, address));
        if (outcome != Outcome.Done)
            return outcome;
        bool copied = false;
        if (space->View != 0)
            outcome = ViewBlocks.Resolve(k, v, space, vma, address, out copied);
        if (outcome == Outcome.Done && !copied)
            outcome = ReaderCopies.Resolve(k, v, space, vma, address, out copied);
        if (outcome != Outcome.Done || copied)
            return outcome;
        outcome = Walk.MakeDirectory(k, space, address, out ulong* directory, out bool fresh);
        if (outcome != Outcome.Done)
            return outcome;
        if (fresh && space->View != 0)
            ViewBlocks.FillOthers(k, space, directory, address);
        else if (fresh && space->CopyReads == 0)
            Fill.WholeDirectory(k, space, directory, address);
        if (Walk.Read(directory) == 0)
        {
            if (Fill.CoversLargePage(vma, address))
            {
                if (space->View == 0)
                    Fill.Directory(k, space, directory, address, vma);
                else if (ViewBlocks.IsHot(k, space, address))
                    Walk.Write(directory, LinearMap.Physical(k, address & ~(Layout.LargePageSize - 1)) | Rights.Linear(k, false, vma) | Entry.Large);
                else
                    ViewBlocks.FillOthers(k, space, directory, address);
                return Outcome.Done;
            }
            outcome = Walk.MakeTable(k, space, address, directory);
            if (outcome != Outcome.Done)
                return outcome;
        }
        ulong bits = Rights.Linear(k, false, vma);
        if ((Walk.Read(directory) & Entry.Large) != 0)
        {
            if (Fill.CoversLargePage(vma, address))
            {
                Grow(directory, bits);
                return Outcome.Done;
            }
            // The mappings changed and the host has not called Unmap or Protect yet.
            outcome = Walk.Split(k, space, address, directory, -1, keepAccessed: true, out _);
            if (outcome != Outcome.Done)
                return outcome;
        }
        ulong* page = Tables.At(k, Walk.Read(directory)) + Walk.TableIndex(address);
        if (Walk.Read(page) != 0)
        {
            Grow(page, bits);
            return Outcome.Done;
        }
        Fill.Table(k, space, page, address, upgrade: false);
        if (space->View != 0)
            ViewReads.Add(k, space, address);
        return Outcome.Done;
    }

    /// <summary>Gives a present linear entry the rights its mapping has by now; address and A bit stay.</summary>
    private static void Grow(ulong* entry, ulong bits)
    {
        for (; ; )
        {
            ulong old = Walk.Read(entry);
            ulong wanted = (old | (bits & (Entry.Writable | Entry.Dirty))) & ~(~bits & Entry.NoExecute);
            if (wanted == old || Walk.CompareExchange(entry, wanted, old))
                return;
        }
    }
}
