using Privy.Hypervisor.Host;
using Privy.Hypervisor.Signals;
using Privy.Hypervisor.Syscalls;

namespace Privy.Hypervisor.Processes;

/// <summary>Signals of a process: its children's changes, and stopping.</summary>
internal sealed unsafe partial class GuestProcess
{
    private readonly ManualResetEventSlim _running = new(true);

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

        _running.Reset();
        Table.Report(this, ChildState.Stopped, (signal << 8) | 0x7F);
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

    private void Continue()
    {
        if (_running.IsSet)
            return;
        _running.Set();
        ThreadPool.QueueUserWorkItem(_ => Table.Report(this, ChildState.Continued, 0xFFFF));
    }
}
