using Privy.Hypervisor.Signals;

namespace Privy.Hypervisor;

/// <summary>What to run as a privileged process, and how.</summary>
public sealed record RunOptions
{
    /// <summary>The program as the user named it, which is also its argv[0]: a path, or a name to look up in PATH (<see cref="ProgramSearch"/>).</summary>
    public required string Program { get; init; }

    /// <summary>The program's arguments, without argv[0].</summary>
    public string[] Arguments { get; init; } = [];

    /// <summary>argv[0], where it is not <see cref="Program"/>.</summary>
    public string? ProgramName { get; init; }

    /// <summary>
    /// The signals that a program which was replaced by this one by execve has left blocked and ignored: they are the program's, while the host's are
    /// only there to keep what came meanwhile. Null: what the host process was started with counts.
    /// </summary>
    public (SignalSet Blocked, SignalSet Ignored)? Signals { get; init; }

    /// <summary>Upper bound of the guest's memory in bytes; null lets the hypervisor choose.</summary>
    public long? MemoryBytes { get; init; }

    /// <summary>
    /// Most memory that copies made ahead of the program's writes may take while a snapshot lives; 0: none are made, null: half of what
    /// the system has to spare. A size also turns on the thread that copies in the background, which otherwise runs where there are
    /// processors enough for it.
    /// </summary>
    public long? PrecopyBytes { get; init; }

    /// <summary>Where to write a line per system call: a file's path, "-" for standard error, null for nowhere.</summary>
    public string? TraceFile { get; init; }

    /// <summary>How system calls reach the host.</summary>
    public SyscallPolicy Syscalls { get; init; }

    /// <summary>Whether the program's most used system calls may be made to enter the guest's stub without SYSCALL, where that is slow, by a change of its code.</summary>
    public bool RewriteSyscalls { get; init; } = true;

    /// <summary>Print counters (exits, faults, copies, snapshots) to standard error when the program ends.</summary>
    public bool Stats { get; init; }
}
