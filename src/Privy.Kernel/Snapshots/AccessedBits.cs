namespace Privy.Kernel;

/// <summary>Clears a snapshot's A bits, so that main's writes find few entries that may be cached.</summary>
internal static unsafe class AccessedBits
{
    /// <summary>Entries cleared while the lock is held: main's faults wait for it.</summary>
    private const int EntriesPerLock = 1024;

    /// <summary>
    /// Returns the number of entries of memory cleared; if there are any the calling vCPU must flush before it runs the program. 0: nothing done.
    /// While another vCPU of the space is in the guest nothing may be cleared, as its cached translations would no
    /// longer show; those outside are marked to flush when they enter.
    /// </summary>
    internal static long Clear(VcpuArea* v, int spaceIndex)
    {
        KernelState* k = v->Kernel;
        if (spaceIndex <= 0 || spaceIndex >= Layout.MaxSpaces)
            return -Errno.Invalid;
        Space* space = k->Spaces + spaceIndex;
        long cleared = 0;
        for (bool complete = false; !complete;)
        {
            KernelLock.Enter(k, v);
            int left = EntriesPerLock;
            complete = space->Active != Space.InUse || !OthersOutside(k, v, space);
            if (!complete)
            {
                complete = ClearLevel(k, Tables.At(k, space->Root), 4, ref left);
                if (left < EntriesPerLock)
                    v->FlushPending = 1;
                cleared += EntriesPerLock - left;
            }
            KernelLock.Exit(k);
        }
        return cleared;
    }

    internal static bool OthersOutside(KernelState* k, VcpuArea* v, Space* space)
    {
        for (int i = 0; i < Layout.MaxVcpus; i++)
        {
            if ((space->Vcpus[i >> 6] >> (i & 63) & 1) == 0 || i == v->Index)
                continue;
            VcpuArea* other = Shootdown.Area(k, i);
            System.Threading.Interlocked.Exchange(ref other->FlushPending, 1);
            if (System.Threading.Volatile.Read(ref other->InGuest) != 0)
                return false;
        }
        return true;
    }

    /// <summary>
    /// Tables carry A too: only those the snapshot walked since the last time are looked at. A table's own bit goes last, so that what is left when
    /// the budget is used up is found again. True: everything is clear.
    /// </summary>
    private static bool ClearLevel(KernelState* k, ulong* table, int level, ref int left)
    {
        ulong* template = Tables.At(k, k->TemplateRoot);
        for (int i = 0; i < Entry.Count; i++)
        {
            ulong entry = Walk.Read(table + i);
            if ((entry & Entry.Present) == 0)
                continue;
            // The vCPU may have come through the alias root: at the top A says nothing.
            if (level == 4 ? template[i] != 0 : (entry & Entry.Accessed) == 0)
                continue;
            // The snapshot's own entries never move under its feet: their A stays.
            if ((entry & Entry.Explicit) != 0)
                continue;
            // Bit 7 has another meaning in the lowest tables.
            if (level > 1 && (entry & Entry.Large) == 0)
            {
                if (!ClearLevel(k, Tables.At(k, entry), level - 1, ref left))
                    return false;
            }
            else if (left-- == 0)
            {
                left = 0;
                return false;
            }
            while (!Walk.CompareExchange(table + i, entry & ~Entry.Accessed, entry))
                entry = Walk.Read(table + i);
        }
        return true;
    }
}
