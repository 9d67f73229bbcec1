using System.Runtime.InteropServices;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Syscalls;

namespace Privy.Hypervisor.Processes;

/// <summary><c>struct rlimit64</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
internal record struct ResourceLimit(ulong Soft, ulong Hard);

/// <summary>
/// The resource limits of one process of the program. The host's are common to all of them and to the hypervisor: a child's are only kept here, until
/// exec makes a native process of it; of main's those take effect that do not choke the hypervisor.
/// </summary>
internal sealed unsafe class ResourceLimits
{
    internal const int Count = 16;

    private readonly ResourceLimit[] _values = new ResourceLimit[Count];
    private readonly ResourceLimit[] _host = new ResourceLimit[Count];
    private readonly Lock _lock = new();

    /// <summary>The host process' limits.</summary>
    internal ResourceLimits()
    {
        for (var i = 0; i < Count; i++)
        {
            ResourceLimit limit;
            _ = HostSyscall.Raw(SyscallNumber.prlimit64, 0, (ulong)i, 0, (ulong)(&limit));
            _values[i] = _host[i] = limit;
        }
    }

    /// <summary>Those that a forked child begins with.</summary>
    internal ResourceLimits(ResourceLimits parent)
    {
        lock (parent._lock)
        {
            parent._values.CopyTo(_values, 0);
            parent._host.CopyTo(_host, 0);
        }
    }

    internal ResourceLimit this[int resource]
    {
        get
        {
            lock (_lock)
                return _values[resource];
        }
    }

    /// <summary>Sets a limit. 0 or a negative errno.</summary>
    internal long Set(int resource, ResourceLimit limit, bool isMain)
    {
        const int core = 4, descriptors = 7;
        const ulong mostDescriptors = 1 << 20; // fs.nr_open by default
        if (limit.Soft > limit.Hard)
            return -Errno.EINVAL;
        lock (_lock)
        {
            if (isMain && TakesEffect(resource))
            {
                var result = HostSyscall.Raw(SyscallNumber.prlimit64, 0, (ulong)resource, (ulong)(&limit), 0);
                if (result < 0)
                    return result;
                _host[resource] = limit;
            }
            else if (limit.Hard > _values[resource].Hard && HostSyscall.RawQuick(SyscallNumber.geteuid) != 0)
            {
                return -Errno.EPERM; // as without CAP_SYS_RESOURCE
            }
            else if (resource == descriptors && limit.Hard > mostDescriptors)
            {
                return -Errno.EPERM;
            }
            else if (isMain && resource is not core && limit.Soft < _values[resource].Soft)
            {
                SyscallWarnings.Once($"resource limit {resource} has no effect under Privy; the program reads back what it has set");
            }

            _values[resource] = limit;
            return 0;
        }
    }

    /// <summary>What a native process made by exec must set to have these limits.</summary>
    /// <param name="memory">Room for <see cref="Count"/> limits that lives until the process has been made.</param>
    internal IEnumerable<SpawnAction> ForExec(nint memory)
    {
        lock (_lock)
        {
            List<SpawnAction> actions = [];
            for (var i = 0; i < Count; i++)
            {
                if (_values[i] == _host[i])
                    continue;
                var at = (ResourceLimit*)memory + i;
                *at = _values[i];
                actions.Add(new SpawnAction(SyscallNumber.prlimit64, 0, (ulong)i, (ulong)at));
            }

            return actions;
        }
    }

    /// <summary>Before main becomes another program: gives the host what it has set without effect and that leaves the next start-up alone.</summary>
    /// <returns>What takes it back, should exec fail.</returns>
    internal Action Apply()
    {
        List<(int Resource, ResourceLimit Before)> changed = [];
        lock (_lock)
        {
            foreach (var resource in (ReadOnlySpan<int>)[3, 5, 15]) // STACK RSS RTTIME
            {
                var limit = _values[resource];
                if (limit != _host[resource] && HostSyscall.Raw(SyscallNumber.prlimit64, 0, (ulong)resource, (ulong)(&limit), 0) == 0)
                    changed.Add((resource, _host[resource]));
            }
        }

        return () =>
        {
            foreach (var (resource, before) in changed)
            {
                var limit = before;
                _ = HostSyscall.Raw(SyscallNumber.prlimit64, 0, (ulong)resource, (ulong)(&limit), 0);
            }
        };
    }

    // CPU FSIZE CORE NPROC NOFILE MEMLOCK LOCKS SIGPENDING MSGQUEUE NICE RTPRIO; DATA, RSS, AS, STACK and RTTIME would hit the hypervisor's memory and threads.
    private static bool TakesEffect(int resource) => resource is 0 or 1 or 4 or 6 or 7 or 8 or 10 or 11 or 12 or 13 or 14;
}

/// <summary>getrlimit, setrlimit and prlimit64.</summary>
internal static unsafe class LimitCalls
{
    internal static void Register()
    {
        On(SyscallNumber.getrlimit, (t, a) => Get(t.Process, t, (int)a.A0, a.A1));
        On(SyscallNumber.setrlimit, (t, a) => Set(t.Process, t, (int)a.A0, a.A1));
        On(SyscallNumber.prlimit64, Prlimit);
    }

    private delegate long Handler(GuestThread thread, SyscallArguments arguments);

    private static void On(int number, Handler handler) =>
        SyscallDispatcher.Register(number, (ISyscallContext context, in SyscallArguments arguments) => handler((GuestThread)context, arguments));

    private static long Prlimit(GuestThread thread, SyscallArguments a)
    {
        var id = (int)a.A0;
        var process = id == 0 ? thread.Process : thread.Process.Table.Find(id);
        if (process is null or { NativeId: not 0 })
        {
            if (process is null && a.A2 != 0)
                return -Errno.EPERM;
            return SyscallDispatcher.ExecuteOnHost(thread, SyscallNumber.prlimit64, a with { A0 = (ulong)(process?.NativeId ?? id) });
        }

        // The old value goes out last, but is that from before.
        var resource = (int)a.A1;
        if ((uint)resource >= ResourceLimits.Count)
            return -Errno.EINVAL;
        var old = process.Limits[resource];
        if (a.A2 != 0 && Set(process, thread, resource, a.A2) is var error and < 0)
            return error;
        return a.A3 == 0 || thread.TryWrite(a.A3, new ReadOnlySpan<byte>(&old, sizeof(ResourceLimit))) ? 0 : -Errno.EFAULT;
    }

    private static long Get(GuestProcess process, GuestThread thread, int resource, ulong address)
    {
        if ((uint)resource >= ResourceLimits.Count)
            return -Errno.EINVAL;
        var limit = process.Limits[resource];
        return thread.TryWrite(address, new ReadOnlySpan<byte>(&limit, sizeof(ResourceLimit))) ? 0 : -Errno.EFAULT;
    }

    private static long Set(GuestProcess process, GuestThread thread, int resource, ulong address)
    {
        ResourceLimit limit;
        if (!thread.TryRead(address, new Span<byte>(&limit, sizeof(ResourceLimit))))
            return -Errno.EFAULT;
        return (uint)resource >= ResourceLimits.Count ? -Errno.EINVAL : process.Limits.Set(resource, limit, process == process.Table.Main);
    }
}
