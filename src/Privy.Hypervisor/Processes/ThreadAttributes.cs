using Privy.Hypervisor.Syscalls;

namespace Privy.Hypervisor.Processes;

/// <summary>
/// What Linux keeps for each thread and hands on to the threads and children it makes: user and group ids, capabilities, priority,
/// processors. The program's thread has it in its host thread; a child's host thread that was made before a change does not have it.
/// </summary>
internal static class ThreadAttributes
{
    /// <summary>Whether a call changes something that children of the calling thread inherit.</summary>
    internal static bool IsChangedBy(long number, in SyscallArguments arguments) => number switch
    {
        SyscallNumber.setuid or SyscallNumber.setgid or SyscallNumber.setreuid or SyscallNumber.setregid or SyscallNumber.setresuid or SyscallNumber.setresgid
            or SyscallNumber.setfsuid or SyscallNumber.setfsgid or SyscallNumber.setgroups or SyscallNumber.capset => true,
        SyscallNumber.setpriority or SyscallNumber.ioprio_set or SyscallNumber.sched_setaffinity or SyscallNumber.sched_setparam
            or SyscallNumber.sched_setscheduler or SyscallNumber.sched_setattr => true,
        // PR_SET_KEEPCAPS CAPBSET_DROP SECUREBITS TIMERSLACK NO_NEW_PRIVS CAP_AMBIENT SPECULATION_CTRL
        SyscallNumber.prctl => (uint)arguments.A0 is 8 or 24 or 28 or 29 or 38 or 47 or 53,
        _ => false,
    };
}
