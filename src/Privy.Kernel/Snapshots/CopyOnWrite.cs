namespace Privy.Kernel;

/// <summary>
/// Prioritized copy-on-write: main keeps its page, the snapshots that still share it get one copy together. After it
/// main may write: INVARIANT: where main's entry is writable, every snapshot with a private linear mapping there has
/// an explicit entry.
/// </summary>
internal static unsafe class CopyOnWrite
{
    /// <summary>Bit set of the snapshots that see main's page at <paramref name="address"/> through their linear mapping.</summary>
    internal static ulong Readers(KernelState* k, ulong address, uint excludedFlags)
    {
        ulong readers = 0;
        ulong active = k->ActiveMask;
        for (int i = 0; active != 0; i++, active >>= 1)
        {
            if ((active & 1) == 0)
                continue;
            Space* space = k->Spaces + i;
            Vma* vma = VmaSet.Find(space, address);
            if (vma == null || (vma->Flags & excludedFlags) != 0)
                continue;
            ulong* page = Walk.Page(k, space, address);
            if (page == null || (Walk.Read(page) & Entry.Explicit) == 0)
                readers |= 1UL << i;
        }
        return readers;
    }

    /// <summary>Gives all snapshots that need it a copy of main's page, in <paramref name="copy"/>; 0 where none does.</summary>
    internal static Outcome Copy(KernelState* k, VcpuArea* v, ulong address, out ulong copy)
    {
        copy = 0;
        RegionWrites.Settle(k);
        ulong readers = Readers(k, address, Vma.Shared | Vma.Pooled);
        if (readers == 0)
            return Outcome.Done;
        ulong source = LinearMap.Physical(k, address);
        Outcome outcome = DirectMap.Ensure(k, v, source);
        if (outcome == Outcome.Done)
            outcome = FramePool.Reserve(k, v);
        if (outcome == Outcome.Done)
            outcome = MakeTables(k, v, readers, address);
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
        Keep(k, readers, frame);
        copy = frame;
        return Outcome.Done;
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

    /// <summary>Points the snapshots' entries at <paramref name="frame"/> and makes them forget the old translation.</summary>
    internal static void Redirect(KernelState* k, VcpuArea* v, ulong spaces, ulong address, ulong frame, bool present)
    {
        for (int i = 0; spaces != 0; i++, spaces >>= 1)
        {
            if ((spaces & 1) == 0)
                continue;
            Space* space = k->Spaces + i;
            ulong entry = Rights.ExplicitEntry(VmaSet.Find(space, address), frame, isPrivate: false);
            if (!present)
                entry &= ~Entry.Present;
            ulong old = Walk.Exchange(Walk.Page(k, space, address), entry);
            Shootdown.FlushReplaced(k, v, space, old, self: true);
        }
    }

    /// <summary>Puts a copy on the limbo list of the newest of its readers.</summary>
    internal static void Keep(KernelState* k, ulong readers, ulong frame)
    {
        Space* newest = null;
        ulong oldestEpoch = ~0UL;
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
        Limbo.Add(k, newest, frame, oldestEpoch);
    }
}
