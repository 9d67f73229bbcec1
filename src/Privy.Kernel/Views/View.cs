namespace Privy.Kernel;

/// <summary>
/// Snapshots that main reads itself, beside its own memory: a view is the snapshot's tree, grafted into main's at another place. Main's top-level table
/// gets an entry that points to the snapshot's page-directory-pointer table, so that view address = slot of the snapshot + (address mod 512 GB), and every
/// redirection of the snapshot's entries shows in the view at once.
/// </summary>
internal static unsafe class View
{
    // Of the views in a top-level table; what is below is main's memory.
    private const int FirstRootEntry = (int)(Layout.ViewBase >> 39);

    /// <summary>
    /// Takes a snapshot of [start, end), which lies in one slot of 512 GB, and shows it to main. All of main's vCPUs are out of the program, and stay out until this
    /// has returned. Returns the space's index.
    /// </summary>
    internal static long Take(VcpuArea* v, ulong start, ulong end)
    {
        KernelState* k = v->Kernel;
        if (start >= end || !LinearMap.Contains(k, start) || !LinearMap.Contains(k, end - 1)
            || Slot(start) != Slot(end - 1) || ((start | end) & (Layout.PageSize - 1)) != 0)
        {
            return -Errno.Invalid;
        }
        if (!SnapshotCreation.AwaitOutside(k->Spaces))
            return -Errno.Busy;
        for (; ; )
        {
            KernelLock.Enter(k, v);
            Tables.FreeRetired(k, v);
            long index = -Errno.Again;
            // Two each of main and of the snapshot, and main's directory-pointer tables.
            Outcome outcome = Tables.PrepareRoots(k, 4 + Pointers(k));
            if (outcome == Outcome.Done)
            {
                int free = SnapshotCreation.FindFree(k);
                if (free != 0)
                {
                    Make(k, free, start, end);
                    index = free;
                }
            }
            KernelLock.Exit(k);
            if (outcome == Outcome.Done)
                return index;
            if (Retry.Help(v, outcome) != Outcome.Done)
                return -Errno.NoMemory;
        }
    }

    /// <summary>
    /// Takes a view away from main and ends its snapshot. Main's vCPUs flush: none may walk the snapshot's tables any more when they become something else.
    /// </summary>
    internal static long Close(VcpuArea* v, int index)
    {
        KernelState* k = v->Kernel;
        if (index <= 0 || index >= Layout.MaxSpaces)
            return -Errno.Invalid;
        Space* space = k->Spaces + index;
        KernelLock.Enter(k, v);
        bool open = space->Active == Space.InUse && space->View != 0;
        if (open)
        {
            int entry = Walk.RootIndex(space->View);
            Walk.Write(Tables.At(k, k->Spaces->Root) + entry, 0);
            Walk.Write(Tables.At(k, k->Spaces->AliasRoot) + entry, 0);
            Shootdown.Flush(k, v, k->Spaces, self: true);
        }
        KernelLock.Exit(k);
        return open ? SnapshotRelease.Release(v, index) : -Errno.Invalid;
    }

    /// <summary>Main's directory-pointer tables.</summary>
    internal static ulong Pointers(KernelState* k)
    {
        ulong* root = Tables.At(k, k->Spaces->Root);
        ulong* template = Tables.At(k, k->TemplateRoot);
        ulong count = 0;
        for (int i = 0; i < FirstRootEntry; i++)
        {
            if (root[i] != 0 && template[i] == 0)
                count++;
        }
        return count;
    }

    /// <summary>Main has fresh roots: they get the views.</summary>
    internal static void GraftAll(KernelState* k)
    {
        ulong views = k->ViewMask;
        for (int i = 0; views != 0; i++, views >>= 1)
        {
            if ((views & 1) != 0)
                Graft(k, k->Spaces + i);
        }
    }

    /// <summary>The snapshot is being released.</summary>
    internal static void Forget(KernelState* k, int index)
    {
        k->ViewMask &= ~(1UL << index);
        k->Spaces[index].View = 0;
    }

    internal static bool Contains(ulong address) => address - Layout.ViewBase < Layout.ViewSpan * Layout.MaxSpaces;

    /// <summary>A page fault of main in a view: the snapshot's own, at the place the view shows.</summary>
    internal static Outcome Resolve(KernelState* k, VcpuArea* v, ulong address, bool write, bool fetch)
    {
        int index = (int)((address - Layout.ViewBase) / Layout.ViewSpan);
        if ((k->ViewMask >> index & 1) == 0)
            return Outcome.NotMapped;
        Space* space = k->Spaces + index;
        ulong shown = space->ViewOf + (address & (Layout.ViewSpan - Layout.PageSize));
        return LinearMap.Contains(k, shown) ? SnapshotFault.Handle(k, v, space, shown, write, fetch, self: false) : Outcome.NotMapped;
    }

    /// <summary>
    /// Sets the bits of the pages of [start, end) that main has written between two snapshots in use, from their entries: the older one has a copy, and the newer one has
    /// not the same. What was written only after both they have one copy of.
    /// </summary>
    internal static long Changed(VcpuArea* v, ulong pair, ulong start, ulong end, ulong* bits)
    {
        KernelState* k = v->Kernel;
        uint first = (uint)(pair >> 32);
        uint second = (uint)pair;
        if (first >= Layout.MaxSpaces || second >= Layout.MaxSpaces)
            return -Errno.Invalid;
        Space* older = k->Spaces + first;
        Space* newer = k->Spaces + second;
        for (ulong area = start; area < end;)
        {
            ulong next = (area & ~(Layout.LargePageSize - 1)) + Layout.LargePageSize;
            if (next > end)
                next = end;
            // A page table at a time, so that page faults get through.
            KernelLock.Enter(k, v);
            if (older->Active != Space.InUse || newer->Active != Space.InUse)
            {
                KernelLock.Exit(k);
                return -Errno.Invalid;
            }
            RegionWrites.Settle(k);
            bool copies = HasCopies(k, older, area);
            for (int i = 0; copies && area + ((ulong)i << 12) < next; i++)
            {
                ulong entry = Walk.PageEntry(k, older, area + ((ulong)i << 12));
                if ((entry & Entry.Explicit) == 0 || ViewReads.ShowsMain(k, entry))
                    continue;
                ulong now = Walk.PageEntry(k, newer, area + ((ulong)i << 12));
                if ((now & Entry.Explicit) != 0 && (now & Entry.AddressMask) == (entry & Entry.AddressMask))
                    continue;
                ulong number = (area + ((ulong)i << 12) - start) >> 12;
                bits[number >> 6] |= 1UL << (int)(number & 63);
            }
            KernelLock.Exit(k);
            area = next;
        }
        return 0;
    }

    /// <summary>Whether there may be copies in the 2 MB.</summary>
    private static bool HasCopies(KernelState* k, Space* space, ulong area)
    {
        ulong* directory = Walk.Directory(k, space, area);
        ulong entry = directory == null ? 0 : Walk.Read(directory);
        return (entry & Entry.Present) != 0 && (entry & (Entry.Large | Entry.Explicit)) != Entry.Large;
    }

    private static void Make(KernelState* k, int index, ulong start, ulong end)
    {
        Space* space = k->Spaces + index;
        space->Shootdowns = 0;
        space->CopyReads = 0;
        for (int i = 0; i < Layout.MaxVcpus / 64; i++)
            space->Vcpus[i] = 0;
        // No vCPU ever loads it, so it needs no second root.
        space->Root = Tables.TakeRoot(k);
        space->AliasRoot = space->Root;
        Tables.Chain(k, &space->Tables, space->Root);
        ulong pointers = Tables.TakeRoot(k);
        Intrinsics.ZeroPage(Tables.At(k, pointers));
        Tables.Chain(k, &space->Tables, pointers);
        Walk.Write(Tables.At(k, space->Root) + Walk.RootIndex(start), Walk.TableEntry(k, space, pointers));
        CopyMappings(k->Spaces, space, start, end);
        space->ViewOf = Slot(start);
        space->View = Layout.ViewBase + (ulong)index * Layout.ViewSpan;
        space->Epoch = k->Epoch;
        k->Epoch++;
        k->SnapshotsTaken++;
        RegionWrites.EndEpoch(k);
        RenewRegions(k);
        k->ViewMask |= 1UL << index;
        Graft(k, space);
        SnapshotSet.Add(k, index);
        SnapshotCreation.MarkMain(k);
    }

    /// <summary>
    /// Gives main fresh tables, empty, for the regions: at this instant all their entries can be computed. The rest of main keeps its tables below the
    /// directory pointers. The caller still runs on the former roots.
    /// </summary>
    private static void RenewRegions(KernelState* k)
    {
        Space* main = k->Spaces;
        ulong* former = Tables.At(k, main->Root);
        ulong* template = Tables.At(k, k->TemplateRoot);
        Tables.Retire(k, &main->Renewed);
        SnapshotCreation.SetRoots(k, main);
        ulong* root = Tables.At(k, main->Root);
        ulong* alias = Tables.At(k, main->AliasRoot);
        for (int i = 0; i < FirstRootEntry; i++)
        {
            ulong entry = former[i];
            if (entry == 0 || template[i] != 0)
                continue;
            ulong pointers = Tables.TakeRoot(k);
            Tables.Chain(k, &main->Renewed, pointers);
            ulong* from = Tables.At(k, entry);
            ulong* to = Tables.At(k, pointers);
            ulong address = (ulong)i << 39;
            for (int j = 0; j < Entry.Count; j++, address += Layout.Gigabyte)
                to[j] = from[j] != 0 && Tables.IsRegion(k, address) ? 0 : from[j];
            entry = Walk.TableEntry(k, main, pointers);
            Walk.Write(root + i, entry);
            Walk.Write(alias + i, entry);
        }
        GraftAll(k);
    }

    /// <summary>Whether a processor has walked the view's tables: they start without A.</summary>
    internal static bool WasRead(KernelState* k, Space* space)
    {
        ulong* pointers = Tables.At(k, Walk.Read(Tables.At(k, space->Root) + Walk.RootIndex(space->ViewOf)));
        for (int i = 0; i < Entry.Count; i++)
        {
            if ((Walk.Read(pointers + i) & Entry.Accessed) != 0)
                return true;
        }
        return false;
    }

    /// <summary>The slot of 512 GB an address lies in.</summary>
    private static ulong Slot(ulong address) => address & ~(Layout.ViewSpan - 1);

    private static void Graft(KernelState* k, Space* space)
    {
        // Main may not write through it: the entries below are read-only, and the snapshot's mappings, too.
        ulong entry = Walk.Read(Tables.At(k, space->Root) + Walk.RootIndex(space->ViewOf));
        int index = Walk.RootIndex(space->View);
        Walk.Write(Tables.At(k, k->Spaces->Root) + index, entry);
        Walk.Write(Tables.At(k, k->Spaces->AliasRoot) + index, entry);
    }

    /// <summary>The snapshot has only what it is for: the rest of main's memory has one reader less.</summary>
    private static void CopyMappings(Space* main, Space* space, ulong start, ulong end)
    {
        int count = 0;
        for (int i = VmaSet.FirstEndingAfter(main, start); i < main->VmaCount && main->Vmas[i].Start < end; i++)
        {
            Vma* from = main->Vmas + i;
            Vma* to = space->Vmas + count++;
            to->Start = from->Start > start ? from->Start : start;
            to->End = from->End < end ? from->End : end;
            to->Flags = (from->Flags & ~(Vma.Write | Vma.Execute)) | Vma.Read;
            to->HostTag = from->HostTag;
            to->Birth = from->Birth;
        }
        space->VmaCount = count;
    }
}
