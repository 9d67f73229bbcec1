using System.Runtime.InteropServices;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Memory;

namespace Privy.Hypervisor.Processes;

/// <summary>What a parent can learn of a child with wait(2).</summary>
internal enum ChildState
{
    Running,
    Stopped,
    Continued,
    Exited,
}

/// <summary>
/// One process of the program: the main one, a forked child (a snapshot, run by threads of this host process), or a child that
/// called exec and is a native process since.
/// </summary>
internal sealed unsafe partial class GuestProcess
{
    private readonly List<GuestThread> _threads = [];
    private readonly int* _events;
    private ChildRunner? _separating;
    private bool _ending;

    internal GuestProcess(ProcessTable table, GuestProcess? parent, AddressSpace space, string programPath)
    {
        Table = table;
        Parent = parent;
        Space = space;
        ProgramPath = programPath;
        Limits = parent is null ? new ResourceLimits() : new ResourceLimits(parent.Limits);
        _events = (int*)NativeMemory.AllocZeroed(sizeof(int));
    }

    internal ProcessTable Table { get; }

    /// <summary>The process that forked it; null for main, and for a child whose parent has ended.</summary>
    internal GuestProcess? Parent { get; set; }

    internal AddressSpace Space { get; }

    /// <summary>True after vfork: the space is the parent's.</summary>
    internal bool SharesSpace { get; init; }

    /// <summary>A child that was just forked will copy this process' descriptors; see <see cref="AwaitSeparation"/>.</summary>
    internal void BeginSeparation(ChildRunner child) => Interlocked.Exchange(ref _separating, child)?.AwaitSeparation();

    /// <summary>
    /// Before a call, which may change descriptors: a child forked before has copied them. It does so on its own thread, and fork does not wait for a
    /// processor to wake up for that.
    /// </summary>
    internal void AwaitSeparation()
    {
        if (Volatile.Read(ref _separating) is not { } child)
            return;
        child.AwaitSeparation();
        _ = Interlocked.CompareExchange(ref _separating, null, child);
    }

    /// <summary>Its resource limits.</summary>
    internal ResourceLimits Limits { get; }

    /// <summary>Absolute path of the program.</summary>
    internal string ProgramPath { get; set; }

    /// <summary>Process id: the host process's for main, the stand-in's for a child; the thread id of its first host thread for a child that has none.</summary>
    internal int Id { get; set; }

    /// <summary>The process of the host that has the id of a forked child; null for main, after vfork, and where the host has refused one.</summary>
    internal StandIn? StandIn { get; set; }

    /// <summary>Id in the host of a forked child's first thread.</summary>
    internal int FirstHostThread { get; init; }

    /// <summary>Process group and session as the program sees them.</summary>
    internal int Group { get; set; }

    internal int Session { get; set; }

    /// <summary>The native process after exec in a child; 0: none.</summary>
    internal int NativeId { get; set; }

    /// <summary>When the native process began, or a little before, by <see cref="System.Diagnostics.Stopwatch.GetTimestamp"/>.</summary>
    internal long NativeSince { get; set; }

    /// <summary>It has a process of the host's in its group: the terminal's signals reach that.</summary>
    internal bool HearsTerminal { get; set; }

    /// <summary>After exec: makes the native process under this one's id, which the last thread must have left. Its id, or a negative errno.</summary>
    internal Func<long>? Successor { get; set; }

    /// <summary>Signal the parent gets when this process ends (clone's low byte).</summary>
    internal int ExitSignal { get; init; }

    /// <summary>State for wait(2); guarded by the table's lock.</summary>
    internal ChildState State { get; set; }

    /// <summary>Status as wait(2) reports it.</summary>
    internal int WaitStatus { get; set; }

    /// <summary>Number of the last stop or continuation that was reported; guarded by the table's lock.</summary>
    internal long ReportedChange { get; set; }

    /// <summary>The state has not been reported yet.</summary>
    internal bool StateIsNews { get; set; }

    /// <summary>Set when vfork's parent may go on: the child has called exec or ended.</summary>
    internal ManualResetEventSlim? VforkDone { get; init; }

    /// <summary>Status with which the process ends. Apart from <see cref="WaitStatus"/>, which a continuation that is reported late may still set.</summary>
    internal int ExitStatus { get; private set; }

    /// <summary>The process is ending with <see cref="ExitStatus"/>.</summary>
    internal bool Ending { get => Volatile.Read(ref _ending); private set => Volatile.Write(ref _ending, value); }

    /// <summary>Futex word that changes whenever a child changes state.</summary>
    internal int* Events => _events;

    /// <summary>True when no thread of it runs any more and it has not become a native process.</summary>
    internal bool Gone { get; set; }

    /// <summary>The threads, a copy.</summary>
    internal GuestThread[] Threads
    {
        get
        {
            lock (_threads)
                return [.. _threads];
        }
    }

    /// <summary>Adds the threads to a list.</summary>
    internal void AddThreadsTo(List<GuestThread> list)
    {
        lock (_threads)
            list.AddRange(_threads);
    }

    /// <summary>Adds a thread that has not run yet.</summary>
    internal void Add(GuestThread thread)
    {
        lock (_threads)
        {
            _threads.Add(thread);
            // Whoever ends the process has told the threads that there were.
            if (Ending)
                thread.ExitRequested = true;
        }
    }

    /// <summary>exit_group, or death by a signal: all threads end.</summary>
    internal void BeginExit(int waitStatus, GuestThread? caller)
    {
        lock (_threads)
        {
            if (Ending)
                return;
            Ending = true;
            ExitStatus = waitStatus;
        }

        // A thread that has stopped the process just now ends like the others.
        Interlocked.MemoryBarrier();
        _running.Set();
        foreach (var thread in Threads)
        {
            thread.ExitRequested = true;
            if (thread != caller)
                thread.Wake();
        }
    }

    /// <summary>Called by a thread, on its host thread, as the last thing it does in the program.</summary>
    internal void ThreadEnded(GuestThread thread)
    {
        bool last;
        lock (_threads)
        {
            _threads.Remove(thread);
            last = _threads.Count == 0;
        }

        if (!last)
        {
            thread.ReleaseVcpu();
            return;
        }

        Gone = Successor is null;
        Table.LastThreadEnded(this, thread);
    }

    /// <summary>Wakes threads that wait for children.</summary>
    internal void SignalEvent()
    {
        Interlocked.Increment(ref *_events);
        const long futex = 202;
        const ulong wakePrivate = 1 | 128;
        _ = HostSyscall.Raw(futex, (ulong)_events, wakePrivate, int.MaxValue);
    }
}
