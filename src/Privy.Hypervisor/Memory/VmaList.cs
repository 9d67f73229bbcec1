using Privy.Kernel;

namespace Privy.Hypervisor.Memory;

/// <summary>
/// The host's hand on a space's array of mappings. The array is read by the kernel's fault handler, so every change happens
/// under <see cref="KernelState.Lock"/>.
/// </summary>
internal readonly unsafe struct VmaList(KernelState* state, int space)
{
    private Space* Space => state->Spaces + space;

    internal ReadOnlySpan<Vma> All => new(Space->Vmas, Space->VmaCount);

    /// <summary>Index of the first mapping that ends above an address.</summary>
    internal int IndexOf(ulong address) => VmaSet.FirstEndingAfter(Space, address);

    /// <summary>The mapping that holds an address; null when there is none.</summary>
    internal Vma? Find(ulong address)
    {
        var found = VmaSet.Find(Space, address);
        return found == null ? null : *found;
    }

    /// <summary>Replaces whatever lies in the mapping's range by the mapping.</summary>
    /// <returns>False when the array is full.</returns>
    internal bool Replace(in Vma vma)
    {
        Acquire();
        try
        {
            return RemoveLocked(vma.Start, vma.End) && InsertLocked(vma);
        }
        finally
        {
            Release();
        }
    }

    /// <summary>Removes [start, end).</summary>
    internal bool Remove(ulong start, ulong end)
    {
        Acquire();
        try
        {
            return RemoveLocked(start, end);
        }
        finally
        {
            Release();
        }
    }

    /// <summary>Changes the flags in [start, end).</summary>
    internal bool SetFlags(ulong start, ulong end, uint clear, uint set, uint tagClear = 0, uint tagSet = 0)
    {
        Acquire();
        try
        {
            if (!SplitLocked(start) || !SplitLocked(end))
                return false;
            for (var i = IndexOf(start); i < Space->VmaCount && Space->Vmas[i].Start < end; i++)
            {
                Space->Vmas[i].Flags = (Space->Vmas[i].Flags & ~clear) | set;
                Space->Vmas[i].HostTag = (Space->Vmas[i].HostTag & ~tagClear) | tagSet;
            }

            MergeLocked(start, end);
            return true;
        }
        finally
        {
            Release();
        }
    }

    /// <summary>The program will take snapshots of [start, end), which is mapped.</summary>
    internal bool AddRegion(ulong start, ulong end)
    {
        if (!SetFlags(start, end, 0, Vma.Region))
            return false;
        // From now on the kernel makes its tables there with those that it replaces at such a snapshot.
        Acquire();
        for (var address = start & ~(Layout.Gigabyte - 1); address < end; address += Layout.Gigabyte)
        {
            var gigabyte = LinearMap.Physical(state, address) >> 30;
            state->RegionGigabytes[gigabyte >> 6] |= 1UL << (int)(gigabyte & 63);
        }

        Release();
        return true;
    }

    /// <summary>True when a mapping in [start, end) has one of the given flags or tags.</summary>
    internal bool Any(ulong start, ulong end, uint flags, uint tags)
    {
        for (var i = IndexOf(start); i < Space->VmaCount && Space->Vmas[i].Start < end; i++)
        {
            if ((Space->Vmas[i].Flags & flags) != 0 || (Space->Vmas[i].HostTag & tags) != 0)
                return true;
        }

        return false;
    }

    /// <summary>True when mappings cover all of [start, end).</summary>
    internal bool Covers(ulong start, ulong end)
    {
        for (var i = IndexOf(start); i < Space->VmaCount && start < end; i++)
        {
            if (Space->Vmas[i].Start > start)
                return false;
            start = Space->Vmas[i].End;
        }

        return start >= end;
    }

    /// <summary>True when mappings with all of the given flags cover [start, end).</summary>
    internal bool Allows(ulong start, ulong end, uint flags)
    {
        for (var i = IndexOf(start); i < Space->VmaCount && start < end; i++)
        {
            ref var vma = ref Space->Vmas[i];
            if (vma.Start > start || (vma.Flags & flags) != flags)
                return false;
            start = vma.End;
        }

        return start >= end;
    }

    /// <summary>True when a mapping in [start, end) has the tag.</summary>
    internal bool AnyTag(ulong start, ulong end, uint tag)
    {
        for (var i = IndexOf(start); i < Space->VmaCount && Space->Vmas[i].Start < end; i++)
        {
            if ((Space->Vmas[i].HostTag & tag) != 0)
                return true;
        }

        return false;
    }

    private bool InsertLocked(in Vma vma)
    {
        if (Space->VmaCount >= Layout.MaxVmas)
            return false;
        var at = IndexOf(vma.Start);
        Move(at, at + 1);
        Space->Vmas[at] = vma;
        Space->VmaCount++;
        MergeLocked(vma.Start, vma.End);
        return true;
    }

    private bool RemoveLocked(ulong start, ulong end)
    {
        if (!SplitLocked(start) || !SplitLocked(end))
            return false;
        var first = IndexOf(start);
        var last = first;
        while (last < Space->VmaCount && Space->Vmas[last].Start < end)
            last++;
        if (last > first)
        {
            Move(last, first);
            Space->VmaCount -= last - first;
        }

        return true;
    }

    private bool SplitLocked(ulong address)
    {
        var i = IndexOf(address);
        if (i >= Space->VmaCount || Space->Vmas[i].Start >= address)
            return true;
        if (Space->VmaCount >= Layout.MaxVmas)
            return false;
        Move(i, i + 1);
        Space->Vmas[i].End = address;
        Space->Vmas[i + 1].Start = address;
        Space->VmaCount++;
        return true;
    }

    private void MergeLocked(ulong start, ulong end)
    {
        var i = Math.Max(IndexOf(start) - 1, 0);
        while (i + 1 < Space->VmaCount && Space->Vmas[i].Start <= end)
        {
            ref var a = ref Space->Vmas[i];
            ref var b = ref Space->Vmas[i + 1];
            if (a.End == b.Start && a.Flags == b.Flags && a.HostTag == b.HostTag && a.Birth == b.Birth)
            {
                a.End = b.End;
                Move(i + 2, i + 1);
                Space->VmaCount--;
            }
            else
            {
                i++;
            }
        }
    }

    private void Move(int from, int to) =>
        Buffer.MemoryCopy(Space->Vmas + from, Space->Vmas + to, (Layout.MaxVmas - to) * sizeof(Vma), (Space->VmaCount - from) * sizeof(Vma));

    private void Acquire() => HostKernelLock.Acquire(state);

    private void Release() => HostKernelLock.Release(state);
}
