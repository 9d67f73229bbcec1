namespace Privy.Hypervisor.Syscalls;

/// <summary>What a system call may ask of the thread that makes it. Implemented by the guest thread.</summary>
public interface ISyscallContext
{
    /// <summary>
    /// True in a snapshot: pages may be copies, so the host kernel must not be given the program's pointers (rule 6);
    /// everything goes through buffers filled by <see cref="TryRead"/> and <see cref="TryWrite"/>.
    /// </summary>
    bool Translates { get; }

    /// <summary>Process id as the program sees it.</summary>
    int ProcessId { get; }

    /// <summary>The host's id of what the program knows as a process or thread with this id, where that is another; 0: it is none, or has the same.</summary>
    int HostIdOf(int id) => 0;

    /// <summary>
    /// Sees to it that what Linux keeps for a process (oom_score_adj) can be changed for that one alone, by the id that the program knows. False: it cannot.
    /// </summary>
    bool PrepareSettings(int processId) => false;

    /// <summary>Absolute path of the program, for /proc/self/exe.</summary>
    string ProgramPath { get; }

    /// <summary>
    /// Rules 1 and 2, only where <see cref="Translates"/> is false: makes a range safe for the host kernel to write, and
    /// records it as an output of the call in flight until <see cref="EndOutputs"/>. Ranges may span mappings.
    /// </summary>
    /// <returns>False when some page is not mapped writable: the call fails with EFAULT.</returns>
    bool PrepareOutput(ulong address, ulong length);

    /// <summary>The call in flight has ended: forgets its outputs.</summary>
    void EndOutputs();

    /// <summary>Whether an address of main lies in a view of a snapshot, which the host keeps inaccessible; <see cref="TryRead"/> reads it.</summary>
    bool IsView(ulong address) => false;

    /// <summary>
    /// Only where <see cref="Translates"/> is false: whether an address is the program's, so that the host kernel may be told to read there.
    /// Everything else at the host's addresses is the hypervisor's.
    /// </summary>
    bool IsReachable(ulong address);

    /// <summary>Copies from the program's memory. False on a page that is not mapped readable.</summary>
    bool TryRead(ulong address, Span<byte> destination);

    /// <summary>
    /// Copies into the program's memory, in main too: a page that a snapshot still reads is copied for it first. False on a page that is not mapped
    /// writable.
    /// </summary>
    bool TryWrite(ulong address, ReadOnlySpan<byte> source);

    /// <summary>
    /// Makes a system call on the thread's host thread. A signal for the program interrupts it (EINTR), also when it
    /// arrived just before: then the kernel is not entered and the result is -<see cref="Host.Errno.ERESTARTNOINTR"/>, so that a
    /// call which never waits (close, fcntl) does not seem to be interrupted. Result as from the kernel: negative errno on failure.
    /// </summary>
    long HostCall(long number, ulong a0 = 0, ulong a1 = 0, ulong a2 = 0, ulong a3 = 0, ulong a4 = 0, ulong a5 = 0);

    /// <summary>Queues SIGPIPE to the calling thread, as the kernel does with a write that fails with EPIPE.</summary>
    void RaiseSigpipe();

    /// <summary>True for a descriptor of the hypervisor: the program must not see or close it.</summary>
    bool IsReservedDescriptor(int descriptor);

    /// <summary>The text of "stat" or "status" of the process in /proc, with the ids that the program knows. Only where <see cref="HostIdOf"/> says another than the process id.</summary>
    string ShowIdentity(string name) => "";

    /// <summary>The first such number from <paramref name="first"/> to <paramref name="last"/>; the one behind the last if there is none.</summary>
    int NextReservedDescriptor(int first, int last);

    /// <summary>The text of a file in /proc that lists the memory of the process, as the program is to see it.</summary>
    string ListMemory(MemoryReport report);

    /// <summary>Staging memory of this thread; reset when the system call ends.</summary>
    SyscallArena Arena { get; }

    /// <summary>
    /// Replaces the thread's signal mask until the current system call ends, as ppoll and sigsuspend do (TIF_RESTORE_SIGMASK in the
    /// kernel): when the call was interrupted, signals are delivered under this mask and the handler returns to the previous one;
    /// otherwise the previous mask is back before anything is delivered.
    /// </summary>
    void SetTemporarySignalMask(ulong mask);
}
