namespace Privy.Kernel;

/// <summary>Ends snapshots.</summary>
internal static unsafe class SnapshotRelease
{
    internal static long Release(VcpuArea* v, int index)
    {
        KernelState* k = v->Kernel;
        if (index <= 0 || index >= Layout.MaxSpaces)
            return -Errno.Invalid;
        Space* space = k->Spaces + index;
        KernelLock.Enter(k, v);
        Tables.FreeRetired(k, v);
        long result = 0;
        if (space->Active != Space.InUse)
            result = -Errno.Invalid;
        else if (v->LoadedRoot == space->Root || v->LoadedRoot == space->AliasRoot)
            result = -Errno.Busy;
        if (result != 0)
        {
            KernelLock.Exit(k);
            return result;
        }

        space->Active = Space.Releasing;
        SnapshotSet.Remove(k, index);
        if (space->View != 0 && !View.WasRead(k, space))
        {
            Tables.FreeClean(k, &space->Leaves);
            Tables.FreeClean(k, &space->Tables);
        }
        View.Forget(k, index);
        Tables.Free(k, space);
        PrivateFrames.FreeAll(k, space);
        while (Limbo.PassOn(k, space))
        {
            KernelLock.Exit(k);
            KernelLock.Enter(k, v);
        }
        FramePool.StartOver(k);
        space->VmaCount = 0;
        space->Root = 0;
        space->AliasRoot = 0;
        space->Active = 0;
        // Now, so that the next snapshot need not; if there are no tables, it will ask for them.
        Tables.PrepareRoots(k, 4 + View.Pointers(k));
        KernelLock.Exit(k);
        return 0;
    }
}
