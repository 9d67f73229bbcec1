using System.Runtime.InteropServices;
using Privy.Hypervisor.Host;
using static Privy.Hypervisor.Syscalls.SyscallNumber;

namespace Privy.Hypervisor.Syscalls;

/// <summary>Calls that the table describes but that need a look at their arguments first.</summary>
public static unsafe partial class SyscallDispatcher
{
    private const uint SiocGifConf = 0x8912;

    /// <summary>FIOASYNC, as F_SETFL with O_ASYNC: the signal would hit the host process.</summary>
    private const uint FioAsync = 0x5452;

    private const ulong OAsync = 0x2000;

    private static long Ioctl(ISyscallContext context, in SyscallArguments arguments)
    {
        var request = (uint)arguments.A1;
        if (s_commandHandlers.TryGetValue((ulong)ioctl << 32 | request, out var handler)) return handler(context, in arguments);
        if (request == SiocGifConf) return GetInterfaces(context, in arguments);
        if (request == FioAsync)
        {
            if (context.IsReservedDescriptor((int)arguments.A0)) return -Errno.EBADF;
            SyscallWarnings.Once("ioctl FIOASYNC is accepted, but no SIGIO will come");
            return context.HostCall(fcntl, arguments.A0, 1 /* F_GETFD */) is < 0 and var error ? error : 0;
        }
        var call = SyscallTable.Find(ioctl, in arguments)!;
        if (call.VariantTable is null) return SyscallMarshaller.Execute(context, call, in arguments);
        SyscallWarnings.Once($"ioctl request 0x{request:x} is not supported; the program gets ENOTTY");
        return -Errno.ENOTTY;
    }

    private static long Fcntl(ISyscallContext context, in SyscallArguments arguments)
    {
        const uint SetFlags = 4;
        var command = (uint)arguments.A1;
        if (s_commandHandlers.TryGetValue((ulong)fcntl << 32 | command, out var handler)) return handler(context, in arguments);
        var call = SyscallTable.Find(fcntl, in arguments)!;
        if (call.VariantTable is not null)
        {
            // F_SETSIG, F_NOTIFY and F_SETLEASE among them: their signals would hit the host process.
            SyscallWarnings.Once($"fcntl command {command} is not supported; the program gets EINVAL");
            return -Errno.EINVAL;
        }
        if (command == SetFlags && (arguments.A2 & OAsync) != 0)
        {
            SyscallWarnings.Once("fcntl F_SETFL with O_ASYNC is not supported; the flag is ignored");
            return SyscallMarshaller.Execute(context, call, arguments with { A2 = arguments.A2 & ~OAsync });
        }
        return SyscallMarshaller.Execute(context, call, in arguments);
    }

    private static long Prctl(ISyscallContext context, in SyscallArguments arguments)
    {
        const uint SetParentDeathSignal = 1, SetDumpable = 4;
        var option = (uint)arguments.A0;
        if (s_commandHandlers.TryGetValue((ulong)prctl << 32 | option, out var handler)) return handler(context, in arguments);
        var call = SyscallTable.Find(prctl, in arguments)!;
        if (call.Route == SyscallRoute.Constant) return call.Constant;
        if (call.VariantTable is not null)
        {
            SyscallWarnings.Once($"prctl option {option} is not supported; the program gets EINVAL");
            return -Errno.EINVAL;
        }
        // A snapshot cannot outlive its parent, so the first has no effect; the second belongs to the whole host process.
        if (context.Translates && option is SetParentDeathSignal or SetDumpable) return 0;
        return SyscallMarshaller.Execute(context, call, in arguments);
    }

    /// <summary>Closes the runs of descriptors between the reserved ones.</summary>
    private static long CloseRange(ISyscallContext context, in SyscallArguments arguments)
    {
        // fs.nr_open by default: a process cannot have descriptors above it.
        const uint Highest = (1 << 20) - 1;
        // CLOSE_RANGE_UNSHARE only says who is not to see it; the threads of a program keep one table here.
        const uint Unshare = 2;
        uint first = (uint)arguments.A0, last = (uint)arguments.A1, flags = (uint)arguments.A2;
        if (first > last || (flags & ~6u) != 0) return -Errno.EINVAL;
        last = Math.Min(last, Highest);
        long result = 0;
        for (var start = first; start <= last && result == 0;)
        {
            var reserved = (uint)context.NextReservedDescriptor((int)start, (int)last);
            if (reserved > start) result = context.HostCall(close_range, start, reserved - 1, flags & ~Unshare);
            start = reserved + 1;
        }
        return result;
    }

    private static long ReadLink(ISyscallContext context, in SyscallArguments arguments) =>
        SyscallPaths.ReadLink(context, arguments.A0) is { } target
            ? CopyLink(context, target, arguments.A1, (int)arguments.A2)
            : SyscallMarshaller.Execute(context, Described(readlink), in arguments);

    private static long ReadLinkAt(ISyscallContext context, in SyscallArguments arguments) =>
        SyscallPaths.ReadLink(context, arguments.A1) is { } target
            ? CopyLink(context, target, arguments.A2, (int)arguments.A3)
            : SyscallMarshaller.Execute(context, Described(readlinkat), in arguments);

    private static long CopyLink(ISyscallContext context, byte[] target, ulong address, int room)
    {
        if (room <= 0) return -Errno.EINVAL;
        var length = Math.Min(room, target.Length);
        return context.TryWrite(address, target.AsSpan(0, length)) ? length : -Errno.EFAULT;
    }

    private static long SetSocketOption(ISyscallContext context, in SyscallArguments arguments)
    {
        const int AttachFilter = 26, AttachReusePortFilter = 51, ZeroCopy = 60;
        var level = (int)arguments.A1;
        var option = (int)arguments.A2;
        if (!IsKnownLevel(level, option)) return -Errno.ENOPROTOOPT;
        if (level == 1)
        {
            // With zero copy the kernel reads the program's memory after the call has returned.
            if (option == ZeroCopy) return -Errno.ENOTSUP;
            // A pointer to the filter lies inside the option.
            if (context.Translates && option is AttachFilter or AttachReusePortFilter) return -Errno.ENOPROTOOPT;
        }
        return SyscallMarshaller.Execute(context, Described(setsockopt), in arguments);
    }

    private static long GetSocketOption(ISyscallContext context, in SyscallArguments arguments)
    {
        const int GetFilter = 26, TcpZeroCopyReceive = 35;
        var level = (int)arguments.A1;
        var option = (int)arguments.A2;
        if (!IsKnownLevel(level, option)) return -Errno.ENOPROTOOPT;
        // The length of the first counts instructions; the second maps pages into the program.
        if (level == 1 && option == GetFilter || level == 6 && option == TcpZeroCopyReceive) return -Errno.ENOPROTOOPT;
        return SyscallMarshaller.Execute(context, Described(getsockopt), in arguments);
    }

    /// <summary>Levels whose options are plain bytes of the given length.</summary>
    private static bool IsKnownLevel(int level, int option)
    {
        switch (level)
        {
            case 0:
                // Netfilter's tables lie at 64 and above, with pointers inside; SO_ORIGINAL_DST is the harmless one.
                if (option is < 64 or 80) return true;
                break;
            case 41:
                // Here they lie between ordinary options.
                if (option is <= 80 and not (64 or 65 or 68 or 69)) return true;
                break;
            case 1 or 6 or 17 or 58 or 136 or 255 or 263 or 270 or 279 or 282 or 284 or 287:
                // SOL_SOCKET TCP UDP ICMPV6 UDPLITE RAW PACKET NETLINK ALG TLS MPTCP VSOCK
                return true;
        }
        SyscallWarnings.Once($"socket option {option} of level {level} is not supported; the program gets ENOPROTOOPT");
        return false;
    }

    private static long SetLimit(ISyscallContext context, in SyscallArguments arguments) =>
        MaySetLimit(context, (uint)arguments.A0) ? SyscallMarshaller.Execute(context, Described(setrlimit), in arguments) : -Errno.EPERM;

    private static long Prlimit(ISyscallContext context, in SyscallArguments arguments) =>
        arguments.A2 == 0 || MaySetLimit(context, (uint)arguments.A1) ? SyscallMarshaller.Execute(context, Described(prlimit64), in arguments) : -Errno.EPERM;

    /// <summary>Limits are the host process's: a snapshot must not change them, and main only those that do not choke the hypervisor.</summary>
    private static bool MaySetLimit(ISyscallContext context, uint resource)
    {
        // RLIMIT_CORE NPROC NOFILE MEMLOCK LOCKS SIGPENDING MSGQUEUE NICE RTPRIO
        if (!context.Translates && resource is 4 or 6 or 7 or 8 or 10 or 11 or 12 or 13 or 14) return true;
        if (!context.Translates) SyscallWarnings.Once($"resource limit {resource} cannot be set under Privy; the program gets EPERM");
        return false;
    }

    /// <summary>What a snapshot used is what its thread used.</summary>
    private static long GetResourceUsage(ISyscallContext context, in SyscallArguments arguments)
    {
        const int Self = 0, Thread = 1;
        var who = context.Translates && (int)arguments.A0 == Self ? Thread : arguments.A0;
        return SyscallMarshaller.Execute(context, Described(getrusage), arguments with { A0 = who });
    }

    private static long ClockGetTime(ISyscallContext context, in SyscallArguments arguments)
    {
        const int ProcessClock = 2, ThreadClock = 3;
        var clock = context.Translates && (int)arguments.A0 == ProcessClock ? ThreadClock : ClockInHost(context, arguments.A0);
        return SyscallMarshaller.Execute(context, Described(clock_gettime), arguments with { A0 = clock });
    }

    /// <summary>Asking is answered; the flags change how addresses are chosen, which is the hypervisor's part.</summary>
    private static long Personality(ISyscallContext context, in SyscallArguments arguments)
    {
        const uint Query = 0xffff_ffff;
        return (uint)arguments.A0 is Query or 0 ? context.HostCall(personality, Query) : -Errno.EINVAL;
    }

    /// <summary>SIOCGIFCONF: struct ifconf holds a length and a pointer to the array of ifreq.</summary>
    private static long GetInterfaces(ISyscallContext context, in SyscallArguments arguments)
    {
        const long MostBytes = 1 << 20;
        var arena = context.Arena;
        try
        {
            if (context.IsReservedDescriptor((int)arguments.A0)) return -Errno.EBADF;
            var conf = (ulong*)arena.Allocate(KernelStructSize.Ifconf);
            if (!context.TryRead(arguments.A2, new Span<byte>(conf, KernelStructSize.Ifconf))) return -Errno.EFAULT;
            var address = conf[1];
            if (address != 0)
            {
                var room = (int)Math.Clamp((long)(int)conf[0], 0, MostBytes);
                *(int*)conf = room;
                conf[1] = (ulong)arena.Allocate(room);
            }
            var staged = conf[1];
            var result = context.HostCall(ioctl, arguments.A0, SiocGifConf, (ulong)conf);
            if (result < 0) return result;
            if (address != 0 && *(int*)conf > 0 && !context.TryWrite(address, new ReadOnlySpan<byte>((void*)staged, *(int*)conf))) return -Errno.EFAULT;
            return context.TryWrite(arguments.A2, new ReadOnlySpan<byte>(conf, 4)) ? result : -Errno.EFAULT;
        }
        finally
        {
            arena.Reset();
        }
    }
}
