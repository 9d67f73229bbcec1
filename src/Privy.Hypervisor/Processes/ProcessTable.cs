using System.Diagnostics;
using Privy.Hypervisor.Boot;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Memory;
using Privy.Hypervisor.Polling;
using Privy.Hypervisor.Signals;
using Privy.Hypervisor.Sites;
using Privy.Hypervisor.Syscalls;

namespace Privy.Hypervisor.Processes;

/// <summary>All processes of the program, the machine they run on, and what is common to them.</summary>
internal sealed class ProcessTable(Machine machine, MainSpace mainSpace, Tracer? trace, SnapshotReserve reserve, PrecopyWorker? precopy) : IProcessDirectory
{
    private readonly Dictionary<int, GuestProcess> _processes = [];
    private readonly ManualResetEventSlim _mainEnded = new();
    private readonly List<ForkInProgress> _forks = [];

    /// <summary>Guards the tree of processes and their states.</summary>
    internal Lock Tree { get; } = new();

    internal Machine Machine { get; } = machine;

    internal MainSpace MainSpace { get; } = mainSpace;

    internal GuestProcess Main { get; private set; } = null!;

    /// <summary>Prints system calls; null when nobody asked.</summary>
    internal Tracer? Trace { get; } = trace;

    /// <summary>Arguments of Privy with which a program that main starts by exec runs as this one does.</summary>
    internal required IReadOnlyList<string> RestartArguments { get; init; }

    /// <summary>How system calls reach the host.</summary>
    internal required SyscallPolicy SyscallPolicy { get; init; }

    /// <summary>Makes the main process' calls without exits.</summary>
    internal required SyscallPoller Poller { get; init; }

    /// <summary>Where main's first thread calls the system often; null where no call is worth a change of the program's code.</summary>
    internal SyscallSites? Sites { get; init; }

    internal SnapshotStatistics Snapshots { get; } = new();

    /// <summary>Host threads ready to become forked children.</summary>
    internal ReadyChildren Ready { get; } = new(machine, reserve, precopy);

    /// <summary>What the world outside sees of forked children.</summary>
    internal StandIns StandIns { get; } = new();

    internal void SetMain(GuestProcess process)
    {
        Main = process;
        Add(process);
    }

    internal void Add(GuestProcess process)
    {
        lock (Tree)
            _processes[process.Id] = process;
    }

    /// <summary>
    /// A fork begins: what the terminal sends to the process group from now on is the child's, too (kernel/fork.c, struct multiprocess_signals). Neither would hear of it otherwise: the
    /// parent takes it after the fork, and the child is not there yet.
    /// </summary>
    internal ForkInProgress BeginFork(GuestProcess parent)
    {
        var fork = new ForkInProgress(this);
        lock (Tree)
        {
            if (parent.Group == Main.Group)
                _forks.Add(fork);
        }

        return fork;
    }

    internal GuestProcess? Find(int id)
    {
        lock (Tree)
            return _processes.GetValueOrDefault(id);
    }

    internal GuestProcess[] All()
    {
        lock (Tree)
            return [.. _processes.Values];
    }

    /// <summary>All threads that run in a space: a process', and those of a child that shares its memory until exec (vfork).</summary>
    internal List<GuestThread> ThreadsIn(AddressSpace space)
    {
        var threads = new List<GuestThread>();
        lock (Tree)
        {
            foreach (var process in _processes.Values)
            {
                if (process.Space == space)
                    process.AddThreadsTo(threads);
            }
        }

        return threads;
    }

    /// <inheritdoc/>
    public ProcessSignals? FindProcess(int processId) => Find(processId) is { NativeId: 0, State: not ChildState.Exited } process ? process.Signals : null;

    /// <inheritdoc/>
    public ThreadSignals? FindThread(int threadId)
    {
        foreach (var process in All())
        {
            foreach (var thread in process.Threads)
            {
                if (!thread.Left && thread.ThreadSignals is { } signals && signals.ThreadId == threadId)
                    return signals;
            }
        }

        return null;
    }

    /// <summary>
    /// The thread of the host behind a process or thread id, where that is another: the first thread of a forked child, or the native process that a child has become. 0: none.
    /// </summary>
    internal int HostIdOf(int id) => Find(id) switch
    {
        null or { State: ChildState.Exited } => 0,
        { NativeId: not 0 and var native } => native == id ? 0 : native,
        { StandIn: not null, FirstHostThread: var thread } => thread,
        _ => 0,
    };

    /// <inheritdoc/>
    public IReadOnlyList<ProcessSignals> SnapshotsOfGroup(int group) =>
        [.. All().Where(p => p != Main && p.NativeId == 0 && p.State != ChildState.Exited && (group == 0 || p.Group == group)).Select(p => p.Signals)];

    /// <inheritdoc/>
    public int NativeIdOf(int processId) => Find(processId) is { State: not ChildState.Exited, NativeId: var id } ? id : 0;

    /// <inheritdoc/>
    public bool IsZombie(int processId) => Find(processId) is { State: ChildState.Exited };

    /// <inheritdoc/>
    public bool IsLeaving(int processId) => StandIns.IsLeaving(processId);

    /// <inheritdoc/>
    public bool HidesGroup(int group)
    {
        var processes = All();
        // A stand-in leads a group, whether the child it stands for does or not.
        return Array.Exists(processes, p => p.Id == group && p.StandIn is not null) && !Array.Exists(processes, p => p.Group == group);
    }

    /// <inheritdoc/>
    public int GroupOf(int processId) => Find(processId)?.Group ?? 0;

    internal List<GuestProcess> ChildrenOf(GuestProcess parent)
    {
        var found = new List<GuestProcess>();
        foreach (var process in _processes.Values)
        {
            if (process.Parent == parent)
                found.Add(process);
        }

        return found;
    }

    /// <summary>Takes a process out of the table: its parent has waited for it, or nobody will.</summary>
    internal void Remove(GuestProcess process)
    {
        lock (Tree)
            Forget(process);
    }

    private void Forget(GuestProcess process)
    {
        if (_processes.Remove(process.Id) && process.StandIn is { } standIn)
            StandIns.Leave(standIn);
    }

    /// <summary>A state change that a parent may wait for.</summary>
    /// <param name="process">The child.</param>
    /// <param name="state">Its state.</param>
    /// <param name="waitStatus">As wait(2) tells it.</param>
    /// <param name="change">For stops and continuations, which different threads report: their number in order.</param>
    internal void Report(GuestProcess process, ChildState state, int waitStatus, long change = long.MaxValue)
    {
        GuestProcess? parent;
        if (state == ChildState.Exited && process.StandIn is not null)
            StandIns.Ended(process);
        lock (Tree)
        {
            // Overtaken by what came after it.
            if (process.State == ChildState.Exited || change < process.ReportedChange)
                return;
            if (change != long.MaxValue)
                process.ReportedChange = change;
            process.State = state;
            process.WaitStatus = waitStatus;
            process.StateIsNews = true;
            parent = process.Parent;
            if (state == ChildState.Exited)
            {
                foreach (var orphan in ChildrenOf(process))
                {
                    orphan.Parent = null;
                    if (orphan.State == ChildState.Exited)
                        Forget(orphan);
                }

                if (parent is null || parent.IgnoresChildren)
                    Forget(process);
            }
        }

        process.VforkDone?.Set();
        if (parent is null)
            return;
        parent.NotifyChildChanged(process, state, waitStatus);
        parent.SignalEvent();
    }

    /// <summary>The last thread of a process has left the program.</summary>
    internal void LastThreadEnded(GuestProcess process, GuestThread thread)
    {
        if (process == Main)
        {
            thread.ReleaseVcpu();
            _mainEnded.Set();
            return;
        }

        var vcpu = thread.Vcpu;
        // As early as may be: it must be gone when the parent waits, or before the child's successor can be made.
        if (process.NativeId == 0)
            StandIns.Ended(process);
        thread.ReleaseSnapshot();
        // The child's descriptors close before its parent hears of the end, as natively: a reader of a pipe must see its end. This
        // thread has its own table, and needs no descriptor any more.
        if (process.Successor is { } successor)
        {
            // By a thread that shares this one's descriptors: this one's id becomes the new process'.
            new Thread(() => BecomeNative(process, successor), 256 * 1024) { IsBackground = true, Name = "privy-exec" }.Start();
            Machine.ReturnVcpu(vcpu);
            return;
        }

        ErrorOutput.CloseAllOthers();
        if (process.NativeId != 0)
            NativeChild.Await(process);
        else
            Report(process, ChildState.Exited, process.ExitStatus);
        Machine.ReturnVcpu(vcpu);
    }

    private void BecomeNative(GuestProcess process, Func<long> successor)
    {
        process.NativeSince = Stopwatch.GetTimestamp();
        var id = successor();
        ErrorOutput.CloseAllOthers();
        if (id > 0)
        {
            process.NativeId = (int)id;
            process.Signals.BecomeNative((int)id);
            process.VforkDone?.Set();
        }
        else
        {
            const int notExecuted = 127 << 8;
            Report(process, ChildState.Exited, notExecuted);
        }

        process.Gone = true;
        if (id > 0)
            NativeChild.Await(process);
    }

    /// <summary>A signal from outside: for main, and one from the terminal for the children in its group as well.</summary>
    internal void Forward(SignalInfo info)
    {
        GuestProcess[] processes;
        // At one instant, or a child that main makes once it has taken the signal would get it, too; and to main first, which must not hear of a child's end by it before.
        lock (Tree)
        {
            _ = Main.Signals.Send(info);
            if (info.Code != SignalInfo.SI_KERNEL)
                return;
            foreach (var fork in _forks)
                fork.Signals.Add(info);
            processes = All();
        }

        foreach (var child in processes)
        {
            if (child != Main && child.Group == Main.Group && child is { HearsTerminal: false, State: not ChildState.Exited })
                _ = child.Signals.Send(info);
        }
    }

    /// <summary>Waits until main has ended and no forked child runs in this host process any more.</summary>
    internal void WaitForEnd()
    {
        _mainEnded.Wait();
        // A child that outlives its parent (a daemon that forked) lives in this process: it must not be taken down with it.
        for (var closed = false; All().Any(p => p != Main && !p.Gone); Thread.Sleep(5))
        {
            if (!closed)
                ProgramDescriptors.CloseAll();
            closed = true;
        }
    }

    /// <summary>A fork that has begun; it ends with a child, or without one when this is disposed of.</summary>
    internal sealed class ForkInProgress(ProcessTable table) : IDisposable
    {
        /// <summary>What has come for the child.</summary>
        internal List<SignalInfo> Signals { get; } = [];

        /// <summary>The child is in the table from now on.</summary>
        internal void Complete(GuestProcess child)
        {
            lock (table.Tree)
            {
                _ = table._forks.Remove(this);
                table.Add(child);
            }

            foreach (var info in Signals)
                _ = child.Signals.Send(info);
        }

        public void Dispose()
        {
            lock (table.Tree)
                _ = table._forks.Remove(this);
        }
    }
}
