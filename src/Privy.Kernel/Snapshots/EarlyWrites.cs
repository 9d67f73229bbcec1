namespace Privy.Kernel;

/// <summary>
/// The pages that main writes right after a snapshot: its stack, its allocator's locks, its statistics. They are the same
/// each time, so they are remembered and copied while the next snapshot is made, a fraction of a microsecond each in place
/// of a page fault each.
/// </summary>
/// <remarks>
/// A page copied ahead is mapped writable with its Dirty bit clear. Where the bit is still clear at the next snapshot the copy
/// was for nothing, and the page is forgotten.
/// </remarks>
internal static unsafe class EarlyWrites
{
    /// <summary>Records a copy made by a page fault, while the host says that the snapshot is young.</summary>
    internal static void Record(KernelState* k, VcpuArea* v, ulong address)
    {
        // What is copied ahead counts as changed, which must be exact where the program asks for it.
        if (k->EarlyVcpu == v->Index + 1 && k->EarlyCount < KernelState.EarlyCapacity && (VmaSet.Find(k->Spaces, address)->Flags & Vma.Region) == 0)
            k->EarlyPages[k->EarlyCount++] = address;
    }

    /// <summary>Before main's tree is set aside: forgets the pages whose copies were for nothing.</summary>
    internal static void Review(KernelState* k)
    {
        int kept = 0;
        for (int i = 0; i < k->EarlyCount; i++)
        {
            ulong address = k->EarlyPages[i];
            ulong* page = Walk.Page(k, k->Spaces, address);
            // A 2 MB entry, made since, says nothing about the page.
            bool unused = page != null && (Walk.Read(page) & (Entry.Writable | Entry.Dirty)) == Entry.Writable;
            if (!unused)
                k->EarlyPages[kept++] = address;
        }
        k->EarlyCount = kept;
    }

    /// <summary>Copies the remembered pages for the snapshot just made. What lacks frames, tables or a slot is left to the page faults.</summary>
    internal static void CopyAhead(KernelState* k, VcpuArea* v)
    {
        int count = k->EarlyCount;
        // Recording is off here: these copies are no news.
        k->EarlyVcpu = 0;
        for (int i = 0; i < count; i++)
        {
            ulong address = k->EarlyPages[i];
            Vma* vma = VmaSet.Find(k->Spaces, address);
            if (vma == null || !Rights.Shareable(k, vma) || MainFault.Handle(k, v, address, write: true, fetch: false, around: 0) != Outcome.Done)
                continue;
            ulong* page = Walk.Page(k, k->Spaces, address);
            if (page != null)
                Walk.Write(page, *page & ~Entry.Dirty);
        }
        k->EarlyVcpu = v->Index + 1;
    }
}
