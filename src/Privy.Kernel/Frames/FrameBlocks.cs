namespace Privy.Kernel;

/// <summary>
/// 2 MB of frames, one after the other, so that a view's copy of as much can be read through one entry. A block has one life: what it says of epochs is with its first frame.
/// </summary>
internal static unsafe class FrameBlocks
{
    /// <summary>A block whose frames have memory of the host ready; 0: there is none.</summary>
    internal static ulong Take(KernelState* k, VcpuArea* v)
    {
        ulong block = k->FreeBlocks;
        if (block != 0)
        {
            if (DirectMap.Ensure(k, v, block) != Outcome.Done)
                return 0;
            k->FreeBlocks = FramePool.Info(k, block)->Next;
        }
        else
        {
            block = (k->PoolNext + Layout.LargePageSize - 1) & ~(Layout.LargePageSize - 1);
            ulong end = block + Layout.LargePageSize;
            if (end > k->PoolEnd || end + FramePool.LeftToFaults > System.Threading.Volatile.Read(ref k->PoolReady)
                || DirectMap.Ensure(k, v, block) != Outcome.Done)
            {
                return 0;
            }
            FreeSingles(k, k->PoolNext, block);
            k->PoolNext = end;
        }
        k->FramesInUse += Entry.Count;
        if (k->FramesInUse > k->FramesPeak)
            k->FramesPeak = k->FramesInUse;
        return block;
    }

    internal static void Free(KernelState* k, ulong block)
    {
        FramePool.Info(k, block)->Next = k->FreeBlocks;
        k->FreeBlocks = block;
        k->FramesInUse -= Entry.Count;
    }

    /// <summary>Makes single frames of a free block.</summary>
    internal static void Break(KernelState* k)
    {
        ulong block = k->FreeBlocks;
        k->FreeBlocks = FramePool.Info(k, block)->Next;
        FreeSingles(k, block, block + Layout.LargePageSize);
    }

    private static void FreeSingles(KernelState* k, ulong start, ulong end)
    {
        for (ulong frame = end; frame > start;)
        {
            frame -= Layout.PageSize;
            FramePool.Info(k, frame)->Next = k->FreeFrames;
            k->FreeFrames = frame;
            k->FreeFrameCount++;
        }
    }
}
