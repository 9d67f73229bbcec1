using Privy.Hypervisor.Host;
using Privy.Hypervisor.Syscalls;

namespace Privy.Hypervisor.Processes;

/// <summary>wait4(2) and waitid(2).</summary>
internal static unsafe class WaitCall
{
    private const int NoHang = 1;
    private const int Untraced = 2;
    private const int WaitExited = 4;
    private const int WaitContinued = 8;
    private const int NoWait = 0x0100_0000;
    private const int UsageBytes = 144;

    internal static long Wait4(GuestThread thread, int id, ulong status, int options, ulong usage)
    {
        const int known = NoHang | Untraced | WaitContinued | unchecked((int)0xE000_0000);
        if ((options & ~known) != 0)
            return -Errno.EINVAL;
        var result = Wait(thread, Selector(thread, id), options | WaitExited, out var child, out var state, out var waitStatus);
        if (child is null)
            return result;
        if (status != 0 && !thread.TryWriteInt(status, waitStatus))
            return -Errno.EFAULT;
        return usage != 0 && !thread.TryWrite(usage, new byte[UsageBytes]) ? -Errno.EFAULT : result;
    }

    internal static long WaitId(GuestThread thread, int kind, int id, ulong information, int options, ulong usage)
    {
        const int all = 0, process = 1, group = 2;
        if ((options & (WaitExited | Untraced | WaitContinued)) == 0)
            return -Errno.EINVAL;
        Func<GuestProcess, bool>? selector = kind switch
        {
            all => _ => true,
            process => c => c.Id == id,
            group => c => c.Group == (id == 0 ? thread.Process.Group : id),
            _ => null,
        };
        if (selector is null)
            return -Errno.EINVAL;
        var result = Wait(thread, selector, options, out var child, out var state, out var waitStatus);
        if (result < 0)
            return result;
        if (information != 0)
        {
            var info = stackalloc int[32];
            new Span<int>(info, 32).Clear();
            if (child is not null)
                ChildSignal.Fill(info, child.Id, state, waitStatus);
            if (!thread.TryWrite(information, new ReadOnlySpan<byte>(info, 128)))
                return -Errno.EFAULT;
        }

        return usage != 0 && child is not null && !thread.TryWrite(usage, new byte[UsageBytes]) ? -Errno.EFAULT : 0;
    }

    private static Func<GuestProcess, bool> Selector(GuestThread thread, int id) => id switch
    {
        -1 => _ => true,
        0 => c => c.Group == thread.Process.Group,
        > 0 => c => c.Id == id,
        _ => c => c.Group == -id,
    };

    private static long Wait(GuestThread thread, Func<GuestProcess, bool> selector, int options, out GuestProcess? found, out ChildState state, out int waitStatus)
    {
        var process = thread.Process;
        var table = process.Table;
        while (true)
        {
            var events = Volatile.Read(ref *process.Events);
            var any = false;
            lock (table.Tree)
            {
                foreach (var child in table.ChildrenOf(process))
                {
                    if (!selector(child))
                        continue;
                    any = true;
                    if (!child.StateIsNews || !Wanted(child.State, options))
                        continue;
                    found = child;
                    state = child.State;
                    waitStatus = child.WaitStatus;
                    if ((options & NoWait) == 0)
                    {
                        child.StateIsNews = false;
                        if (state == ChildState.Exited)
                            table.Remove(child);
                    }

                    return child.Id;
                }
            }

            found = null;
            state = default;
            waitStatus = 0;
            if (!any)
                return -Errno.ECHILD;
            if ((options & NoHang) != 0)
                return 0;
            const ulong waitPrivate = 128;
            var result = thread.HostCall(SyscallNumber.futex, (ulong)process.Events, waitPrivate, (ulong)events);
            if (result == -Errno.EINTR)
                return -Errno.ERESTARTSYS;
            if (result < 0 && result != -Errno.EAGAIN)
                return result;
        }
    }

    private static bool Wanted(ChildState state, int options) => state switch
    {
        ChildState.Exited => (options & WaitExited) != 0,
        ChildState.Stopped => (options & Untraced) != 0,
        ChildState.Continued => (options & WaitContinued) != 0,
        _ => false,
    };
}

/// <summary>The siginfo of a child's change of state.</summary>
internal static unsafe class ChildSignal
{
    /// <summary>Fills a zeroed siginfo_t.</summary>
    internal static void Fill(int* info, int id, ChildState state, int waitStatus)
    {
        const int exited = 1, killed = 2, dumped = 3, stopped = 5, continued = 6;
        var signal = waitStatus & 0x7F;
        var (code, status) = state switch
        {
            ChildState.Stopped => (stopped, waitStatus >> 8 & 0xFF),
            ChildState.Continued => (continued, Signals.Signal.SIGCONT),
            _ when signal == 0 => (exited, waitStatus >> 8 & 0xFF),
            _ => ((waitStatus & 0x80) != 0 ? dumped : killed, signal),
        };
        info[0] = Signals.Signal.SIGCHLD;
        info[2] = code;
        info[4] = id;
        info[5] = (int)HostSyscall.RawQuick(SyscallNumber.getuid);
        info[6] = status;
    }
}
