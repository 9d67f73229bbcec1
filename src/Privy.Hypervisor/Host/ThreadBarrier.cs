using Privy.Hypervisor.Syscalls;

namespace Privy.Hypervisor.Host;

/// <summary>A memory barrier on all running threads of the process at once (membarrier(2), MEMBARRIER_CMD_PRIVATE_EXPEDITED).</summary>
internal static class ThreadBarrier
{
    private const ulong PrivateExpedited = 8, RegisterPrivateExpedited = 16;

    /// <summary>False where the kernel does not offer it.</summary>
    internal static bool IsAvailable { get; } = HostSyscall.RawQuick(SyscallNumber.membarrier, RegisterPrivateExpedited) == 0;

    /// <summary>
    /// Interrupts every processor that runs a thread of this process, and returns when all have taken the interrupt; threads that do not run
    /// are not waited for.
    /// </summary>
    internal static void Pass() => _ = HostSyscall.RawQuick(SyscallNumber.membarrier, PrivateExpedited);
}
