using Privy.Hypervisor.Signals;

namespace Privy.Hypervisor.Tests.Signals;

public class QueueTests
{
    [Fact]
    public void A_standard_signal_is_pending_once_and_keeps_its_first_details()
    {
        using var context = new FakeContext();
        context.Handle(Signal.SIGUSR1);
        context.ThreadSignals.Mask = SignalSet.Of(Signal.SIGUSR1);
        context.ProcessSignals.Send(FakeContext.User(Signal.SIGUSR1, 1));
        context.ProcessSignals.Send(FakeContext.User(Signal.SIGUSR1, 2));
        Assert.False(context.ProcessSignals.TryDequeue(context.ThreadSignals, out _, out _));
        context.ThreadSignals.Mask = default;
        Assert.True(context.ProcessSignals.TryDequeue(context.ThreadSignals, out SignalInfo info, out SignalAction action));
        Assert.Equal((Signal.SIGUSR1, 1ul, 0x401000ul), (info.Number, info.Value, action.Handler));
        Assert.False(context.ProcessSignals.TryDequeue(context.ThreadSignals, out _, out _));
    }

    [Fact]
    public void Real_time_signals_queue_in_order_lowest_number_first_after_faults()
    {
        using var context = new FakeContext();
        foreach (int signal in new[] { 40, 35, Signal.SIGSEGV, Signal.SIGUSR1 })
            context.Handle(signal);
        context.ThreadSignals.Mask = ~default(SignalSet);
        foreach ((int signal, ulong value) in new[] { (40, 1ul), (35, 2ul), (40, 3ul), (35, 4ul), (Signal.SIGUSR1, 5ul), (Signal.SIGSEGV, 6ul) })
            context.ProcessSignals.Send(FakeContext.User(signal, value));
        context.ThreadSignals.Mask = default;
        var order = new List<ulong>();
        while (context.ProcessSignals.TryDequeue(context.ThreadSignals, out SignalInfo info, out _))
            order.Add(info.Value);
        Assert.Equal([6ul, 5, 2, 4, 1, 3], order);
    }

    [Fact]
    public void The_threads_own_signals_come_before_the_processs()
    {
        using var context = new FakeContext();
        context.Handle(Signal.SIGUSR1);
        context.Handle(Signal.SIGUSR2);
        context.ProcessSignals.Send(FakeContext.User(Signal.SIGUSR1));
        context.ProcessSignals.Send(FakeContext.User(Signal.SIGUSR2), context.ThreadSignals);
        context.ProcessSignals.TryDequeue(context.ThreadSignals, out SignalInfo info, out _);
        Assert.Equal(Signal.SIGUSR2, info.Number);
    }

    [Fact]
    public void Ignored_signals_vanish_unless_blocked()
    {
        using var context = new FakeContext();
        context.ProcessSignals.Send(FakeContext.User(Signal.SIGCHLD));
        Assert.False(context.ThreadSignals.HasDeliverable);
        context.ThreadSignals.Mask = SignalSet.Of(Signal.SIGCHLD);
        context.ProcessSignals.Send(FakeContext.User(Signal.SIGCHLD));
        Assert.True(context.ProcessSignals.Pending(context.ThreadSignals).Contains(Signal.SIGCHLD));
        context.ProcessSignals.SetAction(Signal.SIGCHLD, new SignalAction { Handler = SignalAction.SIG_IGN });
        Assert.True(context.ProcessSignals.Pending(context.ThreadSignals).IsEmpty);
    }

    [Fact]
    public void Continue_and_stop_discard_each_other()
    {
        using var context = new FakeContext();
        int continued = 0;
        context.ProcessSignals.Continued = signal => continued = signal;
        context.ThreadSignals.Mask = ~default(SignalSet);
        context.ProcessSignals.Send(FakeContext.User(Signal.SIGTSTP));
        context.ProcessSignals.Send(FakeContext.User(Signal.SIGCONT), context.ThreadSignals);
        Assert.Equal(Signal.SIGCONT, continued);
        Assert.Equal(SignalSet.Of(Signal.SIGCONT), context.ProcessSignals.Pending(context.ThreadSignals));
        context.ProcessSignals.Send(FakeContext.User(Signal.SIGTTIN));
        Assert.Equal(SignalSet.Of(Signal.SIGTTIN), context.ProcessSignals.Pending(context.ThreadSignals));
    }

    /// <summary>The signal is in nobody's queue any more, and the process does not stand yet.</summary>
    [Theory]
    [InlineData(Signal.SIGCONT)]
    [InlineData(Signal.SIGKILL)]
    public void What_continues_a_process_takes_back_a_stop_that_a_thread_has_taken(int signal)
    {
        using var context = new FakeContext();
        int stops = 0;
        context.ProcessSignals.Send(FakeContext.User(Signal.SIGSTOP));
        Assert.True(context.ProcessSignals.TryDequeue(context.ThreadSignals, out _, out _));
        Assert.True(context.ProcessSignals.TryStop(() => stops++));
        context.ProcessSignals.Send(FakeContext.User(Signal.SIGSTOP));
        Assert.True(context.ProcessSignals.TryDequeue(context.ThreadSignals, out _, out _));
        context.ProcessSignals.Send(FakeContext.User(signal));
        Assert.False(context.ProcessSignals.TryStop(() => stops++));
        Assert.Equal(1, stops);
    }

    [Fact]
    public void A_thread_that_does_not_block_is_woken_and_a_mask_hands_over()
    {
        using var first = new FakeContext();
        using var second = new FakeContext(first.ProcessSignals);
        first.Handle(Signal.SIGUSR1);
        first.ThreadSignals.Mask = SignalSet.Of(Signal.SIGUSR1);
        first.ProcessSignals.Send(FakeContext.User(Signal.SIGUSR1));
        Assert.Equal((0, 1), (first.Wakes, second.Wakes));
        first.ThreadSignals.Mask = default; // It may take it now, too.
        Assert.Equal(1, first.Wakes);
        second.ThreadSignals.Mask = SignalSet.Of(Signal.SIGUSR1);
        Assert.Equal(2, first.Wakes);
    }

    [Fact]
    public void Fork_copies_actions_and_nothing_pending_and_exec_resets_handlers()
    {
        using var context = new FakeContext();
        context.Handle(Signal.SIGUSR1);
        context.ProcessSignals.SetAction(Signal.SIGUSR2, new SignalAction { Handler = SignalAction.SIG_IGN });
        context.ProcessSignals.Send(FakeContext.User(Signal.SIGUSR1));
        ProcessSignals child = context.ProcessSignals.Fork(77);
        using var thread = new FakeContext(child);
        Assert.True(child.Pending(thread.ThreadSignals).IsEmpty);
        Assert.Equal(0x401000ul, child[Signal.SIGUSR1].Handler);
        Action takeBack = child.Exec(thread.ThreadSignals);
        Assert.Equal((SignalAction.SIG_DFL, SignalAction.SIG_IGN), (child[Signal.SIGUSR1].Handler, child[Signal.SIGUSR2].Handler));
        Assert.Equal(SignalSet.Of(Signal.SIGUSR2), child.Ignored);
        takeBack();
        Assert.Equal((0x401000ul, SignalAction.SIG_IGN), (child[Signal.SIGUSR1].Handler, child[Signal.SIGUSR2].Handler));
        Assert.Equal(0x401000ul, context.ProcessSignals[Signal.SIGUSR1].Handler);
    }

    [Fact]
    public void The_host_follows_the_actions()
    {
        using var context = new FakeContext();
        var host = new Dictionary<int, Privy.Hypervisor.Host.HostDisposition>();
        context.ProcessSignals.BindHost((signal, disposition) => { host[signal] = disposition; return true; });
        Assert.Equal(Privy.Hypervisor.Host.HostDisposition.Default, host[Signal.SIGTERM]);
        context.Handle(Signal.SIGTERM);
        Assert.Equal(Privy.Hypervisor.Host.HostDisposition.Forward, host[Signal.SIGTERM]);
        context.ProcessSignals.SetAction(Signal.SIGTERM, new SignalAction { Handler = SignalAction.SIG_IGN });
        Assert.Equal(Privy.Hypervisor.Host.HostDisposition.Ignore, host[Signal.SIGTERM]);
        context.ProcessSignals.SetAction(Signal.SIGTERM, default);
        Assert.Equal(Privy.Hypervisor.Host.HostDisposition.Default, host[Signal.SIGTERM]);
        // Blocked: the kernel must not kill the process by default.
        context.ThreadSignals.Mask = SignalSet.Of(Signal.SIGTERM);
        Assert.Equal(Privy.Hypervisor.Host.HostDisposition.Forward, host[Signal.SIGTERM]);
        Assert.False(host.ContainsKey(Signal.SIGCHLD));
    }
}
