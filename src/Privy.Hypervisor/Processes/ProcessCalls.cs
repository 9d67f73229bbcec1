using Privy.Hypervisor.Boot;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Memory;
using Privy.Hypervisor.Syscalls;

namespace Privy.Hypervisor.Processes;

/// <summary>System calls about processes: identity, birth, exec, end and waiting.</summary>
internal static unsafe class ProcessCalls
{
    internal static void Register()
    {
        On(SyscallNumber.getpid, (t, _) => t.Process.Id);
        On(SyscallNumber.gettid, (t, _) => t.ThreadId);
        On(SyscallNumber.getppid, (t, _) => ParentId(t.Process));
        On(SyscallNumber.set_tid_address, (t, a) =>
        {
            t.ClearChildTid = a.A0;
            return t.ThreadId;
        });
        On(SyscallNumber.set_robust_list, (t, a) => t.SetRobustList(a.A0, a.A1));
        On(SyscallNumber.get_robust_list, (t, a) => t.GetRobustList((int)a.A0, a.A1, a.A2));
        On(SyscallNumber.clone, (t, a) => t.Clone(a.A0, a.A1, a.A2, a.A3, a.A4));
        On(SyscallNumber.fork, (t, _) => t.Clone(Signals.Signal.SIGCHLD, 0, 0, 0, 0));
        On(SyscallNumber.vfork, (t, _) => t.Clone(0x4100 | Signals.Signal.SIGCHLD, 0, 0, 0, 0));
        On(SyscallNumber.exit, Exit);
        On(SyscallNumber.exit_group, (t, a) =>
        {
            t.Process.BeginExit(((int)a.A0 & 0xFF) << 8, t);
            return 0;
        });
        On(SyscallNumber.execve, (t, a) => ExecCall.Execute(t, a.A0, a.A1, a.A2));
        On(SyscallNumber.wait4, (t, a) => WaitCall.Wait4(t, (int)a.A0, a.A1, (int)a.A2, a.A3));
        On(SyscallNumber.waitid, (t, a) => WaitCall.WaitId(t, (int)a.A0, (int)a.A1, a.A2, (int)a.A3, a.A4));
        On(SyscallNumber.getpgrp, (t, _) => t.Process.Group);
        On(SyscallNumber.getpgid, (t, a) => Lookup(t, (int)a.A0, SyscallNumber.getpgid, p => p.Group));
        On(SyscallNumber.getsid, (t, a) => Lookup(t, (int)a.A0, SyscallNumber.getsid, p => p.Session));
        On(SyscallNumber.setpgid, (t, a) => SetGroup(t, (int)a.A0, (int)a.A1));
        On(SyscallNumber.setsid, (t, _) => SetSession(t));
    }

    private delegate long Handler(GuestThread thread, SyscallArguments arguments);

    private static void On(int number, Handler handler) =>
        SyscallDispatcher.Register(number, (ISyscallContext context, in SyscallArguments arguments) => handler((GuestThread)context, arguments));

    /// <summary>getppid(2).</summary>
    internal static int ParentId(GuestProcess process)
    {
        if (process.Parent is { } parent)
            return parent.Id;
        return process == process.Table.Main ? (int)HostSyscall.RawQuick(SyscallNumber.getppid) : 1;
    }

    private static long Exit(GuestThread thread, SyscallArguments a)
    {
        // The last thread's status is the process'.
        if (thread.Process.Threads.Length == 1)
            thread.Process.BeginExit(((int)a.A0 & 0xFF) << 8, thread);
        thread.ExitSoon();
        return 0;
    }

    private static long Lookup(GuestThread thread, int id, int call, Func<GuestProcess, int> value)
    {
        var process = id == 0 ? thread.Process : thread.Process.Table.Find(id);
        return process is null ? HostSyscall.Raw(call, (ulong)id) : value(process);
    }

    private static long SetGroup(GuestThread thread, int id, int group)
    {
        if (group < 0)
            return -Errno.EINVAL;
        var process = id == 0 ? thread.Process : thread.Process.Table.Find(id);
        if (process is null || (process != thread.Process && process.Parent != thread.Process))
            return -Errno.ESRCH;
        if (process.Id == process.Session || process.Session != thread.Process.Session)
            return -Errno.EPERM;
        // Only main's group is the host's; a child's is emulated, and given to the native process when it calls exec.
        if (process == thread.Process.Table.Main)
        {
            var result = HostSyscall.Raw(SyscallNumber.setpgid, 0, (ulong)group);
            if (result < 0)
                return result;
        }
        else if (process.NativeId != 0)
        {
            return -Errno.EACCES;
        }

        process.Group = group == 0 ? process.Id : group;
        return 0;
    }

    private static long SetSession(GuestThread thread)
    {
        var process = thread.Process;
        if (process == process.Table.Main)
        {
            var result = HostSyscall.Raw(SyscallNumber.setsid);
            if (result > 0)
                process.Group = process.Session = (int)result;
            return result;
        }

        if (process.Group == process.Id)
            return -Errno.EPERM;
        process.Group = process.Session = process.Id;
        return process.Id;
    }
}
