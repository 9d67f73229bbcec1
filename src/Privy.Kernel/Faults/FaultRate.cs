namespace Privy.Kernel;

/// <summary>How often a vCPU's writes fault: what is worth copying ahead depends on it.</summary>
internal static unsafe class FaultRate
{
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
        return k->RateDense != 0 && (v->RateNow >= k->RateDense || v->RateBefore >= k->RateDense);
    }
}
