namespace Privy.Kernel;

/// <summary>Page faults of main: computed entries, and copy-on-write for the snapshots.</summary>
internal static unsafe class MainFault
{
    // around: how many neighbours to copy along with a page that a snapshot reads, or CopyAround.Adaptive, or RegionWrites.Unwritten.
    internal static Outcome Handle(KernelState* k, VcpuArea* v, ulong address, bool write, bool fetch, int around)
    {
        Space* main = k->Spaces;
        Vma* vma = VmaSet.Find(main, address);
        if (vma == null)
            return Outcome.NotMapped;
        if (!Rights.Allow(vma, write, fetch))
            return Outcome.Denied;

        Outcome outcome = FindEntry(k, v, main, vma, address, fetch, out ulong* directory, out ulong* page);
        if (outcome != Outcome.Done)
            return outcome;
        ulong entry = page != null ? *page : *directory;
        if (!write || (entry & Entry.Writable) != 0)
        {
            EarlyTouches.Record(k, v, address, fetch);
            return Outcome.Done;
        }

        if (!Rights.Shareable(k, vma))
        {
            Upgrade(k, main, vma, directory, page, address);
            return Outcome.Done;
        }
        ulong shootdowns = k->Shootdowns;
        // The copy last: from then on the page counts as changed, unless it is noted that nobody has written.
        if (page == null)
        {
            outcome = KeptTables.Split(k, address, directory);
            if (outcome != Outcome.Done)
                return outcome;
            page = Tables.At(k, *directory) + Walk.TableIndex(address);
        }
        outcome = CopyOnWrite.Copy(k, v, address, out ulong copy);
        if (outcome != Outcome.Done)
            return outcome;
        // Rights only grow: no vCPU of main needs a flush, at worst it faults once more.
        ulong writable = *page | Entry.Writable;
        Walk.Write(page, around == RegionWrites.Unwritten ? writable & ~Entry.Dirty : writable);
        if ((vma->Flags & Vma.Region) != 0)
        {
            if (copy != 0 && around == CopyAround.Adaptive)
                _ = Tables.CountFault(k, *directory);
            RegionWrites.Continue(k, v, address, page, copy, around);
        }
        else if (around != 0)
            CopyAround.Run(k, v, vma, address, directory, around, cachedToo: k->Shootdowns != shootdowns);
        return Outcome.Done;
    }

    /// <summary>
    /// The present entry of an address that is mapped; made if absent, as large as the mapping allows. <paramref name="page"/>
    /// is null when it is the 2 MB entry <paramref name="directory"/>.
    /// </summary>
    private static Outcome FindEntry(
        KernelState* k, VcpuArea* v, Space* main, Vma* vma, ulong address, bool fetch, out ulong* directory, out ulong* page)
    {
        page = null;
        directory = null;
        Outcome outcome = Slots.Ensure(k, v, LinearMap.Physical(k, address));
        if (outcome != Outcome.Done)
            return outcome;
        outcome = Walk.MakeDirectory(k, main, address, out directory, out bool fresh);
        if (outcome != Outcome.Done)
            return outcome;
        if (fresh)
            Fill.WholeDirectory(k, main, directory, address);

        // An entry from before the mappings changed (the host has not called Unmap or Protect yet): compute it again.
        if ((*directory & Entry.Large) != 0
            && (!Fill.CoversLargePage(vma, address) || (fetch && (*directory & Entry.NoExecute) != 0)))
        {
            Walk.Write(directory, 0);
        }
        if (*directory == 0)
        {
            if (Fill.CoversLargePage(vma, address))
            {
                Fill.Directory(k, main, directory, address, vma);
                return Outcome.Done;
            }
            outcome = KeptTables.Make(k, address, directory);
            if (outcome != Outcome.Done)
                return outcome;
        }
        if ((*directory & Entry.Large) != 0)
            return Outcome.Done;

        page = Tables.At(k, *directory) + Walk.TableIndex(address);
        if (fetch && (*page & Entry.NoExecute) != 0)
            Walk.Write(page, 0);
        if (*page == 0)
            Fill.Table(k, main, page, address, upgrade: false);
        return Outcome.Done;
    }

    /// <summary>
    /// Makes main's memory writable in large pieces: no snapshot sees the mapping any more. Page tables that give way
    /// to 2 MB entries stay on the tree's chain, since paging-structure caches may still lead to them.
    /// </summary>
    private static void Upgrade(KernelState* k, Space* main, Vma* vma, ulong* directory, ulong* page, ulong address)
    {
        if (!Fill.CoversLargePage(vma, address))
        {
            Fill.Table(k, main, page, address, upgrade: true);
            return;
        }
        ulong bits = Rights.Linear(k, true, vma) | Entry.Large;
        Walk.Write(directory, LinearMap.Physical(k, address & ~(Layout.LargePageSize - 1)) | bits);

        ulong gigabyte = address & ~(Layout.Gigabyte - 1);
        ulong* first = directory - Walk.DirectoryIndex(address);
        ulong start = vma->Start > gigabyte ? vma->Start : gigabyte;
        ulong end = vma->End < gigabyte + Layout.Gigabyte ? vma->End : gigabyte + Layout.Gigabyte;
        start = (start + Layout.LargePageSize - 1) & ~(Layout.LargePageSize - 1);
        for (; start + Layout.LargePageSize <= end; start += Layout.LargePageSize)
        {
            ulong* entry = first + Walk.DirectoryIndex(start);
            if (*entry != 0 && (*entry & (Entry.Large | Entry.Writable)) != (Entry.Large | Entry.Writable))
                Walk.Write(entry, LinearMap.Physical(k, start) | bits);
        }
    }
}
