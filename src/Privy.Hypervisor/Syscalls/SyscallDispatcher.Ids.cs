using static Privy.Hypervisor.Syscalls.SyscallNumber;

namespace Privy.Hypervisor.Syscalls;

/// <summary>
/// Calls about what Linux keeps for a thread, by the id of one. The first thread of a forked child has its process' id to the program, as always, and another in the host, where that id is the
/// stand-in's.
/// </summary>
public static unsafe partial class SyscallDispatcher
{
    private static void AddThreadCalls(SyscallHandler?[] handlers)
    {
        int[] takeThreadFirst =
            [sched_getparam, sched_setparam, sched_getscheduler, sched_setscheduler, sched_rr_get_interval, sched_getattr, sched_setattr];
        foreach (var number in takeThreadFirst)
            handlers[number] = (ISyscallContext context, in SyscallArguments arguments) => OnThread(context, number, in arguments);

        foreach (var number in (ReadOnlySpan<int>)[sched_getaffinity, sched_setaffinity])
        {
            handlers[number] = (ISyscallContext context, in SyscallArguments arguments) =>
            {
                lock (Host.ThreadPlacement.Confinement)
                    return OnThread(context, number, in arguments);
            };
        }

        handlers[getpriority] = GetPriority;
        handlers[setpriority] = SetPriority;
        handlers[ioprio_get] = GetIoPriority;
        handlers[ioprio_set] = SetIoPriority;
    }

    private static long OnThread(ISyscallContext context, int number, in SyscallArguments arguments) =>
        SyscallMarshaller.Execute(context, Described(number), arguments with { A0 = InHost(context, arguments.A0) });

    private static ulong InHost(ISyscallContext context, ulong id) => context.HostIdOf((int)id) is not 0 and var own ? (ulong)own : id;

    private static long GetPriority(ISyscallContext context, in SyscallArguments arguments)
    {
        const int process = 0;
        var id = (int)arguments.A0 == process ? InHost(context, arguments.A1) : arguments.A1;
        return SyscallMarshaller.Execute(context, Described(getpriority), arguments with { A1 = id });
    }

    /// <summary>Priority belongs to the thread; that of a group or user is not the program's alone.</summary>
    private static long SetPriority(ISyscallContext context, in SyscallArguments arguments) =>
        (int)arguments.A0 == 0 ? SyscallMarshaller.Execute(context, Described(setpriority), arguments with { A1 = InHost(context, arguments.A1) }) : -Host.Errno.EPERM;

    private static long GetIoPriority(ISyscallContext context, in SyscallArguments arguments)
    {
        const int process = 1;
        var id = (int)arguments.A0 == process ? InHost(context, arguments.A1) : arguments.A1;
        return SyscallMarshaller.Execute(context, Described(ioprio_get), arguments with { A1 = id });
    }

    private static long SetIoPriority(ISyscallContext context, in SyscallArguments arguments) =>
        (int)arguments.A0 == 1 ? SyscallMarshaller.Execute(context, Described(ioprio_set), arguments with { A1 = InHost(context, arguments.A1) }) : -Host.Errno.EPERM;

    /// <summary>A CPU-time clock named by the id of a process or thread (posix-timers.h): a child's is that of its thread.</summary>
    private static ulong ClockInHost(ISyscallContext context, ulong clock)
    {
        const int typeBits = 3, ofThread = 4;
        var number = (int)clock;
        return number < 0 && context.HostIdOf(~(number >> typeBits)) is not 0 and var id ? (ulong)(long)((~id << typeBits) | (number & 3) | ofThread) : clock;
    }
}
