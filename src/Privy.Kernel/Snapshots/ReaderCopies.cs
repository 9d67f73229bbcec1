namespace Privy.Kernel;

/// <summary>
/// Copies what a snapshot reads, so that it has nothing of main's memory cached and main's writes need no shootdown.
/// </summary>
/// <remarks>
/// It begins when main's writes have met pages that the snapshot may have cached a few times (<see cref="KernelState.CopyReadsAfter"/>): from then on
/// nearly each page would be copied anyway, after a shootdown, which costs both sides some 200 us on paravirtual KVM where a copy costs half a
/// microsecond. The reader makes the copies, in its own time. A snapshot that nobody writes beside goes on reading main's frames.
/// </remarks>
internal static unsafe class ReaderCopies
{
    // Main's faults wait for the lock meanwhile: some 20 us.
    private const int PagesPerLock = 64;

    // The reader would take the lock again before a waiting vCPU sees it free.
    private const int PausesBetween = 32;

    /// <summary>A vCPU of the snapshot had to be kicked: decides whether what it reads shall be copied from now on.</summary>
    internal static void CountShootdown(KernelState* k, Space* space)
    {
        space->Shootdowns++;
        if (k->CopyReadsAfter != 0 && space->Shootdowns >= k->CopyReadsAfter)
            space->CopyReads = 1;
    }

    /// <summary>
    /// Resolves a snapshot's read of a page that has no entry by a copy; <paramref name="handled"/> is false where that is not what is wanted. The rest of
    /// the 2 MB is left to <see cref="Continue"/>.
    /// </summary>
    internal static Outcome Resolve(KernelState* k, VcpuArea* v, Space* space, Vma* vma, ulong address, out bool handled)
    {
        handled = false;
        bool view = space->View != 0;
        if ((view ? !WasForgotten(k, space, address) : space->CopyReads == 0) || !Applies(space, vma) || k->FramesInUse >= k->AheadLimit)
            return Outcome.Done;
        Vma* mains = VmaSet.Find(k->Spaces, address);
        if (mains == null || (mains->Flags & Vma.Write) == 0)
            return Outcome.Done;
        Outcome outcome = DirectMap.Ensure(k, v, LinearMap.Physical(k, address));
        if (outcome != Outcome.Done)
            return outcome;
        outcome = Walk.MakeDirectory(k, space, address, out ulong* directory, out _);
        if (outcome != Outcome.Done)
            return outcome;
        if (Walk.Read(directory) == 0)
        {
            outcome = Walk.MakeTable(k, space, address, directory);
            if (outcome != Outcome.Done)
                return outcome;
        }
        if ((Walk.Read(directory) & Entry.Large) != 0)
            return Outcome.Done;
        ulong* page = Tables.At(k, Walk.Read(directory)) + Walk.TableIndex(address);
        if (Walk.Read(page) != 0)
            return Outcome.Done;
        // A query waits for no memory: it has main's, at the price of a shootdown.
        if (!FramePool.AtHand(k, v))
            return v->NoReadyFrames != 0 || view ? Outcome.Done : Outcome.NeedReadyFrames;
        if (!TryCopy(k, space, vma, page, address))
            return Outcome.Done;
        // A scan that was interrupted goes on from here; all is copied where a reader comes back again.
        bool forward = view && Tables.CountFault(k, Walk.Read(directory)) <= 2;
        v->CopyReadsNext = forward ? address : address & ~(Layout.LargePageSize - 1);
        v->CopyReadsSpace = (int)(space - k->Spaces);
        handled = true;
        return Outcome.Done;
    }

    /// <summary>
    /// Copies more of the 2 MB at <see cref="VcpuArea.CopyReadsNext"/>, which becomes 0 when there is nothing left to do there. Called without the lock.
    /// </summary>
    internal static void Continue(KernelState* k, VcpuArea* v)
    {
        while (v->CopyReadsNext != 0 && System.Threading.Volatile.Read(ref v->ExitRequest) == 0)
        {
            for (int i = 0; i < PausesBetween; i++)
                Intrinsics.Pause();
            KernelLock.Enter(k, v);
            Outcome outcome = Piece(k, v, k->Spaces + v->CopyReadsSpace);
            KernelLock.Exit(k);
            if (outcome != Outcome.Done)
                _ = Retry.Help(v, outcome);
            if (v->NoReadyFrames != 0)
                break;
        }
        v->CopyReadsNext = 0;
    }

    /// <summary>
    /// Drops the snapshot's entries of memory that it shares with main, so that its next reads are copied. Called on a vCPU of the snapshot, which must flush
    /// before it runs the program and is marked so. Returns -EBUSY while another vCPU of the snapshot is in the guest: its cached translations would no longer show.
    /// </summary>
    internal static long ForgetLinear(VcpuArea* v, int spaceIndex)
    {
        KernelState* k = v->Kernel;
        if (spaceIndex <= 0 || spaceIndex >= Layout.MaxSpaces)
            return -Errno.Invalid;
        Space* space = k->Spaces + spaceIndex;
        ulong* template = Tables.At(k, k->TemplateRoot);
        for (ulong root = 0; root < Entry.Count; root++)
        {
            ulong* pointers = Tables.At(k, space->Root);
            if (template[root] != 0 || (Walk.Read(pointers + root) & Entry.Present) == 0)
                continue;
            pointers = Tables.At(k, Walk.Read(pointers + root));
            for (ulong pointer = 0; pointer < Entry.Count; pointer++)
            {
                if ((Walk.Read(pointers + pointer) & Entry.Present) == 0)
                    continue;
                ulong gigabyte = (root << 39) | (pointer << 30);
                long result = ForgetGigabyte(k, v, space, pointers + pointer, gigabyte);
                if (result != 0)
                    return result;
            }
        }
        return 0;
    }

    /// <summary>
    /// Whether the snapshot's mapping is memory of which it may have copies. Of a view's it is noted whether main has written, as the program asks for that; of those that
    /// forked children have of the same memory it is not.
    /// </summary>
    private static bool Applies(Space* space, Vma* vma) =>
        (vma->Flags & (Vma.Shared | Vma.Pooled | Vma.Region)) == (space->View != 0 ? Vma.Region : 0) && (vma->HostTag & Vma.TagFile) == 0;

    private static bool WasForgotten(KernelState* k, Space* view, ulong address)
    {
        ulong* directory = Walk.Directory(k, view, address);
        ulong entry = directory == null ? 0 : Walk.Read(directory);
        return entry != 0 && (entry & Entry.Large) == 0 && ViewReads.WasForgotten(k, entry);
    }

    private static Outcome Piece(KernelState* k, VcpuArea* v, Space* space)
    {
        ulong address = v->CopyReadsNext;
        ulong end = (address & ~(Layout.LargePageSize - 1)) + Layout.LargePageSize;
        // A view may have been closed meanwhile, by another vCPU.
        ulong* page = space->Active == Space.InUse ? Walk.Page(k, space, address) : null;
        int copied = 0;
        for (; page != null && address < end && copied < PagesPerLock; page++, address += Layout.PageSize)
        {
            if (Walk.Read(page) != 0)
                continue;
            // Mappings may end within the 2 MB: the ones of this snapshot only.
            Vma* vma = VmaSet.Find(space, address);
            if (vma == null || !Applies(space, vma))
                continue;
            if (k->FramesInUse >= k->AheadLimit)
            {
                page = null;
                break;
            }
            if (!FramePool.AtHand(k, v))
            {
                if (space->View != 0)
                {
                    page = null;
                    break;
                }
                v->CopyReadsNext = address;
                return Outcome.NeedReadyFrames;
            }
            if (TryCopy(k, space, vma, page, address))
                copied++;
        }
        v->CopyReadsNext = page != null && address < end ? address : 0;
        return Outcome.Done;
    }

    /// <summary>
    /// The copy is this snapshot's alone, or a view's and that of older ones that are read there later: others that share the page get theirs when they read it or main
    /// writes it. The entry is absent, so no translation is replaced. False: the host cannot read main's page; the reader finds out itself.
    /// </summary>
    private static bool TryCopy(KernelState* k, Space* space, Vma* vma, ulong* page, ulong address)
    {
        bool view = space->View != 0;
        // A may be set at once: nobody has to forget a copy. See Fill.Table.
        const ulong viewBits = Entry.Early | Entry.Accessed;
        ulong shared = view ? ViewReads.FindCopy(k, space, address) : 0;
        if (shared != 0)
        {
            Limbo.Extend(k, shared, space->Epoch);
            Walk.Write(page, Rights.ExplicitEntry(vma, shared, isPrivate: false) | viewBits);
            return true;
        }
        ulong frame = FramePool.Take(k);
        if (!Intrinsics.TryCopyPage(DirectMap.At(k, frame), DirectMap.At(k, LinearMap.Physical(k, address))))
        {
            FramePool.Free(k, frame);
            return false;
        }
        Limbo.Add(k, space, frame, space->Epoch | (view ? FrameInfo.Unwritten : 0));
        Walk.Write(page, Rights.ExplicitEntry(vma, frame, isPrivate: false) | (view ? viewBits : 0));
        k->CopiedForReaders++;
        return true;
    }

    private static long ForgetGigabyte(KernelState* k, VcpuArea* v, Space* space, ulong* pointer, ulong gigabyte)
    {
        KernelLock.Enter(k, v);
        long result = AccessedBits.OthersOutside(k, v, space) ? 0 : -Errno.Busy;
        if (result == 0)
        {
            v->FlushPending = 1;
            ReplaceDirectory(k, space, pointer, gigabyte);
        }
        KernelLock.Exit(k);
        ulong* directory = Tables.At(k, Walk.Read(pointer));
        for (ulong i = 0; i < Entry.Count && result == 0; i++)
        {
            ulong entry = Walk.Read(directory + i);
            if ((entry & (Entry.Present | Entry.Large)) != Entry.Present)
                continue;
            // A table at a time: main's faults get through.
            KernelLock.Enter(k, v);
            result = AccessedBits.OthersOutside(k, v, space) ? 0 : -Errno.Busy;
            if (result == 0)
            {
                v->FlushPending = 1;
                ForgetTable(k, space, Tables.At(k, entry), gigabyte | (i << 21));
            }
            KernelLock.Exit(k);
        }
        return result;
    }

    /// <summary>
    /// A fresh page directory without the 2 MB entries of shared memory takes the old one's place: one store into a live table, where KVM traps each under
    /// shadow paging. The old one stays on the snapshot's chain. Without tables to be had everything stays as it is.
    /// </summary>
    private static void ReplaceDirectory(KernelState* k, Space* space, ulong* pointer, ulong gigabyte)
    {
        ulong* old = Tables.At(k, Walk.Read(pointer));
        ulong fresh = Tables.Allocate(k, &space->Tables);
        if (fresh == 0)
            return;
        ulong* directory = Tables.At(k, fresh);
        for (ulong i = 0; i < Entry.Count; i++)
        {
            ulong entry = Walk.Read(old + i);
            if (entry != 0 && !((entry & Entry.Large) != 0 && IsForgotten(space, gigabyte | (i << 21))))
                directory[i] = entry;
        }
        Walk.Write(pointer, fresh | (Walk.Read(pointer) & ~Entry.AddressMask));
    }

    private static void ForgetTable(KernelState* k, Space* space, ulong* table, ulong area)
    {
        for (ulong i = 0; i < Entry.Count; i++)
        {
            ulong entry = Walk.Read(table + i);
            if (entry != 0 && (entry & Entry.Explicit) == 0 && IsForgotten(space, area | (i << 12)))
                Walk.Write(table + i, 0);
        }
    }

    private static bool IsForgotten(Space* space, ulong address)
    {
        Vma* vma = VmaSet.Find(space, address);
        return vma != null && Applies(space, vma);
    }
}
