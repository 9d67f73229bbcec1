namespace Privy.Kernel;

/// <summary>
/// Copies pages of regions ahead of main's writes: those that main wrote between the last two snapshots, as it is likely to write there again, and the ones
/// behind a run of writes. A page that is copied and not written does not count as changed.
/// </summary>
/// <remarks>
/// A page copied ahead is mapped writable with its Dirty bit clear, where all other entries of main have it set, so that the bit is the proof of a write. It is read
/// when main's tree has been replaced by that of the next snapshot (<see cref="Settle"/>). If it is still clear, the page is what it was, and the views
/// get their computed entries back as if it had never been copied. A processor that has the copy cached reads the same bytes there, and the copy stays
/// until the snapshots are gone that had it; so nobody has to flush.
/// What the host's kernel writes sets no bit: <see cref="MarkWritten"/>.
/// </remarks>
internal static unsafe class RegionWrites
{
    /// <summary>In place of a number of neighbours: main does not write now, the page is copied ahead.</summary>
    internal const int Unwritten = -2;

    // The lock is held meanwhile: some 40 us. With them a fault costs a small part of what its copies do.
    private const int MostAtOnce = 16;

    private const int FirstAtOnce = 4;

    // Predictions that were worth it or not because main has written to so few pages say nothing.
    private const int EnoughToJudge = 4;

    // Of those that are not to be copied, in one turn.
    private const int MostLooks = 64;

    // Turns of one fault, where the predictions have been good. In between others get the lock.
    private const int MostTurns = 16;
    private const int PausesBetween = 32;

    private const int Copied = 1;
    private const int NotWanted = 0;
    private const int NoMore = -1;

    internal static void Initialize(KernelState* k) => k->PredictionsAtOnce = FirstAtOnce;

    /// <summary>
    /// After main's entry of a region's page has become writable. <paramref name="copy"/> is the copy that was made, 0 if there was none to make; <paramref name="around"/>
    /// is <see cref="Unwritten"/> if main does not write now, or <see cref="CopyAround.Adaptive"/> if more may be copied.
    /// </summary>
    internal static void Continue(KernelState* k, VcpuArea* v, ulong address, ulong* page, ulong copy, int around)
    {
        if (k->RegionWrites == null)
            return;
        if (copy != 0 && k->RegionWriteCount < KernelState.RegionWriteCapacity)
        {
            RegionWrite* write = Present(k) + k->RegionWriteCount++;
            write->Address = address;
            write->Frame = copy;
            write->Page = around == Unwritten ? page : null;
            write->Predicted = 0;
        }
        if (around != CopyAround.Adaptive)
            return;
        Run(k, v, address);
        Predicted(k, v);
    }

    /// <summary>
    /// Goes on with predicted pages that the fault has left, in the time of the vCPU that is likely to write there. Called without the lock. Each further fault would cost more, and
    /// after each of them KVM would have to be told of more page tables in a directory that is in use.
    /// </summary>
    internal static void Finish(KernelState* k, VcpuArea* v)
    {
        int self = v->Index + 1;
        for (int turns = MostTurns; turns > 0 && System.Threading.Volatile.Read(ref k->PredictingVcpu) == self && System.Threading.Volatile.Read(ref v->ExitRequest) == 0; turns--)
        {
            for (int i = 0; i < PausesBetween; i++)
                Intrinsics.Pause();
            KernelLock.Enter(k, v);
            if (k->PredictingVcpu == self)
                Predicted(k, v);
            KernelLock.Exit(k);
        }
    }

    /// <summary>Main's tree is about to be set aside for that of a new snapshot; main's vCPUs are out of the program.</summary>
    internal static void EndEpoch(KernelState* k)
    {
        // Of the epoch before, if main has not written since.
        Settle(k);
        k->RegionWritesUnsettled = k->RegionWriteCount;
        k->RegionWriteCount = 0;
        k->RegionWriteArray ^= 1;
        k->Predictions = 0;
        k->NextPrediction = 0;
        k->PredictingVcpu = 0;
    }

    /// <summary>
    /// Finds out which of the pages copied ahead before the last snapshot main has written, from the tables it had then. Before these are freed, and before anybody
    /// asks what has changed or copies for the snapshots.
    /// </summary>
    internal static void Settle(KernelState* k)
    {
        int count = k->RegionWritesUnsettled;
        if (count == 0)
            return;
        k->RegionWritesUnsettled = 0;
        RegionWrite* writes = Former(k);
        int kept = 0;
        int predicted = 0;
        int right = 0;
        for (int i = 0; i < count; i++)
        {
            RegionWrite* write = writes + i;
            // An entry that has gone, with its mapping or its rights, does not say that nobody wrote.
            bool written = write->Page == null || (Walk.Read(write->Page) & (Entry.Writable | Entry.Dirty)) != Entry.Writable;
            if (write->Predicted != 0)
            {
                predicted++;
                right += written ? 1 : 0;
            }
            if (written)
                writes[kept++].Address = write->Address;
            else
                Undo(k, write);
        }
        k->Predictions = kept;
        k->NextPrediction = 0;
        if (predicted < EnoughToJudge)
            return;
        int most = k->PredictionsAtOnce;
        if (right * 4 >= predicted * 3)
            k->PredictionsAtOnce = most * 2 < MostAtOnce ? most * 2 : MostAtOnce;
        else if (right * 2 < predicted)
            k->PredictionsAtOnce = most > 1 ? most / 2 : 1;
    }

    /// <summary>The host's kernel is about to write to main's page, through no entry of main's.</summary>
    internal static void MarkWritten(KernelState* k, ulong address)
    {
        ulong* page = Walk.Page(k, k->Spaces, address);
        if (page != null && (Walk.Read(page) & (Entry.Writable | Entry.Dirty)) == Entry.Writable)
            Walk.Write(page, Walk.Read(page) | Entry.Dirty);
    }

    /// <summary>A view's copies of 2 MB, which are in a page table, are about to be replaced by those of a block, and no other snapshot has them.</summary>
    internal static void Move(KernelState* k, ulong area, ulong* table, ulong block)
    {
        if (k->RegionWrites == null)
            return;
        Move(Present(k), k->RegionWriteCount, area, table, block);
        Move(Former(k), k->RegionWritesUnsettled, area, table, block);
    }

    private static void Move(RegionWrite* writes, int count, ulong area, ulong* table, ulong block)
    {
        for (int i = 0; i < count; i++)
        {
            RegionWrite* write = writes + i;
            if ((write->Address & ~(Layout.LargePageSize - 1)) != area)
                continue;
            ulong entry = Walk.Read(table + Walk.TableIndex(write->Address));
            if ((entry & Entry.Explicit) != 0 && (entry & Entry.AddressMask) == write->Frame)
                write->Frame = block + (write->Address - area);
        }
    }

    private static RegionWrite* Present(KernelState* k) => k->RegionWrites + k->RegionWriteArray * KernelState.RegionWriteCapacity;

    private static RegionWrite* Former(KernelState* k) => k->RegionWrites + (k->RegionWriteArray ^ 1) * KernelState.RegionWriteCapacity;

    /// <summary>Main writes to one page after the other: the next ones, twice as many as the last time.</summary>
    private static void Run(KernelState* k, VcpuArea* v, ulong address)
    {
        int wanted = 1;
        ulong next = address + Layout.PageSize;
        if (address == v->AroundEnd)
        {
            wanted = v->AroundCount * 2 < MostAtOnce ? v->AroundCount * 2 : MostAtOnce;
            ulong end = (address & ~(Layout.LargePageSize - 1)) + Layout.LargePageSize;
            for (int i = 0; i < wanted && next < end && TryCopy(k, v, next) != NoMore; i++)
                next += Layout.PageSize;
        }
        v->AroundEnd = next;
        v->AroundCount = wanted;
    }

    private static void Predicted(KernelState* k, VcpuArea* v)
    {
        int left = k->PredictionsAtOnce;
        k->PredictingVcpu = 0;
        for (int looks = MostLooks; left > 0 && looks > 0 && k->NextPrediction < k->Predictions; looks--)
        {
            int result = TryCopy(k, v, Former(k)[k->NextPrediction].Address);
            if (result == NoMore)
                return;
            k->NextPrediction++;
            if (result == Copied)
            {
                Present(k)[k->RegionWriteCount - 1].Predicted = 1;
                left--;
            }
        }
        if (k->PredictionsAtOnce == MostAtOnce && k->NextPrediction < k->Predictions)
            k->PredictingVcpu = v->Index + 1;
    }

    private static int TryCopy(KernelState* k, VcpuArea* v, ulong address)
    {
        if (k->RegionWriteCount == KernelState.RegionWriteCapacity || k->FramesInUse >= k->AheadLimit || !FramePool.AtHand(k, v))
            return NoMore;
        Vma* vma = VmaSet.Find(k->Spaces, address);
        const uint needed = Vma.Region | Vma.Write;
        if (vma == null || (vma->Flags & needed) != needed || !Rights.Shareable(k, vma) || IsWritable(k, address) || MayBeCached(k, address))
            return NotWanted;
        int before = k->RegionWriteCount;
        if (MainFault.Handle(k, v, address, write: true, fetch: false, Unwritten) != Outcome.Done)
            return NoMore;
        if (k->RegionWriteCount == before)
            return NotWanted;
        k->CopiedAhead++;
        return Copied;
    }

    private static bool IsWritable(KernelState* k, ulong address)
    {
        ulong* directory = Walk.Directory(k, k->Spaces, address);
        if (directory == null || *directory == 0)
            return false;
        ulong entry = (*directory & Entry.Large) != 0 ? *directory : Tables.At(k, *directory)[Walk.TableIndex(address)];
        return (entry & Entry.Writable) != 0;
    }

    /// <summary>Whether a copy could cost a shootdown: that is worth it for a write, not for a guess.</summary>
    private static bool MayBeCached(KernelState* k, ulong address)
    {
        const ulong cached = Entry.Present | Entry.Accessed;
        ulong active = k->ActiveMask;
        for (int i = 0; active != 0; i++, active >>= 1)
        {
            ulong* directory = (active & 1) == 0 ? null : Walk.Directory(k, k->Spaces + i, address);
            ulong entry = directory == null ? 0 : Walk.Read(directory);
            if (entry != 0 && (entry & Entry.Large) == 0)
                entry = Walk.Read(Tables.At(k, entry) + Walk.TableIndex(address));
            // What has a page of its own stays as it is.
            if ((entry & (cached | Entry.Explicit)) == cached)
                return true;
        }
        return false;
    }

    /// <summary>
    /// Takes the views' entries back to what can be computed. Forked children keep the copy: they may write, so that what a processor has cached must be seen from
    /// their entries; and nobody asks what has changed in them.
    /// </summary>
    private static void Undo(KernelState* k, RegionWrite* write)
    {
        k->CopiesUndone++;
        ulong views = k->ViewMask & k->ActiveMask;
        for (int i = 0; views != 0; i++, views >>= 1)
        {
            if ((views & 1) == 0)
                continue;
            Space* space = k->Spaces + i;
            ulong entry = Walk.PageEntry(k, space, write->Address);
            Vma* vma = VmaSet.Find(space, write->Address);
            if (vma == null || (entry & (Entry.Explicit | Entry.Private)) != Entry.Explicit || (entry & Entry.AddressMask) != write->Frame)
                continue;
            if ((entry & Entry.Early) != 0)
            {
                // It was there before, for a reader of the view.
                FramePool.Info(k, write->Frame)->BeginEpoch |= FrameInfo.Unwritten;
                continue;
            }
            ulong* page = Walk.Page(k, space, write->Address);
            ulong bits = Rights.Linear(k, false, vma);
            Walk.Exchange(page, bits == 0 ? 0 : LinearMap.Physical(k, write->Address) | bits);
        }
    }
}
