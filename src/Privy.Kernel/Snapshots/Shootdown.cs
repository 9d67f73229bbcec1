namespace Privy.Kernel;

/// <summary>Makes vCPUs forget translations.</summary>
internal static unsafe class Shootdown
{
    /// <summary>
    /// Makes every vCPU of a space flush before it runs the program again. A vCPU in the guest is made to leave; one
    /// outside sees the mark when it enters: it sets InGuest, then looks (both sides with a full fence in between).
    /// The vCPU that executes this cannot be kicked by itself; with <paramref name="self"/> it is marked, for its next
    /// entry, and without it the caller relies on the page fault having dropped the one stale translation.
    /// </summary>
    internal static void Flush(KernelState* k, VcpuArea* v, Space* space, bool self)
    {
        if (k->SkipShootdown == KernelState.AllShootdowns)
            return;
        // A view is read by main's vCPUs, this one among them: it cannot rely on a page fault, as that was about main's own address.
        bool view = space->View != 0;
        if (view)
        {
            ViewReads.Forget(k);
            space = k->Spaces;
            self = true;
        }
        for (int word = 0; word < Layout.MaxVcpus / 64; word++)
        {
            ulong bits = space->Vcpus[word];
            for (int bit = 0; bits != 0; bit++, bits >>= 1)
            {
                if ((bits & 1) == 0)
                    continue;
                int index = word * 64 + bit;
                if (index == v->Index)
                {
                    if (view && k->SkipShootdown == KernelState.OwnFlushes)
                        continue;
                    if (self)
                        v->FlushPending = 1;
                    if (view)
                        LeaveSoon(v);
                    continue;
                }
                VcpuArea* other = Area(k, index);
                System.Threading.Interlocked.Exchange(ref other->FlushPending, 1);
                if (System.Threading.Volatile.Read(ref other->InGuest) == 0)
                    continue;
                k->Shootdowns++;
                if (space != k->Spaces)
                    ReaderCopies.CountShootdown(k, space);
                HostCall.Request(v, HostRequest.Kick, (ulong)index, 0);
            }
        }
    }

    /// <summary>Flushes if the replaced entry may be cached.</summary>
    internal static void FlushReplaced(KernelState* k, VcpuArea* v, Space* space, ulong old, bool self)
    {
        if ((old & (Entry.Present | Entry.Accessed)) == (Entry.Present | Entry.Accessed))
            Flush(k, v, space, self);
        else if ((old & Entry.Present) != 0)
            k->ShootdownsSpared++;
    }

    /// <summary>The vCPU goes through the host before it goes on in the program, and flushes when it enters again.</summary>
    private static void LeaveSoon(VcpuArea* v)
    {
        int old;
        do
            old = System.Threading.Volatile.Read(ref v->ExitRequest);
        while (System.Threading.Interlocked.CompareExchange(ref v->ExitRequest, old | ExitReason.Host, old) != old);
    }

    internal static VcpuArea* Area(KernelState* k, int index) =>
        (VcpuArea*)(k->VcpuAreas + (ulong)index * Layout.VcpuStride);
}
