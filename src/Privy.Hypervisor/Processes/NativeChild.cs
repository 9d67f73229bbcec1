using Privy.Hypervisor.Host;
using Privy.Hypervisor.Signals;
using Privy.Hypervisor.Syscalls;

namespace Privy.Hypervisor.Processes;

/// <summary>Follows the native process that a forked child became by exec, on the child's former host thread.</summary>
internal static unsafe class NativeChild
{
    private const ulong ById = 1;
    private const ulong Exited = 4, Stopped = 2, Continued = 8;

    /// <summary>Reports each change of state to the parent until the process has ended.</summary>
    internal static void Await(GuestProcess process)
    {
        var info = stackalloc int[32];
        while (true)
        {
            var result = HostSyscall.Raw(SyscallNumber.waitid, ById, (ulong)process.NativeId, (ulong)info, Exited | Stopped | Continued);
            if (result == -Errno.EINTR)
                continue;
            if (result < 0)
            {
                process.Table.Report(process, ChildState.Exited, 0xFF00);
                return;
            }

            HostSignals.Settle();
            const int exited = 1, killed = 2, dumped = 3, stopped = 5, trapped = 4;
            var status = info[6];
            // Of the terminal's own the parent must have heard before: shells go by that.
            if (info[2] is killed or dumped or stopped && status is Signal.SIGINT or Signal.SIGQUIT or Signal.SIGTSTP && process.Group == process.Table.Main.Group)
                HostSignals.Await(status, process.NativeSince);
            switch (info[2])
            {
                case exited:
                    process.Table.Report(process, ChildState.Exited, (status & 0xFF) << 8);
                    return;
                case killed:
                    process.Table.Report(process, ChildState.Exited, status);
                    return;
                case dumped:
                    process.Table.Report(process, ChildState.Exited, status | 0x80);
                    return;
                case stopped or trapped:
                    process.Table.Report(process, ChildState.Stopped, (status << 8) | 0x7F);
                    break;
                default:
                    // Continued by the program itself, it has a stand-in that may stand still.
                    process.StandIn?.Send(Signal.SIGCONT);
                    process.Table.Report(process, ChildState.Continued, 0xFFFF);
                    break;
            }
        }
    }
}
