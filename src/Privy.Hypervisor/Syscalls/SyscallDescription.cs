using Privy.Hypervisor.Host;

namespace Privy.Hypervisor.Syscalls;

/// <summary>Who carries out a system call.</summary>
public enum SyscallRoute : byte
{
    /// <summary>Not described: ENOSYS, and a warning the first time.</summary>
    Unknown,

    /// <summary>The host kernel, by <see cref="SyscallMarshaller"/>.</summary>
    Host,

    /// <summary>A registered <see cref="SyscallHandler"/>; ENOSYS and a warning while there is none.</summary>
    Handled,

    /// <summary>Nobody: it returns <see cref="SyscallDescription.Constant"/>.</summary>
    Constant,
}

/// <summary>
/// What becomes of a call that a signal interrupted (signal(7), "Interruption of system calls"). Calls the kernel never
/// interrupts need no entry: they do not return EINTR.
/// </summary>
public enum RestartRule : byte
{
    /// <summary>Made again, unless a handler without SA_RESTART ran.</summary>
    UnlessHandlerForbids,

    /// <summary>EINTR as soon as any handler ran.</summary>
    OnlyWithoutHandler,

    /// <summary>Never made again: close has already given the number free.</summary>
    Never,
}

/// <summary>A system call, or one command of a multiplexed one (ioctl, fcntl, prctl).</summary>
public sealed class SyscallDescription
{
    internal SyscallDescription(int number, string name, SyscallRoute route, ArgumentDescription[] arguments)
    {
        Number = number;
        Name = name;
        Route = route;
        Arguments = arguments;
        ActiveArguments = IndexesOf(arguments);
    }

    /// <summary>Number in rax.</summary>
    public int Number { get; }

    /// <summary>The kernel's name.</summary>
    public string Name { get; }

    /// <summary>Who carries it out.</summary>
    public SyscallRoute Route { get; }

    /// <summary>Its arguments, in the order of the registers.</summary>
    public ArgumentDescription[] Arguments { get; }

    /// <summary>Result of a <see cref="SyscallRoute.Constant"/> call.</summary>
    public long Constant { get; init; }

    /// <summary>What EINTR turns into.</summary>
    public RestartRule Restart { get; init; }

    /// <summary>EPIPE comes with SIGPIPE.</summary>
    public bool RaisesSigpipe { get; init; }

    /// <summary>Index of the argument where MSG_NOSIGNAL prevents SIGPIPE, or -1.</summary>
    public int NoSignalArgument { get; init; } = -1;

    /// <summary>The result, or the pair of numbers written, are new descriptors, to be closed when they cannot be delivered.</summary>
    public bool CreatesDescriptors { get; init; }

    /// <summary>Which argument holds the command that selects a variant, or -1.</summary>
    public int CommandArgument { get; init; } = -1;

    /// <summary>Descriptions by command.</summary>
    public IReadOnlyDictionary<uint, SyscallDescription>? Variants => VariantTable;

    internal Dictionary<uint, SyscallDescription>? VariantTable { get; init; }

    /// <summary>Arguments to look at: all but the plain numbers.</summary>
    internal byte[] ActiveArguments { get; }

    /// <summary>What the thread loop must see in place of EINTR.</summary>
    public int InterruptedErrno => Restart switch
    {
        RestartRule.UnlessHandlerForbids => Errno.ERESTARTSYS,
        RestartRule.OnlyWithoutHandler => Errno.ERESTARTNOHAND,
        _ => Errno.EINTR,
    };

    private static byte[] IndexesOf(ArgumentDescription[] arguments)
    {
        var indexes = new List<byte>();
        for (var i = 0; i < arguments.Length; i++)
        {
            if (arguments[i].Kind != ArgumentKind.Value) indexes.Add((byte)i);
        }
        return [.. indexes];
    }
}
