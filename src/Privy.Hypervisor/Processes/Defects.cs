using Privy.Hypervisor.Host;
using Privy.Hypervisor.Syscalls;

namespace Privy.Hypervisor.Processes;

/// <summary>The end of the process on a defect of Privy itself.</summary>
internal static class Defects
{
    /// <summary>Exit status of a defect (EX_SOFTWARE of sysexits.h).</summary>
    internal const int ExitStatus = 70;

    /// <summary>Prints what is known and ends the whole process at once: a program whose hypervisor is wrong must not run on.</summary>
    internal static void Die(Exception exception)
    {
        ErrorOutput.WriteLine($"privy: defect in Privy itself; please report it with these lines: {exception}");
        _ = HostSyscall.Raw(SyscallNumber.exit_group, ExitStatus);
    }
}
