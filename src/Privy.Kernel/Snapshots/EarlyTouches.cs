namespace Privy.Kernel;

/// <summary>
/// The places that main reads and executes right after a snapshot: its code, the C library's, what the libraries hold. Its tree begins anew then, so each
/// of them would cost a page fault. They are the same each time: remembered, and filled in while the next snapshot is made, for both sides.
/// </summary>
internal static unsafe class EarlyTouches
{
    private const ulong Fetch = 1;

    /// <summary>Records a fault that no copy was needed for, while the host says that the snapshot is young.</summary>
    internal static void Record(KernelState* k, VcpuArea* v, ulong address, bool fetch)
    {
        if (k->EarlyVcpu == v->Index + 1 && k->EarlyTouchCount < KernelState.EarlyTouchCapacity)
            k->EarlyTouches[k->EarlyTouchCount++] = address | (fetch ? Fetch : 0);
    }

    /// <summary>Fills the entries in for main and for the snapshot just made. What lacks tables or a slot is left to the page faults.</summary>
    internal static void Fill(KernelState* k, VcpuArea* v, Space* space)
    {
        k->EarlyVcpu = 0;
        int count = k->EarlyTouchCount;
        for (int i = 0; i < count; i++)
        {
            ulong address = k->EarlyTouches[i] & ~Fetch;
            bool fetch = (k->EarlyTouches[i] & Fetch) != 0;
            _ = MainFault.Handle(k, v, address, write: false, fetch, around: 0);
            _ = SnapshotFault.Handle(k, v, space, address, write: false, fetch, self: true);
        }
        // A full list holds what is of no use any more, as likely as not: the faults until the next snapshot make a new one.
        if (count == KernelState.EarlyTouchCapacity)
            k->EarlyTouchCount = 0;
    }
}
