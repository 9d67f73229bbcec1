using System.Runtime.InteropServices;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Processes;
using static Privy.Hypervisor.Syscalls.SyscallNumber;

namespace Privy.Hypervisor.Syscalls;

/// <summary>Carries out one system call. Result as the kernel's: negative errno on failure.</summary>
public delegate long SyscallHandler(ISyscallContext context, in SyscallArguments arguments);

/// <summary>The way into the system calls for a guest thread.</summary>
public static unsafe partial class SyscallDispatcher
{
    private static readonly SyscallHandler?[] s_handlers = CreateHandlers();

    /// <summary>Commands of ioctl, fcntl and prctl that the hypervisor carries out: number in the upper half, command in the lower.</summary>
    private static readonly Dictionary<ulong, SyscallHandler> s_commandHandlers = [];

    /// <summary>
    /// Makes a system call for the program. Negative errno on failure; in place of EINTR one of the ERESTART codes of <see cref="Errno"/>
    /// where Linux would make the call again under the conditions the code stands for.
    /// </summary>
    public static long Execute(ISyscallContext context, long number, in SyscallArguments arguments)
    {
        // A forked child has a table of its own, in which nobody else makes any.
        if (number is not (close or close_range or dup2 or dup3) || context.Translates) return CarryOut(context, number, in arguments);
        Kvm.OwnDescriptors.BeginClosing();
        try
        {
            return CarryOut(context, number, in arguments);
        }
        finally
        {
            Kvm.OwnDescriptors.EndClosing();
        }
    }

    private static long CarryOut(ISyscallContext context, long number, in SyscallArguments arguments)
    {
        if (number == PrivateCall && s_privateHandler is { } ours) return ours(context, in arguments);
        if ((ulong)number >= (ulong)s_handlers.Length) return Refuse(number, -Errno.ENOSYS);
        if (s_handlers[number] is { } handler) return handler(context, in arguments);
        var call = SyscallTable.Find(number);
        return call?.Route switch
        {
            SyscallRoute.Host => SyscallMarshaller.Execute(context, call, in arguments),
            SyscallRoute.Constant => call.Constant,
            _ => Refuse(number, -Errno.ENOSYS),
        };
    }

    /// <summary>Sets who carries out a call. Before the first guest thread runs.</summary>
    public static void Register(int number, SyscallHandler handler)
    {
        ArgumentNullException.ThrowIfNull(handler);
        if ((uint)number >= (uint)s_handlers.Length) throw new ArgumentOutOfRangeException(nameof(number), number, "No such system call.");
        s_handlers[number] = handler;
    }

    /// <summary>
    /// Number of the call by which a program finds out that it runs under Privy, and uses what only Privy has. Linux answers ENOSYS.
    /// </summary>
    public const long PrivateCall = ViewProtocol.Number;

    private static SyscallHandler? s_privateHandler;

    /// <summary>Sets who carries out <see cref="PrivateCall"/>. Before the first guest thread runs.</summary>
    public static void RegisterPrivate(SyscallHandler handler) => s_privateHandler = handler;

    /// <summary>Sets who carries out one command of ioctl, fcntl or prctl, as TIOCSPGRP. Before the first guest thread runs.</summary>
    public static void RegisterCommand(int number, uint command, SyscallHandler handler)
    {
        ArgumentNullException.ThrowIfNull(handler);
        if (SyscallTable.Find(number)?.VariantTable is null) throw new ArgumentOutOfRangeException(nameof(number), number, "This call has no commands.");
        s_commandHandlers[(ulong)number << 32 | command] = handler;
    }

    /// <summary>Carries out a call on the host kernel as the table describes it, whoever is registered for it: for handlers that only look first.</summary>
    public static long ExecuteOnHost(ISyscallContext context, int number, in SyscallArguments arguments)
    {
        var call = SyscallTable.Find(number, in arguments);
        if (call is { Route: SyscallRoute.Constant }) return call.Constant;
        return call is { Route: SyscallRoute.Host } && call.VariantTable is null ? SyscallMarshaller.Execute(context, call, in arguments) : Refuse(number, -Errno.ENOSYS);
    }

    private static long Refuse(long number, long result)
    {
        SyscallWarnings.Once($"system call {SyscallTable.NameOf(number)} ({number}) is not supported; the program gets ENOSYS");
        return result;
    }

    private static SyscallHandler?[] CreateHandlers()
    {
        var handlers = new SyscallHandler?[SyscallNumber.Count];
        handlers[ioctl] = Ioctl;
        handlers[fcntl] = Fcntl;
        handlers[prctl] = Prctl;
        handlers[open] = Open;
        handlers[openat] = OpenAt;
        handlers[close_range] = CloseRange;
        handlers[getdents64] = ListDirectory;
        handlers[readlink] = ReadLink;
        handlers[readlinkat] = ReadLinkAt;
        handlers[setsockopt] = SetSocketOption;
        handlers[getsockopt] = GetSocketOption;
        handlers[setrlimit] = SetLimit;
        handlers[prlimit64] = Prlimit;
        handlers[getrusage] = GetResourceUsage;
        handlers[clock_gettime] = ClockGetTime;
        handlers[personality] = Personality;
        AddThreadCalls(handlers);
        return handlers;
    }

    private static SyscallDescription Described(int number) => SyscallTable.Find(number)!;
}
