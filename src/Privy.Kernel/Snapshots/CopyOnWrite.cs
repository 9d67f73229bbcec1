namespace Privy.Kernel;

/// <summary>
/// Prioritized copy-on-write: main keeps its page, the snapshots that still share it get one copy together. After it
/// main may write: INVARIANT: where main's entry is writable, every snapshot with a private linear mapping there has
/// an explicit entry.
/// </summary>
internal static unsafe class CopyOnWrite
{
    /// <summary>
    /// Bit set of the snapshots that see main's page at <paramref name="address"/> through their linear mapping; <paramref name="early"/> are the views that have a copy
    /// of what main still has.
    /// </summary>
    internal static ulong Readers(KernelState* k, ulong address, uint excludedFlags, out ulong early)
    {
        ulong readers = 0;
        early = 0;
        ulong active = k->ActiveMask;
        for (int i = 0; active != 0; i++, active >>= 1)
        {
            if ((active & 1) == 0)
                continue;
            Space* space = k->Spaces + i;
            Vma* vma = VmaSet.Find(space, address);
            if (vma == null || (vma->Flags & excludedFlags) != 0)
                continue;
            ulong entry = Walk.PageEntry(k, space, address);
            if ((entry & Entry.Explicit) == 0)
                readers |= 1UL << i;
            else if (ViewReads.ShowsMain(k, entry))
                early |= 1UL << i;
        }
        return readers;
    }

    /// <summary>
    /// Gives all snapshots that see main's page one copy of it together, in <paramref name="copy"/>; 0 where none does. It is a copy that has been made for a view
    /// already if the newest of them has one.
    /// </summary>
    internal static Outcome Copy(KernelState* k, VcpuArea* v, ulong address, out ulong copy)
    {
        copy = 0;
        RegionWrites.Settle(k);
        ulong readers = Readers(k, address, Vma.Shared | Vma.Pooled, out ulong early);
        if ((readers | early) == 0)
            return Outcome.Done;
        Space* newest = Newest(k, readers | early, out ulong oldestEpoch);
        if ((early >> (int)(newest - k->Spaces) & 1) != 0)
            return Share(k, v, readers, early, address, Walk.PageEntry(k, newest, address) & Entry.AddressMask, oldestEpoch, out copy);
        ulong source = LinearMap.Physical(k, address);
        Outcome outcome = DirectMap.Ensure(k, v, source);
        if (outcome == Outcome.Done)
            outcome = FramePool.Reserve(k, v);
        if (outcome == Outcome.Done)
            outcome = MakeTables(k, v, readers, address);
        if (outcome == Outcome.Done)
            outcome = SplitBlocks(k, early, address, 0);
        if (outcome != Outcome.Done)
            return outcome;

        ulong frame = FramePool.Take(k);
        if (!Intrinsics.TryCopyPage(DirectMap.At(k, frame), DirectMap.At(k, source)))
        {
            FramePool.Free(k, frame);
            return Outcome.NoBacking;
        }
        v->PcowCopies++;
        EarlyWrites.Record(k, v, address);
        Redirect(k, v, readers, address, frame, present: true);
        Replace(k, early, address, frame);
        Limbo.Add(k, newest, frame, oldestEpoch);
        copy = frame;
        return Outcome.Done;
    }

    /// <summary>The newest view has a copy already, for a reader: it becomes everybody's.</summary>
    private static Outcome Share(
        KernelState* k, VcpuArea* v, ulong readers, ulong early, ulong address, ulong frame, ulong oldestEpoch, out ulong copy)
    {
        copy = 0;
        Outcome outcome = MakeTables(k, v, readers, address);
        if (outcome == Outcome.Done)
            outcome = SplitBlocks(k, early, address, frame);
        if (outcome != Outcome.Done)
            return outcome;
        FramePool.Info(k, frame)->BeginEpoch &= ~FrameInfo.Unwritten;
        Limbo.Extend(k, frame, oldestEpoch);
        Redirect(k, v, readers, address, frame, present: true);
        Replace(k, early, address, frame);
        copy = frame;
        return Outcome.Done;
    }

    /// <summary>Views that are to have another copy of the page than the one in their copy of 2 MB get a page table there. It changes no translation.</summary>
    private static Outcome SplitBlocks(KernelState* k, ulong views, ulong address, ulong frame)
    {
        for (int i = 0; views != 0; i++, views >>= 1)
        {
            if ((views & 1) == 0 || (Walk.PageEntry(k, k->Spaces + i, address) & Entry.AddressMask) == frame)
                continue;
            ulong* directory = Walk.Directory(k, k->Spaces + i, address);
            if ((Walk.Read(directory) & Entry.Large) == 0)
                continue;
            Outcome outcome = Walk.Split(k, k->Spaces + i, address, directory, -1, keepAccessed: true, out _);
            if (outcome != Outcome.Done)
                return outcome;
        }
        return Outcome.Done;
    }

    /// <summary>
    /// Points views' entries at a copy that has the same bytes as the one they have. What a processor has cached stays right: the other copy is kept until the
    /// views that had it are gone.
    /// </summary>
    private static void Replace(KernelState* k, ulong views, ulong address, ulong frame)
    {
        for (int i = 0; views != 0; i++, views >>= 1)
        {
            if ((views & 1) == 0)
                continue;
            ulong entry = Walk.PageEntry(k, k->Spaces + i, address);
            if ((entry & Entry.AddressMask) != frame)
                Walk.Write(Walk.Page(k, k->Spaces + i, address), (entry & ~(Entry.AddressMask | Entry.Early)) | frame);
        }
    }

    /// <summary>
    /// Makes a page table at the address in each of the snapshots. This changes no translation, so a failure half way
    /// leaves nothing to undo; the entry at the address itself is left absent when a 2 MB entry is split.
    /// </summary>
    internal static Outcome MakeTables(KernelState* k, VcpuArea* v, ulong spaces, ulong address)
    {
        for (int i = 0; spaces != 0; i++, spaces >>= 1)
        {
            if ((spaces & 1) == 0)
                continue;
            Space* space = k->Spaces + i;
            Outcome outcome = Walk.MakeDirectory(k, space, address, out ulong* directory, out _);
            if (outcome != Outcome.Done)
                return outcome;
            ulong entry = Walk.Read(directory);
            if (entry == 0)
            {
                // Left empty: the snapshot computes the entries it touches, main shall not pay for that.
                outcome = Walk.MakeTable(k, space, address, directory);
            }
            else if ((entry & (Entry.Large | Entry.Explicit)) == (Entry.Large | Entry.Explicit))
            {
                outcome = Walk.Split(k, space, address, directory, -1, keepAccessed: true, out _);
            }
            else if ((entry & Entry.Large) != 0 && space->View != 0)
            {
                outcome = Empty(k, v, space, address, directory);
            }
            else if ((entry & Entry.Large) != 0)
            {
                outcome = Walk.Split(k, space, address, directory, Walk.TableIndex(address), keepAccessed: false, out bool accessed);
                if (outcome == Outcome.Done && accessed)
                    Shootdown.Flush(k, v, space, self: true);
                else if (outcome == Outcome.Done)
                    k->ShootdownsSpared++;
            }
            if (outcome != Outcome.Done)
                return outcome;
        }
        return Outcome.Done;
    }

    /// <summary>
    /// An empty page table takes the place of a view's 2 MB entry: main would make entries that may never be read. If the 2 MB have been read they are copied when
    /// they are read again.
    /// </summary>
    private static Outcome Empty(KernelState* k, VcpuArea* v, Space* view, ulong address, ulong* directory)
    {
        ulong table = Tables.Allocate(k, view, address, 1);
        if (table == 0)
            return Outcome.NeedTables;
        ulong old = Walk.Exchange(directory, Walk.TableEntry(k, view, table));
        if ((old & Entry.Accessed) != 0)
            _ = Tables.CountFault(k, table);
        Shootdown.FlushReplaced(k, v, view, old, self: true);
        return Outcome.Done;
    }

    /// <summary>Points the snapshots' entries at <paramref name="frame"/> and makes them forget the old translation.</summary>
    internal static void Redirect(KernelState* k, VcpuArea* v, ulong spaces, ulong address, ulong frame, bool present)
    {
        const ulong cached = Entry.Present | Entry.Accessed;
        Space* shown = null;
        for (int i = 0; spaces != 0; i++, spaces >>= 1)
        {
            if ((spaces & 1) == 0)
                continue;
            Space* space = k->Spaces + i;
            ulong entry = Rights.ExplicitEntry(VmaSet.Find(space, address), frame, isPrivate: false);
            if (!present)
                entry &= ~Entry.Present;
            ulong old = Walk.Exchange(Walk.Page(k, space, address), entry);
            if (space->View != 0 && (old & cached) == cached)
                shown = space;
            else
                Shootdown.FlushReplaced(k, v, space, old, self: true);
        }
        // The same vCPUs read all views.
        if (shown != null)
            Shootdown.Flush(k, v, shown, self: true);
    }

    /// <summary>Puts a copy on the limbo list of the newest of its readers.</summary>
    internal static void Keep(KernelState* k, ulong readers, ulong frame)
    {
        Space* newest = Newest(k, readers, out ulong oldestEpoch);
        Limbo.Add(k, newest, frame, oldestEpoch);
    }

    private static Space* Newest(KernelState* k, ulong readers, out ulong oldestEpoch)
    {
        Space* newest = null;
        oldestEpoch = ~0UL;
        for (int i = 0; readers != 0; i++, readers >>= 1)
        {
            if ((readers & 1) == 0)
                continue;
            Space* space = k->Spaces + i;
            if (newest == null || space->Epoch > newest->Epoch)
                newest = space;
            if (space->Epoch < oldestEpoch)
                oldestEpoch = space->Epoch;
        }
        return newest;
    }
}
