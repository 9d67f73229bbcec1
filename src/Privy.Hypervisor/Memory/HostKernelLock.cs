using Privy.Kernel;

namespace Privy.Hypervisor.Memory;

/// <summary>The kernel's lock in the hands of the host. Not for long: vCPUs spin meanwhile.</summary>
internal static unsafe class HostKernelLock
{
    private const int HeldByHost = -1;

    internal static void Acquire(KernelState* state)
    {
        var spinner = default(SpinWait);
        while (Interlocked.CompareExchange(ref state->Lock, HeldByHost, 0) != 0)
            spinner.SpinOnce(sleep1Threshold: 100);
    }

    internal static void Release(KernelState* state) => Volatile.Write(ref state->Lock, 0);
}
