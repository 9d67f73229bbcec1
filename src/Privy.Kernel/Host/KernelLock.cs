namespace Privy.Kernel;

/// <summary>The one lock over tables, frames, spaces and mappings.</summary>
internal static unsafe class KernelLock
{
    // The holder may be a vCPU whose host thread was descheduled; past this many looks it is better to give up the
    // processor than to spin on.
    private const int SpinLimit = 2000;

    internal static void Enter(KernelState* k, VcpuArea* v)
    {
        int spins = 0;
        while (System.Threading.Volatile.Read(ref k->Lock) != 0
            || System.Threading.Interlocked.CompareExchange(ref k->Lock, v->Index + 1, 0) != 0)
        {
            if (++spins < SpinLimit)
            {
                Intrinsics.Pause();
                continue;
            }
            spins = 0;
            HostCall.Request(v, HostRequest.Yield, 0, 0);
        }
    }

    internal static void Exit(KernelState* k) => System.Threading.Volatile.Write(ref k->Lock, 0);
}
