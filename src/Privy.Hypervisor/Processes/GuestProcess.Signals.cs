using Privy.Hypervisor.Host;
using Privy.Hypervisor.Signals;
using Privy.Hypervisor.Syscalls;

namespace Privy.Hypervisor.Processes;

/// <summary>Signals of a process: its children's changes, and stopping.</summary>
internal sealed unsafe partial class GuestProcess
{
    private readonly ManualResetEventSlim _running = new(true);

    // Under the lock of the signals: how often the process has stopped or gone on, and that SIGCONT comes from the stand-in.
    private long _changes;
    private bool _standInContinues;

    // Also under the lock: the stop that is under way or holds began with the stand-in's own.
    private bool _standInStops;

    /// <summary>Actions and queue of the process.</summary>
    internal ProcessSignals Signals { get; private set; } = null!;

    /// <summary>True if children leave no zombie.</summary>
    internal bool IgnoresChildren => Signals.ReapsChildren;

    /// <summary>What a program started by exec finds ignored.</summary>
    internal SignalSet IgnoredSignals => Signals.Ignored;

    internal void SetSignals(ProcessSignals signals)
    {
        Signals = signals;
        signals.Continued = Continue;
    }

    /// <summary>A child has changed state: its parent gets the signal the child was made with.</summary>
    internal void NotifyChildChanged(GuestProcess child, ChildState state, int waitStatus)
    {
        const ulong noChildStop = 1; // SA_NOCLDSTOP
        var signal = state == ChildState.Exited ? child.ExitSignal : Signal.SIGCHLD;
        if (signal == 0 || (state != ChildState.Exited && (Signals[Signal.SIGCHLD].Flags & noChildStop) != 0))
            return;
        SignalInfo info = default;
        ChildSignal.Fill((int*)&info, child.Id, state, waitStatus);
        info.Number = signal;
        _ = Signals.Send(info);
    }

    /// <summary>Stops the process until SIGCONT or SIGKILL; called by the thread that took the signal.</summary>
    internal void Stop(int signal, GuestThread caller)
    {
        if (this == Table.Main)
        {
            // Stopping the host process stops everything, and its parent sees it as the program's.
            _ = HostSyscall.Raw(SyscallNumber.kill, (ulong)Environment.ProcessId, Signal.SIGSTOP);
            return;
        }

        long change = 0;
        if (!Signals.TryStop(() =>
        {
            if (!_running.IsSet)
                return;
            _running.Reset();
            change = ++_changes;
            // So that ps shows it. One that was stopped from outside may have been continued since, and would lose the SIGCONT that it has not handed on yet.
            if (!_standInStops)
                StandIn?.Send(Signal.SIGSTOP);
        }))
            return;
        // Whoever ends the process sets both in the other order.
        if (Ending)
            _running.Set();
        if (change != 0)
            Table.Report(this, ChildState.Stopped, (signal << 8) | 0x7F, change);
        foreach (var thread in Threads)
        {
            if (thread != caller)
                thread.Wake();
        }

        AwaitRunning();
    }

    /// <summary>Waits while the process is stopped.</summary>
    internal void AwaitRunning()
    {
        if (!_running.IsSet)
            _running.Wait();
    }

    /// <summary>The stand-in has been found stopped: unless that is because the process is, somebody outside has stopped it, and means the process.</summary>
    internal void StopWithStandIn()
    {
        lock (Signals.Gate)
        {
            if (!_running.IsSet || StandIn is not { IsStopped: true })
                return;
            _standInStops = true;
            _ = Signals.Send(SignalInfo.FromProcess(Signal.SIGSTOP, SignalInfo.SI_USER, 0, 0));
        }
    }

    /// <summary>Waits until what Linux keeps for a process can be set for the stand-in without setting it for the hypervisor. False where it never can.</summary>
    internal bool PrepareSettings()
    {
        if (StandIn is not { } standIn)
            return false;
        // Found stopped it may be a moment after its process is.
        var ready = standIn.AwaitOwnMemory(!_running.IsSet, out var continued);
        lock (Signals.Gate)
        {
            if (continued && (!_running.IsSet || _standInStops))
                standIn.Send(Signal.SIGSTOP);
        }

        return ready;
    }

    /// <summary>A signal that the stand-in has got from outside.</summary>
    internal void SendFromStandIn(in SignalInfo info)
    {
        lock (Signals.Gate)
        {
            _standInContinues = true;
            _ = Signals.Send(info);
            _standInContinues = false;
        }
    }

    private void Continue(int signal)
    {
        _standInStops = false;
        // Even if it is not known to be stopped: it may have been by somebody outside, a moment ago. One that hands SIGCONT on goes on already, and may have been stopped anew.
        if (signal == Signal.SIGCONT && !_standInContinues)
            StandIn?.Send(Signal.SIGCONT);
        if (_running.IsSet)
            return;
        _running.Set();
        // What SIGKILL ends has not gone on before.
        if (signal != Signal.SIGCONT)
            return;
        var change = ++_changes;
        ThreadPool.QueueUserWorkItem(_ => Table.Report(this, ChildState.Continued, 0xFFFF, change));
    }
}
