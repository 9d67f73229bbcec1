using Privy.Hypervisor.Host;

namespace Privy.Hypervisor.Signals;

/// <summary>Signal state of one process of the program: what it does with each signal, and what is pending for it as a whole.</summary>
public sealed class ProcessSignals
{
    // RLIMIT_SIGPENDING is per user and large; this only bounds memory.
    private const int QueueLimit = 65536;

    internal readonly Lock Gate = new();
    internal readonly SignalQueue Shared = new();
    internal readonly List<ThreadSignals> Members = [];
    private readonly SignalAction[] _actions = new SignalAction[Signal.Count + 1];
    private SignalSet _everBlocked;
    private bool _stopTaken;
    private int _native;
    private Func<SignalInfo, int>? _successor;
    private Func<int, HostDisposition, bool>? _host;

    /// <summary>A process with default actions.</summary>
    /// <param name="processId">Its id as the program sees it.</param>
    /// <param name="ignored">Signals that it is started with as ignored.</param>
    public ProcessSignals(int processId, SignalSet ignored = default)
    {
        ProcessId = processId;
        Timers = new ProcessTimers(this);
        for (int signal = 1; signal <= Signal.Count; signal++)
            if (ignored.Contains(signal))
                _actions[signal].Handler = SignalAction.SIG_IGN;
    }

    /// <summary>Process id.</summary>
    public int ProcessId { get; }

    /// <summary>Its timers. Not inherited by <see cref="Fork"/>.</summary>
    public ProcessTimers Timers { get; }

    /// <summary>Called, under the lock, when SIGCONT arrives or SIGKILL does, with the signal: a stopped process goes on. Never waits.</summary>
    public Action<int>? Continued { get; set; }

    /// <summary>Called, under the lock, with each signal that was queued: for signalfd. Never waits.</summary>
    public Action<ProcessSignals, int>? Queued { get; set; }

    /// <summary>The signals with SIG_IGN: what a program started by exec inherits.</summary>
    public SignalSet Ignored
    {
        get
        {
            lock (Gate)
            {
                var set = new SignalSet();
                for (int signal = 1; signal <= Signal.Count; signal++)
                    if (_actions[signal].Handler == SignalAction.SIG_IGN)
                        set = set.With(signal);
                return set;
            }
        }
    }

    /// <summary>True if children leave no zombie: SIGCHLD ignored, or SA_NOCLDWAIT.</summary>
    public bool ReapsChildren
    {
        get
        {
            SignalAction action = this[Signal.SIGCHLD];
            return action.Handler == SignalAction.SIG_IGN || action.Has(SignalAction.SA_NOCLDWAIT);
        }
    }

    /// <summary>What is done with a signal.</summary>
    public SignalAction this[int signal]
    {
        get
        {
            lock (Gate)
                return _actions[signal];
        }
    }

    /// <summary>
    /// Makes this the process that the world sees behind the host's process id: from now on its actions decide what the host does with signals from outside
    /// (<see cref="HostSignals.SetDisposition"/>).
    /// </summary>
    /// <param name="setDisposition">Sets what the host does with a signal.</param>
    /// <param name="blocked">What the first thread will block from its start.</param>
    public void BindHost(Func<int, HostDisposition, bool> setDisposition, SignalSet blocked = default)
    {
        lock (Gate)
        {
            _host = setDisposition;
            _everBlocked |= blocked;
            for (int signal = 1; signal <= Signal.Count; signal++)
                UpdateHost(signal);
        }
    }

    /// <summary>Sets an action; returns the old one. A signal that is now ignored is no longer pending (POSIX: sigaction, "Signal Actions").</summary>
    public SignalAction SetAction(int signal, SignalAction action)
    {
        action.Mask &= ~SignalSet.Unblockable.Bits;
        action.Flags &= SignalAction.Supported;
        lock (Gate)
        {
            SignalAction old = _actions[signal];
            _actions[signal] = action;
            if (IsIgnored(signal))
                DiscardEverywhere(SignalSet.Of(signal));
            UpdateHost(signal);
            return old;
        }
    }

    /// <summary>The signals of a child: the same actions, nothing pending.</summary>
    public ProcessSignals Fork(int processId)
    {
        var child = new ProcessSignals(processId);
        lock (Gate)
            _actions.CopyTo(child._actions, 0);
        return child;
    }

    /// <summary>What exec does: handlers become default, ignored signals stay ignored; timers of timer_create end. What is pending stays.</summary>
    /// <param name="thread">The thread that goes on: only what it blocks is blocked from now on.</param>
    /// <returns>Takes it back but for the timers, when the exec has failed.</returns>
    public Action Exec(ThreadSignals thread)
    {
        ArgumentNullException.ThrowIfNull(thread);
        var actions = new SignalAction[_actions.Length];
        SignalSet everBlocked;
        lock (Gate)
        {
            _actions.CopyTo(actions, 0);
            (everBlocked, _everBlocked) = (_everBlocked, thread.MaskUnderGate);
            for (int signal = 1; signal <= Signal.Count; signal++)
            {
                _actions[signal] = new SignalAction { Handler = _actions[signal].Handler == SignalAction.SIG_IGN ? SignalAction.SIG_IGN : SignalAction.SIG_DFL };
                UpdateHost(signal);
            }
        }
        Timers.DeleteAll();
        return () =>
        {
            lock (Gate)
            {
                _successor = null;
                actions.CopyTo(_actions, 0);
                _everBlocked |= everBlocked;
                for (int signal = 1; signal <= Signal.Count; signal++)
                    UpdateHost(signal);
            }
        };
    }

    /// <summary>What is pending for the process and its thread, and what comes from now on, goes to what comes after exec.</summary>
    internal void HandOver(ThreadSignals thread, Func<SignalInfo, int> successor)
    {
        lock (Gate)
        {
            _successor = successor;
            while (thread.Queue.TryTake(~default(SignalSet), out SignalInfo info) || Shared.TryTake(~default(SignalSet), out info))
                successor(info);
        }
    }

    /// <summary>Sends a signal to the process.</summary>
    /// <returns>0, or -EAGAIN if a real-time signal finds no room.</returns>
    public int Send(in SignalInfo info) => Send(info, null, null);

    /// <summary>Sends a signal to one thread of the process.</summary>
    /// <returns>0, or -EAGAIN if a real-time signal finds no room.</returns>
    public int Send(in SignalInfo info, ThreadSignals thread)
    {
        ArgumentNullException.ThrowIfNull(thread);
        return Send(info, thread, null);
    }

    /// <summary>
    /// A fault of the thread itself. Blocked or ignored, it ends the process all the same: the instruction cannot go on (kernel/signal.c, force_sig_info).
    /// </summary>
    public void Force(in SignalInfo info, ThreadSignals thread)
    {
        ArgumentNullException.ThrowIfNull(thread);
        int signal = info.Number;
        lock (Gate)
        {
            bool blocked = thread.MaskUnderGate.Contains(signal);
            if (blocked || _actions[signal].Handler == SignalAction.SIG_IGN)
            {
                _actions[signal] = default;
                thread.MaskUnderGate = thread.MaskUnderGate.Without(signal);
                UpdateHost(signal);
            }
            thread.Queue.TryAdd(info, null, int.MaxValue);
            thread.Wake();
        }
    }

    /// <summary>
    /// A native process is about to take this one's place: has it have what is pending. Not what stops, which nobody would hear of before <see cref="BecomeNative"/>.
    /// </summary>
    /// <returns>What it has got, to be given back if it fails.</returns>
    internal List<SignalInfo> HandTo(int id)
    {
        lock (Gate)
            return Deliver(id, ~SignalSet.Stopping);
    }

    /// <summary>The process is a native one from now on: what is pending and what comes goes to that.</summary>
    public void BecomeNative(int id)
    {
        lock (Gate)
        {
            _native = id;
            _ = Deliver(id, ~default(SignalSet));
        }
    }

    private List<SignalInfo> Deliver(int native, SignalSet signals)
    {
        List<SignalInfo> delivered = [];
        while (Shared.TryTake(signals, out SignalInfo info))
        {
            HostSyscall.RawQuick(HostCallNumber.Kill, (ulong)native, (ulong)info.Number);
            delivered.Add(info);
        }
        return delivered;
    }

    internal int Send(in SignalInfo info, ThreadSignals? target, PosixTimer? timer)
    {
        int signal = info.Number;
        lock (Gate)
        {
            if (_native != 0)
                return (int)HostSyscall.RawQuick(HostCallNumber.Kill, (ulong)_native, (ulong)signal);
            if (_successor is not null)
                return _successor(info);
            if (signal == Signal.SIGCONT)
            {
                DiscardEverywhere(SignalSet.Stopping);
                _stopTaken = false;
                Continued?.Invoke(signal);
            }
            else if (SignalSet.Stopping.Contains(signal))
                DiscardEverywhere(SignalSet.Of(Signal.SIGCONT));

            if (IsIgnored(signal) && !IsBlocked(signal, target))
                return 0;
            if (!(target?.Queue ?? Shared).TryAdd(info, timer, QueueLimit))
                return -Errno.EAGAIN;
            Queued?.Invoke(this, signal);
            if (signal == Signal.SIGKILL)
            {
                _stopTaken = false;
                Continued?.Invoke(signal);
                foreach (ThreadSignals member in Members)
                    member.Wake();
            }
            else if (target is not null)
            {
                if (Wants(target, signal))
                    target.Wake();
            }
            else
                WakeOne(signal, null);
            return 0;
        }
    }

    /// <summary>
    /// Takes the next signal that the thread may see, its own before the process's, with what is to be done about it. Not for a thread in sigtimedwait.
    /// </summary>
    public bool TryDequeue(ThreadSignals thread, out SignalInfo info, out SignalAction action)
    {
        ArgumentNullException.ThrowIfNull(thread);
        lock (Gate)
        {
            action = default;
            // SIGKILL comes before anything else, whichever queue it is in.
            if (thread.Queue.TryTake(SignalSet.Of(Signal.SIGKILL), out info) || Shared.TryTake(SignalSet.Of(Signal.SIGKILL), out info))
                return true;
            SignalSet allowed = ~thread.MaskUnderGate;
            if (!thread.Queue.TryTake(allowed, out info) && !Shared.TryTake(allowed, out info))
                return false;
            action = _actions[info.Number];
            _stopTaken |= SignalSet.Stopping.Contains(info.Number);
            if (action.HasHandler && action.Has(SignalAction.SA_RESETHAND))
            {
                _actions[info.Number].Handler = SignalAction.SIG_DFL;
                UpdateHost(info.Number);
            }
            return true;
        }
    }

    /// <summary>
    /// A thread has taken a signal that stops the process: stops it, under the lock, unless a SIGCONT or a SIGKILL has come since (kernel/signal.c, JOBCTL_STOP_DEQUEUED).
    /// </summary>
    public bool TryStop(Action stop)
    {
        ArgumentNullException.ThrowIfNull(stop);
        lock (Gate)
        {
            if (!_stopTaken)
                return false;
            stop();
            return true;
        }
    }

    /// <summary>Takes one of the given signals, blocked or not: sigtimedwait, signalfd.</summary>
    public bool TryTake(ThreadSignals thread, SignalSet signals, out SignalInfo info)
    {
        ArgumentNullException.ThrowIfNull(thread);
        lock (Gate)
            return thread.Queue.TryTake(signals, out info) || Shared.TryTake(signals, out info);
    }

    /// <summary>Pending for the thread or its process, blocked or not.</summary>
    public SignalSet Pending(ThreadSignals thread)
    {
        ArgumentNullException.ThrowIfNull(thread);
        lock (Gate)
            return thread.Queue.Pending | Shared.Pending;
    }

    /// <summary>True if one of the signals is pending for the process or one of its threads.</summary>
    internal bool IsPending(SignalSet signals)
    {
        lock (Gate)
        {
            var pending = Shared.Pending;
            foreach (ThreadSignals member in Members)
                pending |= member.Queue.Pending;
            return !(pending & signals).IsEmpty;
        }
    }

    internal void SetMask(ThreadSignals thread, SignalSet mask, bool wake)
    {
        lock (Gate)
        {
            SignalSet old = thread.MaskUnderGate;
            thread.MaskUnderGate = mask;
            SignalSet added = thread.MaskUnderGate & ~old;
            // What waited for this: the next interruptible call, or the return to the program, comes to it. A call with a temporary mask relies on that.
            if (wake && !((thread.Queue.Pending | Shared.Pending) & ~thread.MaskUnderGate).IsEmpty)
                thread.Wake();
            if (added.IsEmpty)
                return;
            NoteBlocked(added);
            // The thread may have been woken for a signal that it now blocks: another one must take it.
            Retarget(Shared.Pending & added, thread);
        }
    }

    internal void SetAwaited(ThreadSignals thread, SignalSet awaited)
    {
        lock (Gate)
        {
            thread.Awaited = awaited;
            NoteBlocked(awaited);
        }
    }

    internal void Retarget(SignalSet signals, ThreadSignals except)
    {
        for (int signal = 1; !signals.IsEmpty && signal <= Signal.Count; signal++)
            if (signals.Contains(signal))
            {
                signals = signals.Without(signal);
                WakeOne(signal, except);
            }
    }

    /// <summary>
    /// A signal that was blocked once is from then on always taken from the host into the queues here: the kernel must not carry out its default action
    /// while the program blocks it, and threads change their masks too often to tell the host each time.
    /// </summary>
    internal void NoteBlocked(SignalSet signals)
    {
        SignalSet added = signals & ~_everBlocked;
        if (added.IsEmpty)
            return;
        _everBlocked |= added;
        for (int signal = 1; signal <= Signal.Count; signal++)
            if (added.Contains(signal))
                UpdateHost(signal);
    }

    private void WakeOne(int signal, ThreadSignals? except)
    {
        foreach (ThreadSignals member in Members)
            if (member != except && Wants(member, signal))
            {
                member.Wake();
                return;
            }
    }

    private static bool Wants(ThreadSignals thread, int signal) => !thread.MaskUnderGate.Contains(signal) || thread.Awaited.Contains(signal);

    private bool IsIgnored(int signal) =>
        _actions[signal].Handler == SignalAction.SIG_IGN
        || (_actions[signal].Handler == SignalAction.SIG_DFL && Signal.Default(signal) is DefaultAction.Ignore or DefaultAction.Continue);

    // A blocked signal stays pending even if ignored: its action may change before it is unblocked, and sigwait takes it.
    private bool IsBlocked(int signal, ThreadSignals? target)
    {
        if (target is not null)
            return target.MaskUnderGate.Contains(signal);
        foreach (ThreadSignals member in Members)
            if (member.MaskUnderGate.Contains(signal))
                return true;
        return false;
    }

    private void DiscardEverywhere(SignalSet signals)
    {
        Shared.Discard(signals);
        foreach (ThreadSignals member in Members)
            member.Queue.Discard(signals);
    }

    private void UpdateHost(int signal)
    {
        // SIGCHLD of the host is about its own children: ignoring it would make the kernel reap them.
        if (_host is null || signal == Signal.SIGCHLD)
            return;
        // Stopping at the terminal stays the kernel's affair: it is part of its reads and writes there.
        bool terminal = SignalSet.Stopping.Contains(signal);
        _host(signal, _actions[signal].Handler switch
        {
            SignalAction.SIG_IGN => HostDisposition.Ignore,
            SignalAction.SIG_DFL when terminal || !_everBlocked.Contains(signal) => HostDisposition.Default,
            _ => HostDisposition.Forward,
        });
    }
}
