namespace Privy.Kernel;

/// <summary>Copies pages ahead of main's writes on a vCPU of the host's own, so that main takes no faults there.</summary>
internal static unsafe class Precopy
{
    // Short turns: main's faults wait for the lock meanwhile.
    private const int PagesPerLock = 16;

    /// <summary>
    /// Copies what snapshots share of the range: 0 when it is through, 1 when no snapshot is left or the memory for copies ahead is used
    /// up, 2 when the frames at hand are.
    /// </summary>
    internal static long Run(VcpuArea* v, ulong start, ulong end)
    {
        KernelState* k = v->Kernel;
        start &= ~(Layout.PageSize - 1);
        while (start < end)
        {
            Outcome outcome = Outcome.Done;
            long result = 0;
            KernelLock.Enter(k, v);
            if (k->ActiveMask == 0 || k->FramesInUse >= k->AheadLimit)
                result = 1;
            else
                outcome = FramePool.Reserve(k, v);
            if (result == 0 && outcome == Outcome.Done)
            {
                if (FramePool.AtHand(k, v))
                    outcome = Step(k, v, ref start, end);
                else
                    result = 2;
            }
            KernelLock.Exit(k);
            if (result != 0)
                return result;
            outcome = outcome == Outcome.Done ? outcome : Retry.Help(v, outcome);
            if (outcome == Outcome.NoMemory)
                return 1;
        }
        return 0;
    }

    private static Outcome Step(KernelState* k, VcpuArea* v, ref ulong start, ulong end)
    {
        ulong next = (start & ~(Layout.LargePageSize - 1)) + Layout.LargePageSize;
        ulong stop = next < end ? next : end;
        Vma* vma = LinearMap.Contains(k, start) ? VmaSet.Find(k->Spaces, start) : null;
        if (vma == null || (vma->Flags & Vma.Write) == 0 || !Rights.Shareable(k, vma) || !CopyAround.Allowed(k, vma))
        {
            start = vma != null && vma->End < stop ? vma->End : stop;
            return Outcome.Done;
        }
        while (start < stop && !Wanted(k, start))
            start += Layout.PageSize;
        if (start >= stop || start >= vma->End)
            return Outcome.Done;
        Outcome outcome = MainFault.Handle(k, v, start, write: true, fetch: false, PagesPerLock - 1);
        if (outcome is Outcome.Done or Outcome.NoBacking)
            start += Layout.PageSize;
        return outcome == Outcome.NoBacking ? Outcome.Done : outcome;
    }

    /// <summary>Whether main would take a fault there, and no snapshot may have the page cached: that would cost a shootdown.</summary>
    private static bool Wanted(KernelState* k, ulong address)
    {
        ulong* directory = Walk.Directory(k, k->Spaces, address);
        if (directory == null)
            return true;
        ulong* page = Walk.Page(k, k->Spaces, address);
        if (((page == null ? *directory : *page) & Entry.Writable) != 0 && (page != null || (*directory & Entry.Large) != 0))
            return false;
        ulong active = k->ActiveMask;
        for (int i = 0; active != 0; i++, active >>= 1)
        {
            ulong* entry = (active & 1) != 0 ? Walk.Page(k, k->Spaces + i, address) : null;
            const ulong cached = Entry.Present | Entry.Accessed;
            if (entry != null && (Walk.Read(entry) & (cached | Entry.Explicit)) == cached)
                return false;
        }
        return true;
    }
}
