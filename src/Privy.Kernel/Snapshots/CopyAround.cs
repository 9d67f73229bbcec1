namespace Privy.Kernel;

/// <summary>
/// Copies pages ahead of main's writes, in the fault of a neighbour: a fault costs as much as some twenty copies on paravirtual KVM.
/// </summary>
/// <remarks>
/// How many follows from what the faults have shown. A page table's first fault copies few pages more, each further one more of them,
/// so that the work done ahead never exceeds what the faults of that table have cost; a fault where the last copies ended doubles their number.
/// A vCPU that does little but fault (<see cref="FaultRate"/>) copies many at once, and the most once it has done so for a while: it will write there soon, and each fault spared is time for its work.
/// When all pages of a table are copied, main gets its 2 MB entry back.
/// </remarks>
internal static unsafe class CopyAround
{
    /// <summary>In place of a number of pages: as many as the faults so far suggest.</summary>
    internal const int Adaptive = -1;

    /// <summary>After a fault at <paramref name="address"/>, whose page main may write by now and every snapshot has a copy of.</summary>
    /// <param name="k">The state.</param>
    /// <param name="v">The vCPU.</param>
    /// <param name="vma">Main's mapping.</param>
    /// <param name="address">Of the fault.</param>
    /// <param name="directory">The directory entry that leads to the page table.</param>
    /// <param name="wanted">Most pages, or <see cref="Adaptive"/>.</param>
    /// <param name="cachedToo">
    /// Takes pages along that a snapshot may have cached. They cost one shootdown together, which is worth it where the page of the fault has
    /// just cost one: where a snapshot reads, each of its neighbours would cost its own.
    /// </param>
    internal static void Run(KernelState* k, VcpuArea* v, Vma* vma, ulong address, ulong* directory, int wanted, bool cachedToo)
    {
        if (!Allowed(k, vma))
            return;
        bool adaptive = wanted < 0;
        if (adaptive)
            wanted = Window(k, v, address, *directory);
        ulong area = address & ~(Layout.LargePageSize - 1);
        ulong start = vma->Start > area ? vma->Start : area;
        ulong end = vma->End < area + Layout.LargePageSize ? vma->End : area + Layout.LargePageSize;
        if (!FindSnapshots(k, address, ref start, ref end))
            return;

        ulong* table = Tables.At(k, *directory);
        int copied = 0;
        bool all = true;
        ulong flush = 0;
        ulong high = address + Layout.PageSize;
        for (; high < end && copied < wanted; high += Layout.PageSize)
            copied += Copy(k, v, table, high, cachedToo, ref all, ref flush);
        ulong low = address;
        for (; low > start && copied < wanted; low -= Layout.PageSize)
            copied += Copy(k, v, table, low - Layout.PageSize, cachedToo, ref all, ref flush);
        if (adaptive)
        {
            v->AroundEnd = high;
            v->AroundCount = wanted;
        }
        k->CopiedAhead += (ulong)copied;

        for (int i = 0; flush != 0; i++, flush >>= 1)
        {
            if ((flush & 1) != 0)
                Shootdown.Flush(k, v, k->Spaces + i, self: true);
        }
        for (; low < high; low += Layout.PageSize)
        {
            ulong* page = table + Walk.TableIndex(low);
            if ((*page & (Entry.Present | Entry.Writable)) == Entry.Present && Readers(k, low) == 0)
                Walk.Write(page, *page | Entry.Writable);
        }
        if ((copied < wanted || high == end) && all && end - start == Layout.LargePageSize)
            Collapse(k, directory, table);
    }

    /// <summary>Whether pages of the mapping may be copied before somebody writes there: not where a copy tells the program that a page has changed.</summary>
    internal static bool Allowed(KernelState* k, Vma* vma) =>
        (vma->Flags & Vma.Region) == 0 && (vma->HostTag & Vma.TagFile) == 0 && k->FramesInUse < k->AheadLimit;

    private static int Window(KernelState* k, VcpuArea* v, ulong address, ulong table)
    {
        int wanted = Tables.CountFault(k, table) * k->AheadGrowth;
        if (address == v->AroundEnd && wanted < v->AroundCount * 2)
            wanted = v->AroundCount * 2;
        if (FaultRate.Count(k, v))
        {
            int dense = FaultRate.ManySinceSnapshot(k, v) ? k->AheadMost : k->AheadDense;
            return dense > wanted ? dense : wanted < k->AheadMost ? wanted : k->AheadMost;
        }
        return wanted < k->AheadMost ? wanted : k->AheadMost;
    }

    /// <summary>
    /// Notes each snapshot's table and mapping, and narrows the range to what they all have mapped alike. False: a snapshot sees
    /// something else there.
    /// </summary>
    private static bool FindSnapshots(KernelState* k, ulong address, ref ulong start, ref ulong end)
    {
        ulong active = k->ActiveMask;
        for (int i = 0; active != 0; i++, active >>= 1)
        {
            if ((active & 1) == 0)
                continue;
            Space* space = k->Spaces + i;
            Vma* vma = VmaSet.Find(space, address);
            ulong* page = Walk.Page(k, space, address);
            if (vma == null || (vma->Flags & (Vma.Shared | Vma.Pooled)) != 0 || page == null)
                return false;
            if (vma->Start > start)
                start = vma->Start;
            if (vma->End < end)
                end = vma->End;
            k->AroundVmas[i] = (ulong)vma;
            k->AroundTables[i] = (ulong)(page - Walk.TableIndex(address));
        }
        return true;
    }

    /// <summary>Bit set of the snapshots that have no page of their own there, after <see cref="FindSnapshots"/>.</summary>
    private static ulong Readers(KernelState* k, ulong address)
    {
        ulong readers = 0;
        ulong active = k->ActiveMask;
        for (int i = 0; active != 0; i++, active >>= 1)
        {
            if ((active & 1) != 0 && (Walk.Read((ulong*)k->AroundTables[i] + Walk.TableIndex(address)) & Entry.Explicit) == 0)
                readers |= 1UL << i;
        }
        return readers;
    }

    /// <summary>
    /// Copies one page if main may not write it yet; returns 1 when it did. <paramref name="all"/> becomes false when the page stays
    /// as it is, <paramref name="flush"/> collects the snapshots that must forget translations before main may write.
    /// </summary>
    private static int Copy(KernelState* k, VcpuArea* v, ulong* table, ulong address, bool cachedToo, ref bool all, ref ulong flush)
    {
        int index = Walk.TableIndex(address);
        ulong entry = table[index];
        if ((entry & Entry.Writable) != 0)
            return 0;
        ulong readers = Readers(k, address);
        if ((entry & Entry.Present) == 0 || readers == 0 || (!cachedToo && Cached(k, readers, index)) || !FramePool.AtHand(k, v))
        {
            all &= readers == 0 && (entry & Entry.Present) != 0;
            return 0;
        }
        ulong frame = FramePool.Take(k);
        if (!Intrinsics.TryCopyPage(DirectMap.At(k, frame), DirectMap.At(k, LinearMap.Physical(k, address))))
        {
            FramePool.Free(k, frame);
            all = false;
            return 0;
        }
        v->PcowCopies++;
        ulong left = readers;
        for (int i = 0; left != 0; i++, left >>= 1)
        {
            if ((left & 1) == 0)
                continue;
            ulong old = Walk.Exchange(
                (ulong*)k->AroundTables[i] + index, Rights.ExplicitEntry((Vma*)k->AroundVmas[i], frame, isPrivate: false));
            if ((old & (Entry.Present | Entry.Accessed)) == (Entry.Present | Entry.Accessed))
                flush |= 1UL << i;
            else if ((old & Entry.Present) != 0)
                k->ShootdownsSpared++;
        }
        CopyOnWrite.Keep(k, readers, frame);
        return 1;
    }

    /// <summary>Whether a vCPU may have the page cached: a copy ahead is not worth a shootdown of its own.</summary>
    private static bool Cached(KernelState* k, ulong readers, int index)
    {
        for (int i = 0; readers != 0; i++, readers >>= 1)
        {
            ulong cached = Entry.Present | Entry.Accessed;
            if ((readers & 1) != 0 && (Walk.Read((ulong*)k->AroundTables[i] + index) & cached) == cached)
                return true;
        }
        return false;
    }

    /// <summary>
    /// Gives main a 2 MB entry in place of a table whose entries are all alike and writable. The table stays on the tree's chain, since
    /// paging-structure caches may still lead to it; its translations are the same.
    /// </summary>
    private static void Collapse(KernelState* k, ulong* directory, ulong* table)
    {
        const ulong ignored = Entry.Accessed | Entry.Dirty;
        ulong first = table[0] | ignored;
        if ((first & (Entry.Present | Entry.Writable)) != (Entry.Present | Entry.Writable))
            return;
        for (int i = 1; i < Entry.Count; i++)
        {
            if ((table[i] | ignored) != first + ((ulong)i << 12))
                return;
        }
        Walk.Write(directory, first | Entry.Large);
        k->Collapsed++;
    }
}
