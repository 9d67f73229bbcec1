namespace Privy.Kernel;

/// <summary>
/// Copies of 2 MB of a view, made by whoever reads there, where main writes to many of the pages. Main's writes there cost no shootdown then, and the reader reads through
/// one entry.
/// </summary>
/// <remarks>
/// Under shadow paging a page table that is read beside writes is what a query pays for most: KVM fills in its entries eight at a time, and each shootdown has it look at
/// all entries of all tables that were edited, with a lock that each of its page faults needs.
/// A page's copy in a block does not say that main has written there: <see cref="FrameInfo.Unwritten"/>.
/// </remarks>
internal static unsafe class ViewBlocks
{
    // Main's faults wait for the lock meanwhile: some 20 us.
    private const int PagesPerLock = 64;

    private const int PausesBetween = 32;

    /// <summary>
    /// A page of the view that has no entry is read: takes a block for its 2 MB if they shall be copied, which <see cref="Continue"/> does.
    /// <paramref name="handled"/> is false where that is not what is wanted, or not possible.
    /// </summary>
    internal static Outcome Resolve(KernelState* k, VcpuArea* v, Space* space, Vma* vma, ulong address, out bool handled)
    {
        handled = false;
        ulong area = address & ~(Layout.LargePageSize - 1);
        if ((vma->HostTag & Vma.TagFile) != 0 || !Fill.CoversLargePage(vma, address) || k->FramesInUse + Entry.Count > k->AheadLimit)
            return Outcome.Done;
        Outcome outcome = Walk.MakeDirectory(k, space, address, out ulong* directory, out bool fresh);
        if (outcome != Outcome.Done)
            return outcome;
        if (fresh)
            FillOthers(k, space, directory, address);
        ulong entry = Walk.Read(directory);
        if ((entry & Entry.Large) != 0 || (!IsHot(k, space, address) && (entry == 0 || !ViewReads.WasForgotten(k, entry))))
            return Outcome.Done;
        Vma* mains = VmaSet.Find(k->Spaces, address);
        if (mains == null || (mains->Flags & Vma.Write) == 0 || !Fill.CoversLargePage(mains, address))
            return Outcome.Done;
        if (entry != 0 && !MayReplace(k, space, Tables.At(k, entry)))
            return Outcome.Done;
        outcome = DirectMap.Ensure(k, v, LinearMap.Physical(k, area));
        if (outcome != Outcome.Done)
            return outcome;
        ulong block = FrameBlocks.Take(k, v);
        if (block == 0)
            return Outcome.Done;
        if (entry == 0)
        {
            // In which main's writes leave their copies meanwhile.
            outcome = Walk.MakeTable(k, space, address, directory);
            if (outcome != Outcome.Done)
            {
                FrameBlocks.Free(k, block);
                return outcome;
            }
        }
        v->Block = block;
        v->BlockArea = area;
        v->BlockSpace = (int)(space - k->Spaces);
        v->BlockEpoch = space->Epoch;
        handled = true;
        return Outcome.Done;
    }

    /// <summary>Fills the block that <see cref="Resolve"/> has taken, and puts it into the view. Called without the lock.</summary>
    internal static void Continue(KernelState* k, VcpuArea* v)
    {
        int done = 0;
        while (v->Block != 0)
        {
            KernelLock.Enter(k, v);
            Space* space = k->Spaces + v->BlockSpace;
            ulong* directory = IsOpen(v, space) ? Walk.Directory(k, space, v->BlockArea) : null;
            bool good = directory != null && (Walk.Read(directory) & (Entry.Present | Entry.Large)) == Entry.Present;
            if (good && done < Entry.Count)
            {
                good = Copy(k, v, Tables.At(k, Walk.Read(directory)), done);
                done += PagesPerLock;
            }
            if (good && done == Entry.Count)
            {
                good = Commit(k, v, space, directory);
                if (good)
                    v->Block = 0;
            }
            if (!good)
            {
                FrameBlocks.Free(k, v->Block);
                v->Block = 0;
            }
            KernelLock.Exit(k);
            for (int i = 0; i < PausesBetween && v->Block != 0; i++)
                Intrinsics.Pause();
        }
    }

    /// <summary>
    /// Fills the directory of a view with entries of 2 MB, but for those that are to be copied when they are read.
    /// </summary>
    internal static void FillOthers(KernelState* k, Space* space, ulong* directory, ulong address)
    {
        Fill.WholeDirectory(k, space, directory, address);
        ulong* first = directory - Walk.DirectoryIndex(address);
        ulong area = address & ~(Layout.Gigabyte - 1);
        for (int i = 0; i < Entry.Count; i++, area += Layout.LargePageSize)
        {
            ulong entry = Walk.Read(first + i);
            const ulong state = Entry.Present | Entry.Large | Entry.Explicit | Entry.Accessed;
            if ((entry & state) == (Entry.Present | Entry.Large) && IsHot(k, space, area))
                _ = Walk.CompareExchange(first + i, 0, entry);
        }
    }

    /// <summary>Whether main has written to several pages of the 2 MB since the snapshot, or between the one before and it.</summary>
    internal static bool IsHot(KernelState* k, Space* space, ulong address)
    {
        KeptTable* kept = KeptTables.At(k, address);
        return kept != null && kept->Table != 0 && kept->Epoch >= space->Epoch && kept->Epoch <= k->Epoch && Tables.Faults(k, kept->Table) >= k->FaultsToCopy;
    }

    private static bool IsOpen(VcpuArea* v, Space* space) =>
        space->Active == Space.InUse && space->View != 0 && space->Epoch == v->BlockEpoch;

    /// <summary>
    /// Whether a block can take the place of a page table: not where a processor may have cached main's memory. Copies of pages that main has written say by
    /// being the same what has not changed between two snapshots, so they stay where there are several.
    /// </summary>
    private static bool MayReplace(KernelState* k, Space* space, ulong* table)
    {
        bool alone = k->ActiveMask == 1UL << (int)(space - k->Spaces);
        for (int i = 0; i < Entry.Count; i++)
        {
            ulong entry = Walk.Read(table + i);
            if (entry == 0)
                continue;
            if ((entry & Entry.Explicit) == 0 || entry == Entry.Missing || !alone)
                return false;
        }
        return true;
    }

    private static bool Copy(KernelState* k, VcpuArea* v, ulong* table, int from)
    {
        for (int i = from; i < from + PagesPerLock; i++)
        {
            ulong offset = (ulong)i << 12;
            ulong entry = Walk.Read(table + i);
            ulong source = (entry & Entry.Explicit) != 0 ? entry & Entry.AddressMask : LinearMap.Physical(k, v->BlockArea + offset);
            if (source == 0 || !Intrinsics.TryCopyPage(DirectMap.At(k, v->Block + offset), DirectMap.At(k, source)))
                return false;
        }
        return true;
    }

    /// <summary>What main has written since a page was copied into the block, the view has a copy of in the table: the same bytes.</summary>
    private static bool Commit(KernelState* k, VcpuArea* v, Space* space, ulong* directory)
    {
        Vma* vma = VmaSet.Find(space, v->BlockArea);
        ulong* table = Tables.At(k, Walk.Read(directory));
        if (vma == null || !Fill.CoversLargePage(vma, v->BlockArea) || !MayReplace(k, space, table))
            return false;
        for (int i = 0; i < Entry.Count; i++)
        {
            ulong entry = Walk.Read(table + i);
            bool written = (entry & Entry.Explicit) != 0 && !ViewReads.ShowsMain(k, entry);
            FramePool.Info(k, v->Block + ((ulong)i << 12))->BeginEpoch = FrameInfo.InBlock | (written ? 0 : FrameInfo.Unwritten);
        }
        RegionWrites.Move(k, v->BlockArea, table, v->Block);
        Limbo.AddBlock(k, space, v->Block, space->Epoch);
        Walk.Write(directory, Rights.ExplicitEntry(vma, v->Block, isPrivate: false) | Entry.Large | Entry.Early | Entry.Accessed);
        k->CopiedForReaders += Entry.Count;
        k->BlocksCopied++;
        return true;
    }
}
