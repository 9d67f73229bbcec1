namespace Privy.Kernel;

/// <summary>
/// Copies made for snapshots, kept without reference counts: a copy may be read by snapshots with an epoch from its
/// BeginEpoch to the epoch of the snapshot whose limbo list it is on.
/// </summary>
internal static unsafe class Limbo
{
    // A release gives way to page faults after so many frames.
    private const int Batch = 512;

    /// <summary>Hands a copy to the newest snapshot that reads it.</summary>
    internal static void Add(KernelState* k, Space* newest, ulong frame, ulong beginEpoch)
    {
        FrameInfo* info = FramePool.Info(k, frame);
        info->BeginEpoch = beginEpoch;
        info->Next = newest->Limbo;
        if (newest->Limbo == 0)
            newest->LimboTail = frame;
        newest->Limbo = frame;
        newest->LimboCount++;
    }

    /// <summary>Hands a copy of 2 MB to the newest snapshot that reads it.</summary>
    internal static void AddBlock(KernelState* k, Space* newest, ulong block, ulong beginEpoch)
    {
        FrameInfo* info = FramePool.Info(k, block);
        info->BeginEpoch = (info->BeginEpoch & ~FrameInfo.EpochMask) | beginEpoch;
        info->Next = newest->Blocks;
        newest->Blocks = block;
        newest->BlockCount++;
    }

    /// <summary>An older snapshot reads the copy, too.</summary>
    internal static void Extend(KernelState* k, ulong frame, ulong epoch)
    {
        FrameInfo* info = FramePool.Info(k, frame);
        if ((info->BeginEpoch & FrameInfo.InBlock) != 0)
            info = FramePool.Info(k, frame & ~(Layout.LargePageSize - 1));
        if ((info->BeginEpoch & FrameInfo.EpochMask) > epoch)
            info->BeginEpoch = (info->BeginEpoch & ~FrameInfo.EpochMask) | epoch;
    }

    /// <summary>
    /// Passes on or frees one batch of the list of a snapshot that reads no more; returns whether there is more. The
    /// heir is the newest other snapshot that is not newer: if even its epoch is before a frame's BeginEpoch, nobody
    /// is left who can read the frame. Snapshots of snapshots share an epoch, so the heir may have the same one.
    /// </summary>
    internal static bool PassOn(KernelState* k, Space* space)
    {
        Space* heir = null;
        for (int i = 1; i < Layout.MaxSpaces; i++)
        {
            Space* other = k->Spaces + i;
            if ((k->ActiveMask >> i & 1) != 0 && other != space && other->Epoch <= space->Epoch
                && (heir == null || other->Epoch > heir->Epoch))
            {
                heir = other;
            }
        }
        while (space->Blocks != 0)
        {
            ulong block = space->Blocks;
            FrameInfo* info = FramePool.Info(k, block);
            space->Blocks = info->Next;
            space->BlockCount--;
            if (heir != null && (info->BeginEpoch & FrameInfo.EpochMask) <= heir->Epoch)
                AddBlock(k, heir, block, info->BeginEpoch & FrameInfo.EpochMask);
            else
                FrameBlocks.Free(k, block);
        }
        if (heir == null)
        {
            FramePool.FreeChain(k, space->Limbo, space->LimboTail, space->LimboCount);
            space->Limbo = 0;
            space->LimboTail = 0;
            space->LimboCount = 0;
            return false;
        }
        for (int n = 0; n < Batch && space->Limbo != 0; n++)
        {
            ulong frame = space->Limbo;
            FrameInfo* info = FramePool.Info(k, frame);
            space->Limbo = info->Next;
            space->LimboCount--;
            if ((info->BeginEpoch & FrameInfo.EpochMask) <= heir->Epoch)
                Add(k, heir, frame, info->BeginEpoch);
            else
                FramePool.Free(k, frame);
        }
        if (space->Limbo != 0)
            return true;
        space->LimboTail = 0;
        return false;
    }
}
