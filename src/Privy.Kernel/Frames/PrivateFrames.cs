namespace Privy.Kernel;

/// <summary>
/// A snapshot's own frames: doubly linked, so that its munmap can free one, with a tail, so that its end frees all by one splice.
/// </summary>
internal static unsafe class PrivateFrames
{
    internal static void Add(KernelState* k, Space* space, ulong frame)
    {
        FrameInfo* info = FramePool.Info(k, frame);
        info->Previous = 0;
        info->Next = space->PrivateFrames;
        if (space->PrivateFrames != 0)
            FramePool.Info(k, space->PrivateFrames)->Previous = frame;
        else
            space->PrivateTail = frame;
        space->PrivateFrames = frame;
        space->PrivateCount++;
    }

    internal static void Free(KernelState* k, Space* space, ulong frame)
    {
        FrameInfo* info = FramePool.Info(k, frame);
        if (info->Previous != 0)
            FramePool.Info(k, info->Previous)->Next = info->Next;
        else
            space->PrivateFrames = info->Next;
        if (info->Next != 0)
            FramePool.Info(k, info->Next)->Previous = info->Previous;
        else
            space->PrivateTail = info->Previous;
        space->PrivateCount--;
        FramePool.Free(k, frame);
    }

    internal static void FreeAll(KernelState* k, Space* space)
    {
        FramePool.FreeChain(k, space->PrivateFrames, space->PrivateTail, space->PrivateCount);
        space->PrivateFrames = 0;
        space->PrivateTail = 0;
        space->PrivateCount = 0;
    }
}
