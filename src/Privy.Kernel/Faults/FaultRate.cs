namespace Privy.Kernel;

/// <summary>How often a vCPU's writes fault: what is worth copying ahead depends on it.</summary>
internal static unsafe class FaultRate
{
    // Faults after which a snapshot counts as one that lives long: what they have cost, the pages copied with them included, is some 25 ms on paravirtual KVM.
    private const int Many = 512;

    /// <summary>
    /// Counts a copy-on-write fault. True when this vCPU takes so many that it does little else: in the present window of time or in the
    /// one right before it.
    /// </summary>
    internal static bool Count(KernelState* k, VcpuArea* v)
    {
        ulong now = Intrinsics.Timestamp();
        ulong age = now - v->RateStart;
        if (age >= k->RateWindow)
        {
            v->RateBefore = age < 2 * k->RateWindow ? v->RateNow : 0;
            v->RateNow = 0;
            v->RateStart = now;
        }
        v->RateNow++;
        if (v->RateEpoch != k->Epoch)
        {
            v->RateEpoch = k->Epoch;
            v->RateSinceSnapshot = 0;
        }
        v->RateSinceSnapshot++;
        return k->RateDense != 0 && (v->RateNow >= k->RateDense || v->RateBefore >= k->RateDense);
    }

    /// <summary>Whether the vCPU has taken so many since the last snapshot that it is worth while to copy for a long time ahead: not beside one that ends in a moment.</summary>
    internal static bool ManySinceSnapshot(KernelState* k, VcpuArea* v) => v->RateEpoch == k->Epoch && v->RateSinceSnapshot > Many;
}
