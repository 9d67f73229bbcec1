namespace Privy.Kernel;

/// <summary>Frames for copies and for private pages of snapshots.</summary>
internal static unsafe class FramePool
{
    internal const ulong LeftToFaults = 256 * Layout.PageSize;

    internal static FrameInfo* Info(KernelState* k, ulong frame) => k->Frames + ((frame - k->PoolStart) >> 12);

    /// <summary>Makes sure that <see cref="Take"/> will find a frame the direct map reaches.</summary>
    internal static Outcome Reserve(KernelState* k, VcpuArea* v)
    {
        if (k->FreeFrames == 0 && k->FreeBlocks != 0 && (k->PoolNext >= k->PoolEnd || k->PoolNext + LeftToFaults >= System.Threading.Volatile.Read(ref k->PoolReady)))
            FrameBlocks.Break(k);
        ulong frame = k->FreeFrames != 0 ? k->FreeFrames : k->PoolNext;
        if (k->FreeFrames == 0 && k->PoolNext >= k->PoolEnd)
            return Outcome.NeedFrames;
        return DirectMap.Ensure(k, v, frame);
    }

    /// <summary>
    /// Whether a frame can be had without waiting for the host, now and at the next faults: the last ones that are ready are left to
    /// pages that must be copied.
    /// </summary>
    internal static bool AtHand(KernelState* k, VcpuArea* v) =>
        (k->FreeFrames != 0 || k->FreeBlocks != 0 || k->PoolNext + LeftToFaults < System.Threading.Volatile.Read(ref k->PoolReady))
        && Reserve(k, v) == Outcome.Done;

    /// <summary>
    /// Forgets the chain of free frames once all frames are free: they are handed out in order again, and the host can take the memory
    /// behind the others back.
    /// </summary>
    internal static void StartOver(KernelState* k)
    {
        if (k->FramesInUse != 0 || k->ActiveMask != 0)
            return;
        // What was handed out has memory by now, for the host to take back.
        if (k->PoolReady < k->PoolNext)
            k->PoolReady = k->PoolNext;
        k->FreeFrames = 0;
        k->FreeFrameCount = 0;
        k->FreeBlocks = 0;
        k->ZeroFrame = 0;
        k->PoolNext = k->PoolStart;
    }

    /// <summary>A frame, after <see cref="Reserve"/> under the same lock.</summary>
    internal static ulong Take(KernelState* k)
    {
        ulong frame = k->FreeFrames;
        if (frame != 0)
        {
            k->FreeFrames = Info(k, frame)->Next;
            k->FreeFrameCount--;
        }
        else
        {
            frame = k->PoolNext;
            k->PoolNext += Layout.PageSize;
        }
        k->FramesInUse++;
        if (k->FramesInUse > k->FramesPeak)
            k->FramesPeak = k->FramesInUse;
        return frame;
    }

    internal static void Free(KernelState* k, ulong frame) => FreeChain(k, frame, frame, 1);

    /// <summary>Frees a chain in one step.</summary>
    internal static void FreeChain(KernelState* k, ulong first, ulong last, ulong count)
    {
        if (count == 0)
            return;
        Info(k, last)->Next = k->FreeFrames;
        k->FreeFrames = first;
        k->FreeFrameCount += count;
        k->FramesInUse -= count;
    }
}
