using Privy.Hypervisor.Host;
using Privy.Hypervisor.Syscalls;

namespace Privy.Hypervisor.Processes;

/// <summary>What Linux keeps per thread and a new one inherits, on the host threads.</summary>
internal sealed unsafe partial class GuestThread
{
    private const int AffinityBytes = 1024;

    private static bool s_credentialsChanged;

    private (ulong, ulong) _hostName;
    private int _hostParent;
    private Credentials? _credentials;

    private sealed record Credentials(uint[] Users, uint[] Groups, uint[] Supplementary);

    /// <summary>Notes when the program changes a thread's credentials: only then must forks look at them.</summary>
    internal static void RegisterCredentialCalls()
    {
        foreach (var number in new[] { SyscallNumber.setuid, SyscallNumber.setgid, SyscallNumber.setreuid, SyscallNumber.setregid, SyscallNumber.setresuid, SyscallNumber.setresgid, SyscallNumber.setgroups })
        {
            SyscallDispatcher.Register(number, (ISyscallContext context, in SyscallArguments arguments) =>
            {
                Volatile.Write(ref s_credentialsChanged, true);
                return SyscallDispatcher.ExecuteOnHost(context, number, arguments);
            });
        }
    }

    /// <summary>On the parent's thread.</summary>
    internal void InheritHost(GuestThread parent)
    {
        _hostName = CurrentName();
        _hostParent = parent.HostThreadId;
        if (!Volatile.Read(ref s_credentialsChanged))
            return;
        var (users, groups) = (new uint[3], new uint[3]);
        fixed (uint* u = users, g = groups)
        {
            _ = HostSyscall.RawQuick(SyscallNumber.getresuid, (ulong)u, (ulong)(u + 1), (ulong)(u + 2));
            _ = HostSyscall.RawQuick(SyscallNumber.getresgid, (ulong)g, (ulong)(g + 1), (ulong)(g + 2));
        }

        var supplementary = new uint[Math.Max(0, HostSyscall.RawQuick(SyscallNumber.getgroups))];
        fixed (uint* at = supplementary)
            _ = HostSyscall.RawQuick(SyscallNumber.getgroups, (ulong)supplementary.Length, (ulong)at);
        _credentials = new Credentials(users, groups, supplementary);
    }

    /// <summary>The calling thread's name as it is stored (PR_GET_NAME).</summary>
    private static (ulong, ulong) CurrentName()
    {
        const ulong getName = 16;
        (ulong, ulong) name;
        _ = HostSyscall.RawQuick(SyscallNumber.prctl, getName, (ulong)(&name));
        return name;
    }

    /// <summary>On the new thread.</summary>
    internal void TakeHostName()
    {
        const ulong setName = 15;
        var name = _hostName;
        _ = HostSyscall.RawQuick(SyscallNumber.prctl, setName, (ulong)(&name));
    }

    /// <summary>On a forked child's thread, which another than its parent has made.</summary>
    internal void TakeHostState()
    {
        const ulong process = 0;
        ulong parent = (ulong)_hostParent;
        byte* theirs = stackalloc byte[AffinityBytes], ours = stackalloc byte[AffinityBytes];
        long length;
        lock (ThreadPlacement.Confinement)
            length = HostSyscall.RawQuick(SyscallNumber.sched_getaffinity, parent, AffinityBytes, (ulong)theirs);
        if (length > 0 && HostSyscall.RawQuick(SyscallNumber.sched_getaffinity, 0, AffinityBytes, (ulong)ours) == length
            && !new ReadOnlySpan<byte>(theirs, (int)length).SequenceEqual(new ReadOnlySpan<byte>(ours, (int)length)))
            _ = HostSyscall.RawQuick(SyscallNumber.sched_setaffinity, 0, (ulong)length, (ulong)theirs);

        // getpriority returns 20 - nice.
        var priority = HostSyscall.RawQuick(SyscallNumber.getpriority, process, parent);
        if (priority > 0 && HostSyscall.RawQuick(SyscallNumber.getpriority, process, 0) != priority)
            _ = HostSyscall.RawQuick(SyscallNumber.setpriority, process, 0, (ulong)(20 - priority));

        if (_credentials is not { } credentials)
            return;
        // Users last: after them the right to set the groups may be gone.
        fixed (uint* at = credentials.Supplementary)
            _ = HostSyscall.RawQuick(SyscallNumber.setgroups, (ulong)credentials.Supplementary.Length, (ulong)at);
        var (g, u) = (credentials.Groups, credentials.Users);
        _ = HostSyscall.RawQuick(SyscallNumber.setresgid, g[0], g[1], g[2]);
        _ = HostSyscall.RawQuick(SyscallNumber.setresuid, u[0], u[1], u[2]);
    }
}
