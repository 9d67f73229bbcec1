using Privy.Hypervisor.Syscalls;
using Privy.Kvm;

namespace Privy.Hypervisor.Signals;

/// <summary>What the delivery of signals needs of a program thread, beyond its system calls. Implemented by the guest thread; used on its host thread only.</summary>
public interface ISignalContext : ISyscallContext
{
    /// <summary>Signal state of the thread.</summary>
    ThreadSignals ThreadSignals { get; }

    /// <summary>Signal state of its process.</summary>
    ProcessSignals ProcessSignals { get; }

    /// <summary>Thread id as the program sees it.</summary>
    int ThreadId { get; }

    /// <summary>Real user id, for si_uid.</summary>
    int UserId { get; }

    /// <summary>The program's registers, as they are to be when it goes on. After a system call: rip behind the instruction, rax the result.</summary>
    ref GuestRegisters Registers { get; }

    /// <summary>
    /// Number of the system call that the thread comes from, negative if it comes from none (or the call must not be restarted). Whoever has dealt with a
    /// restart sets it to -1.
    /// </summary>
    long CallNumber { get; set; }

    /// <summary>The last fault, for err, trapno and cr2 of a frame.</summary>
    TrapDetails Trap { get; }

    /// <summary>Features of the extended state (XCR0) that frames contain.</summary>
    ulong XsaveFeatures { get; }

    /// <summary>Length of the extended state in standard format for <see cref="XsaveFeatures"/>; 576 at least.</summary>
    int XsaveLength { get; }

    /// <summary>Reads the extended state (standard format, <see cref="XsaveLength"/> bytes).</summary>
    void GetXsave(Span<byte> destination);

    /// <summary>Sets the extended state. The header has been checked.</summary>
    void SetXsave(ReadOnlySpan<byte> source);

    /// <summary>All processes of the program, main and snapshots, but not the native ones.</summary>
    IProcessDirectory Processes { get; }

    /// <summary>The process stops by this signal and tells its parent; returns when it is continued or killed. Every thread of it must stop.</summary>
    void StopProcess(int signal);
}

/// <summary>The last fault of a thread: hardware's vector, error code, address.</summary>
public readonly record struct TrapDetails(ulong Number, ulong ErrorCode, ulong Address);

/// <summary>Finds the processes and threads of the program.</summary>
public interface IProcessDirectory
{
    /// <summary>The process with that id, or null: then it is a native process, or none.</summary>
    ProcessSignals? FindProcess(int processId);

    /// <summary>The thread with that id in whatever process of the program, or null.</summary>
    ThreadSignals? FindThread(int threadId);

    /// <summary>The snapshots in a process group; 0: all of the program's snapshots. The main process is not among them: the host kernel knows its group.</summary>
    IReadOnlyList<ProcessSignals> SnapshotsOfGroup(int group);

    /// <summary>Process group of a process of the program.</summary>
    int GroupOf(int processId);

    /// <summary>Id in the host of the native process that a child of the program became by exec; 0: it is none.</summary>
    int NativeIdOf(int processId) => 0;

    /// <summary>True for a child of the program that has ended and that its parent has not waited for.</summary>
    bool IsZombie(int processId) => false;

    /// <summary>True for the id of a child of the program that is no more, but that the host still knows for a moment.</summary>
    bool IsLeaving(int processId) => false;

    /// <summary>True for a process group that the host knows and the program does not.</summary>
    bool HidesGroup(int group) => false;
}
