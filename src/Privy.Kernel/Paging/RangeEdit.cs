namespace Privy.Kernel;

/// <summary>Brings the entries of a range up to date after the host changed its mappings.</summary>
internal static unsafe class RangeEdit
{
    /// <summary>The mappings are gone: drops all entries, and frees the private frames.</summary>
    internal static long Unmap(VcpuArea* v, int spaceIndex, ulong start, ulong end) =>
        Edit(v, spaceIndex, start, end, unmap: true);

    /// <summary>The rights changed: computed entries go (they are made again when touched), explicit ones get the new rights.</summary>
    internal static long Protect(VcpuArea* v, int spaceIndex, ulong start, ulong end) =>
        Edit(v, spaceIndex, start, end, unmap: false);

    private static long Edit(VcpuArea* v, int spaceIndex, ulong start, ulong end, bool unmap)
    {
        KernelState* k = v->Kernel;
        if ((uint)spaceIndex >= Layout.MaxSpaces)
            return -Errno.Invalid;
        Space* space = k->Spaces + spaceIndex;
        if (space->Active != Space.InUse)
            return -Errno.Invalid;
        start &= ~(Layout.PageSize - 1);
        // The kernel half is the same in all trees: nobody takes it away.
        if (start < end && (!LinearMap.Contains(k, start) || !LinearMap.Contains(k, end - 1)))
            return -Errno.Invalid;
        while (start < end)
        {
            // A gigabyte at a time, so that page faults of others get through.
            ulong next = (start & ~(Layout.Gigabyte - 1)) + Layout.Gigabyte;
            ulong stop = next < end ? next : end;
            KernelLock.Enter(k, v);
            Tables.FreeRetired(k, v);
            EditGigabyte(k, v, space, start, stop, unmap);
            KernelLock.Exit(k);
            start = next;
        }
        return 0;
    }

    /// <summary>
    /// A 2 MB entry is dropped even if the range covers only a part of it: the rest is linear and will be computed
    /// again. In a snapshot that would lose the A bit, by which main's copy-on-write knows of cached translations;
    /// so its vCPUs flush before the lock is given back.
    /// </summary>
    internal static void EditGigabyte(KernelState* k, VcpuArea* v, Space* space, ulong start, ulong end, bool unmap)
    {
        ulong* directory = Walk.Directory(k, space, start);
        if (directory == null)
            return;
        bool cached = false;
        for (; start < end; directory++)
        {
            ulong next = (start & ~(Layout.LargePageSize - 1)) + Layout.LargePageSize;
            ulong stop = next < end ? next : end;
            ulong entry = Walk.Read(directory);
            if ((entry & Entry.Large) != 0)
                cached |= Cached(Walk.Exchange(directory, 0));
            else if (entry != 0)
                cached |= EditTable(k, space, Tables.At(k, entry), start, stop, unmap);
            start = next;
        }
        // Main's own vCPUs are the host's business: no rule of the kernel depends on them.
        if (cached && space != k->Spaces)
            Shootdown.Flush(k, v, space, self: true);
    }

    private static bool EditTable(KernelState* k, Space* space, ulong* table, ulong start, ulong end, bool unmap)
    {
        bool cached = false;
        for (; start < end; start += Layout.PageSize)
        {
            ulong* page = table + Walk.TableIndex(start);
            ulong entry = Walk.Read(page);
            if (entry == 0)
                continue;
            if ((entry & Entry.Explicit) == 0)
            {
                cached |= Cached(Walk.Exchange(page, 0));
                continue;
            }
            bool isPrivate = (entry & Entry.Private) != 0;
            ulong frame = entry & Entry.AddressMask;
            if (unmap)
            {
                cached |= Cached(Walk.Exchange(page, 0));
                // Not reused before the flush: that happens under the same lock. A shared copy stays in limbo.
                if (isPrivate)
                    PrivateFrames.Free(k, space, frame);
                continue;
            }
            Vma* vma = VmaSet.Find(space, start);
            if (vma != null && entry != Entry.Missing)
                cached |= Cached(Walk.Exchange(page, Rights.ExplicitEntry(vma, frame, isPrivate)));
        }
        return cached;
    }

    private static bool Cached(ulong old) =>
        (old & (Entry.Present | Entry.Accessed)) == (Entry.Present | Entry.Accessed);
}
