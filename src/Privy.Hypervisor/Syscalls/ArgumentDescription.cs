namespace Privy.Hypervisor.Syscalls;

/// <summary>What one argument of a system call is to the kernel.</summary>
public enum ArgumentKind : byte
{
    /// <summary>A number (or an address the kernel only compares); passed as it is.</summary>
    Value,

    /// <summary>A file descriptor, or AT_FDCWD.</summary>
    Descriptor,

    /// <summary>A path the kernel resolves: subject to the rules for /proc (see <see cref="SyscallPaths"/>).</summary>
    Path,

    /// <summary>A string that is not resolved now: the target of a symlink, the name of an attribute.</summary>
    Text,

    /// <summary>Memory the kernel reads.</summary>
    In,

    /// <summary>Memory the kernel writes.</summary>
    Out,

    /// <summary>Memory the kernel reads and writes.</summary>
    InOut,

    /// <summary>Array of iovec whose buffers the kernel reads.</summary>
    VectorIn,

    /// <summary>Array of iovec whose buffers the kernel writes.</summary>
    VectorOut,

    /// <summary>A msghdr to send.</summary>
    MessageIn,

    /// <summary>A msghdr to receive into.</summary>
    MessageOut,

    /// <summary>Array of mmsghdr to send; the kernel writes the msg_len fields.</summary>
    MessagesIn,

    /// <summary>Array of mmsghdr to receive into.</summary>
    MessagesOut,

    /// <summary>Signal mask that holds while the call waits; its size is in <see cref="ArgumentDescription.LengthArgument"/>.</summary>
    SignalMask,

    /// <summary>pselect6's sixth argument: address and size of a signal mask.</summary>
    SignalMaskPair,
}

/// <summary>Where the length of a memory argument comes from.</summary>
public enum LengthSource : byte
{
    /// <summary><see cref="ArgumentDescription.Size"/> itself.</summary>
    Fixed,

    /// <summary>A size_t or unsigned long argument, times <see cref="ArgumentDescription.Size"/>.</summary>
    Argument,

    /// <summary>An int argument, times <see cref="ArgumentDescription.Size"/>; the kernel refuses negative ones.</summary>
    IntArgument,

    /// <summary>The int at which another argument points (socklen_t), times <see cref="ArgumentDescription.Size"/>.</summary>
    Pointer,

    /// <summary>A set of descriptors: one bit for each below the int argument, in units of 64.</summary>
    Bits,

    /// <summary>The first 32 bits of the memory are its length (sched_attr).</summary>
    FirstWord,
}

/// <summary>How much of an output is copied to a process whose pointers are translated.</summary>
public enum CopyBack : byte
{
    /// <summary>All of it.</summary>
    Whole,

    /// <summary>As many bytes as the call returned.</summary>
    Result,

    /// <summary>As many elements as the call returned.</summary>
    ResultElements,
}

/// <summary>How a value is shown in a trace.</summary>
public enum ValueFormat : byte
{
    Int,
    Long,
    Unsigned,
    Hex,
    Mode,
    OpenFlags,
    CreateFlags,
    AtFlags,
    AccessMode,
    Protection,
    MapFlags,
    MemoryAdvice,
    SocketFamily,
    SocketType,
    SocketLevel,
    SocketOption,
    MessageFlags,
    CloneFlags,
    Signal,
    SignalAction,
    EpollOperation,
    Whence,
    Clock,
    FcntlCommand,
    IoctlRequest,
    PrctlOption,
    FutexOperation,
    ArchOption,
    Resource,
    WaitOptions,
    LockOperation,
    DescriptorFlags,
    RandomFlags,
    Shutdown,
}

/// <summary>What is shown of the memory an argument points to.</summary>
public enum MemoryFormat : byte
{
    /// <summary>Its address.</summary>
    Address,

    /// <summary>Characters, escaped and cut.</summary>
    Text,
    SocketAddress,
    Timespec,
    Timeval,
    EpollEvents,
    PollDescriptors,
    DescriptorSet,
    Int,
    IntPair,
    IntArray,
    Stat,
    SignalSet,
    SignalAction,
    StringArray,
    Limit,
    Long,
}

/// <summary>One argument of a system call: what the kernel reads or writes through it and how long that is.</summary>
public readonly record struct ArgumentDescription(ArgumentKind Kind)
{
    /// <summary>Most bytes the kernel moves in one read or write (MAX_RW_COUNT in include/linux/fs.h).</summary>
    public const long MaxTransfer = 0x7fff_f000;

    /// <summary>Bytes; of one element where the length counts elements.</summary>
    public int Size { get; init; }

    /// <summary>Where the length comes from.</summary>
    public LengthSource Length { get; init; }

    /// <summary>
    /// Index of the argument that holds the length. For a <see cref="ArgumentKind.Path"/> with a non-zero
    /// <see cref="Size"/>: index of the flags argument, and Size holds the flags that say "do not follow".
    /// </summary>
    public int LengthArgument { get; init; }

    /// <summary>Most bytes the kernel reads or writes whatever the length says.</summary>
    public long Limit { get; init; } = MaxTransfer;

    /// <summary>How much is copied back.</summary>
    public CopyBack CopyBack { get; init; }

    /// <summary>A shorter transfer than asked for is correct, so a huge one may be cut.</summary>
    public bool Partial { get; init; }

    /// <summary>The kernel writes it when the call was interrupted too (time left).</summary>
    public bool OnInterrupt { get; init; }

    /// <summary>The kernel follows the last component (as stat, not as lstat).</summary>
    public bool Follows { get; init; }

    /// <summary>Trace format of a value.</summary>
    public ValueFormat Format { get; init; }

    /// <summary>Trace format of what a pointer points to.</summary>
    public MemoryFormat Memory { get; init; }

    /// <summary>The kernel writes to the program's memory through this argument.</summary>
    public bool IsOutput => Kind is ArgumentKind.Out or ArgumentKind.InOut or ArgumentKind.VectorOut
        or ArgumentKind.MessageOut or ArgumentKind.MessagesOut or ArgumentKind.MessagesIn;
}
