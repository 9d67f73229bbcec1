namespace Privy.Kernel;

/// <summary>Fills tables with computed entries; only absent ones are touched.</summary>
internal static unsafe class Fill
{
    /// <summary>Whether the 2 MB around <paramref name="address"/> lie in the mapping.</summary>
    internal static bool CoversLargePage(Vma* vma, ulong address)
    {
        ulong start = address & ~(Layout.LargePageSize - 1);
        return vma->Start <= start && vma->End >= start + Layout.LargePageSize;
    }

    /// <summary>2 MB entries of the mapping in the gigabyte of <paramref name="address"/>.</summary>
    internal static void Directory(KernelState* k, Space* space, ulong* directory, ulong address, Vma* vma)
    {
        ulong bits = Rights.Linear(k, space == k->Spaces, vma);
        if (bits == 0)
            return;
        bits |= Entry.Large;
        ulong* first = directory - Walk.DirectoryIndex(address);
        ulong gigabyte = address & ~(Layout.Gigabyte - 1);
        ulong start = vma->Start > gigabyte ? vma->Start : gigabyte;
        ulong end = vma->End < gigabyte + Layout.Gigabyte ? vma->End : gigabyte + Layout.Gigabyte;
        start = (start + Layout.LargePageSize - 1) & ~(Layout.LargePageSize - 1);
        for (; start + Layout.LargePageSize <= end; start += Layout.LargePageSize)
        {
            ulong* entry = first + Walk.DirectoryIndex(start);
            if (*entry == 0)
                Walk.Write(entry, LinearMap.Physical(k, start) | bits);
        }
    }

    /// <summary>2 MB entries of all mappings in the gigabyte of <paramref name="address"/>.</summary>
    internal static void WholeDirectory(KernelState* k, Space* space, ulong* directory, ulong address)
    {
        ulong gigabyte = address & ~(Layout.Gigabyte - 1);
        for (int i = VmaSet.FirstEndingAfter(space, gigabyte);
            i < space->VmaCount && space->Vmas[i].Start < gigabyte + Layout.Gigabyte; i++)
        {
            Directory(k, space, directory, address, space->Vmas + i);
        }
    }

    /// <summary>
    /// Entries of the page table that holds <paramref name="page"/>, from all mappings in its 2 MB. With
    /// <paramref name="upgrade"/> (main only) present entries become writable where that is allowed by now.
    /// </summary>
    internal static void Table(KernelState* k, Space* space, ulong* page, ulong address, bool upgrade)
    {
        ulong* first = page - Walk.TableIndex(address);
        ulong area = address & ~(Layout.LargePageSize - 1);
        for (int i = VmaSet.FirstEndingAfter(space, area);
            i < space->VmaCount && space->Vmas[i].Start < area + Layout.LargePageSize; i++)
        {
            Vma* vma = space->Vmas + i;
            ulong bits = Rights.Linear(k, space == k->Spaces, vma);
            if (bits == 0)
                continue;
            // Under shadow paging KVM fills in the neighbours of a page together with it where A is set: reading them one by one takes eight times as long.
            if (space->View != 0)
                bits |= Entry.Accessed;
            ulong start = vma->Start > area ? vma->Start : area;
            ulong end = vma->End < area + Layout.LargePageSize ? vma->End : area + Layout.LargePageSize;
            for (; start < end; start += Layout.PageSize)
            {
                ulong* entry = first + Walk.TableIndex(start);
                if (*entry == 0)
                    Walk.Write(entry, LinearMap.Physical(k, start) | bits);
                else if (upgrade && (bits & ~*entry & Entry.Writable) != 0)
                    Walk.Write(entry, *entry | Entry.Writable);
            }
        }
    }
}
