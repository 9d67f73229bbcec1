namespace Privy.Kernel;

/// <summary>Takes snapshots.</summary>
internal static unsafe class SnapshotCreation
{
    internal static long Create(VcpuArea* v, int parentIndex)
    {
        KernelState* k = v->Kernel;
        if ((uint)parentIndex >= Layout.MaxSpaces || k->Spaces[parentIndex].Active != Space.InUse)
            return -Errno.Invalid;
        for (; ; )
        {
            KernelLock.Enter(k, v);
            Tables.FreeRetired(k, v);
            long result = 0;
            Outcome outcome = Tables.PrepareRoots(k, parentIndex == 0 ? 4UL : 2);
            if (outcome == Outcome.Done)
            {
                int index = FindFree(k);
                if (index == 0)
                    result = -Errno.Again;
                else
                    result = parentIndex == 0 ? OfMain(k, index) : OfSnapshot(k, v, k->Spaces + parentIndex, index);
                if (result > 0)
                {
                    k->SnapshotsTaken++;
                    if (parentIndex == 0)
                    {
                        EarlyTouches.Fill(k, v, k->Spaces + result);
                        EarlyWrites.CopyAhead(k, v);
                    }
                }
            }
            KernelLock.Exit(k);
            if (outcome == Outcome.Done)
                return result;
            if (Retry.Help(v, outcome) != Outcome.Done)
                return -Errno.NoMemory;
        }
    }

    internal static int FindFree(KernelState* k)
    {
        for (int i = 1; i < Layout.MaxSpaces; i++)
        {
            if (k->Spaces[i].Active == 0)
                return i;
        }
        return 0;
    }

    /// <summary>
    /// Main and the snapshot both start with empty trees: at this instant all their entries can be computed. That
    /// costs the same whatever the memory size. Main's old tree is set aside, the caller still runs on it.
    /// </summary>
    private static long OfMain(KernelState* k, int index)
    {
        Space* main = k->Spaces;
        Space* space = k->Spaces + index;
        Begin(k, space, main);
        EarlyWrites.Review(k);
        RegionWrites.EndEpoch(k);
        Tables.Retire(k, &main->Tables);
        Tables.Retire(k, &main->Renewed);
        SetRoots(k, main);
        View.GraftAll(k);
        space->Epoch = k->Epoch;
        k->Epoch++;
        SnapshotSet.Add(k, index);
        MarkMain(k);
        return index;
    }

    /// <summary>A vCPU of main whose last root happens to have the number of the new one must not take it for loaded.</summary>
    internal static void MarkMain(KernelState* k)
    {
        for (int word = 0; word < Layout.MaxVcpus / 64; word++)
        {
            ulong bits = k->Spaces->Vcpus[word];
            for (int bit = 0; bits != 0; bit++, bits >>= 1)
            {
                if ((bits & 1) != 0)
                    System.Threading.Interlocked.Exchange(ref Shootdown.Area(k, word * 64 + bit)->FlushPending, 1);
            }
        }
    }

    /// <summary>
    /// A snapshot of a snapshot shows the same epoch: linear pages and copies are shared, private frames copied. The
    /// parent's vCPUs are out of the program, but main runs on whenever the lock is dropped, and may redirect pages of
    /// the parent. The new space counts as a snapshot only after a pass over the parent's whole tree in one go.
    /// </summary>
    private static long OfSnapshot(KernelState* k, VcpuArea* v, Space* parent, int index)
    {
        Space* space = k->Spaces + index;
        Begin(k, space, parent);
        space->Active = Space.Building;
        space->Epoch = parent->Epoch;
        for (; ; )
        {
            Outcome outcome = CopyExplicit(k, v, parent, space);
            if (outcome == Outcome.Done)
            {
                SnapshotSet.Add(k, index);
                return index;
            }
            KernelLock.Exit(k);
            outcome = Retry.Help(v, outcome);
            KernelLock.Enter(k, v);
            if (outcome == Outcome.Done)
                continue;
            PrivateFrames.FreeAll(k, space);
            Tables.Free(k, space);
            space->VmaCount = 0;
            space->Active = 0;
            return -Errno.NoMemory;
        }
    }

    /// <summary>Gives the space roots and the parent's mappings.</summary>
    private static void Begin(KernelState* k, Space* space, Space* parent)
    {
        SetRoots(k, space);
        space->Shootdowns = 0;
        space->CopyReads = 0;
        for (int i = 0; i < Layout.MaxVcpus / 64; i++)
            space->Vcpus[i] = 0;
        // Whole pages: the arrays are page-aligned and a multiple of a page long.
        byte* from = (byte*)parent->Vmas;
        byte* to = (byte*)space->Vmas;
        for (int left = parent->VmaCount * Vma.Size; left > 0; left -= (int)Layout.PageSize)
        {
            Intrinsics.CopyPage(to, from);
            from += Layout.PageSize;
            to += Layout.PageSize;
        }
        space->VmaCount = parent->VmaCount;
    }

    internal static void SetRoots(KernelState* k, Space* space)
    {
        space->Root = Tables.TakeRoot(k);
        space->AliasRoot = Tables.TakeRoot(k);
        TableChain* chain = Tables.ChainOf(k, space, 0, 4);
        Tables.Chain(k, chain, space->Root);
        Tables.Chain(k, chain, space->AliasRoot);
    }

    private static Outcome CopyExplicit(KernelState* k, VcpuArea* v, Space* parent, Space* space)
    {
        ulong* template = Tables.At(k, k->TemplateRoot);
        ulong* root = Tables.At(k, parent->Root);
        for (ulong i = 0; i < Entry.Count; i++)
        {
            if (template[i] != 0 || root[i] == 0)
                continue;
            ulong* pointers = Tables.At(k, root[i]);
            for (ulong j = 0; j < Entry.Count; j++)
            {
                if (pointers[j] == 0)
                    continue;
                ulong* directory = Tables.At(k, pointers[j]);
                for (ulong l = 0; l < Entry.Count; l++)
                {
                    ulong entry = Walk.Read(directory + l);
                    if (entry == 0 || (entry & Entry.Large) != 0)
                        continue;
                    Outcome outcome = CopyTable(k, v, Tables.At(k, entry), space, i << 39 | j << 30 | l << 21);
                    if (outcome != Outcome.Done)
                        return outcome;
                }
            }
        }
        return Outcome.Done;
    }

    private static Outcome CopyTable(KernelState* k, VcpuArea* v, ulong* table, Space* space, ulong area)
    {
        ulong* copy = null;
        for (int i = 0; i < Entry.Count; i++)
        {
            ulong entry = Walk.Read(table + i);
            if ((entry & Entry.Explicit) == 0)
                continue;
            if (copy == null)
            {
                Outcome outcome = Walk.MakeDirectory(k, space, area, out ulong* directory, out _);
                if (outcome == Outcome.Done && *directory == 0)
                    outcome = Walk.MakeTable(k, space, area, directory);
                if (outcome != Outcome.Done)
                    return outcome;
                copy = Tables.At(k, *directory);
            }
            if (copy[i] != 0)
                continue;
            if ((entry & Entry.Private) == 0)
            {
                // The same epoch: the copy's limbo interval covers the new reader already.
                Walk.Write(copy + i, entry & ~Entry.Accessed);
                continue;
            }
            ulong source = entry & Entry.AddressMask;
            Outcome ready = DirectMap.Ensure(k, v, source);
            if (ready == Outcome.Done)
                ready = FramePool.Reserve(k, v);
            if (ready != Outcome.Done)
                return ready;
            ulong frame = FramePool.Take(k);
            Intrinsics.CopyPage(DirectMap.At(k, frame), DirectMap.At(k, source));
            PrivateFrames.Add(k, space, frame);
            Walk.Write(copy + i, (entry & ~Entry.AddressMask) | frame);
        }
        return Outcome.Done;
    }
}
