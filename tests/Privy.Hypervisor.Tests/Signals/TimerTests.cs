using System.Diagnostics;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Signals;
using Privy.Hypervisor.Syscalls;

namespace Privy.Hypervisor.Tests.Signals;

public class TimerTests
{
    private const ulong A = FakeContext.MemoryBase + 0x100, B = A + 0x100, C = A + 0x200;

    private static SyscallArguments Args(ulong a0 = 0, ulong a1 = 0, ulong a2 = 0, ulong a3 = 0) => new(a0, a1, a2, a3, 0, 0);

    private static SignalInfo Wait(FakeContext context, int signal)
    {
        long start = Stopwatch.GetTimestamp();
        SignalInfo info;
        while (!context.ProcessSignals.TryTake(context.ThreadSignals, SignalSet.Of(signal), out info))
        {
            Assert.True(Stopwatch.GetElapsedTime(start).TotalSeconds < 10, "the timer did not expire");
            Thread.Sleep(1);
        }
        return info;
    }

    [Fact]
    public void An_interval_timer_repeats_until_disarmed()
    {
        using var context = new FakeContext();
        context.ThreadSignals.Mask = ~default(SignalSet);
        context.WriteWords(A, 0, 5000, 0, 20_000); // every 5 ms after 20 ms
        long start = Stopwatch.GetTimestamp();
        Assert.Equal(0, TimerCalls.Setitimer(context, Args(ProcessTimers.ITIMER_REAL, A, 0)));
        Assert.Equal(0, TimerCalls.Getitimer(context, Args(ProcessTimers.ITIMER_REAL, B)));
        Assert.Equal(5000ul, context.ReadWord(B + 8));
        Assert.InRange(context.ReadWord(B + 24), 1ul, 20_000ul);
        for (int i = 0; i < 4; i++)
            Assert.Equal(SignalInfo.SI_KERNEL, Wait(context, Signal.SIGALRM).Code);
        Assert.True(Stopwatch.GetElapsedTime(start).TotalMilliseconds >= 34);
        context.WriteWords(A, 0, 0, 0, 0);
        Assert.Equal(0, TimerCalls.Setitimer(context, Args(ProcessTimers.ITIMER_REAL, A, 0)));
        context.ProcessSignals.TryTake(context.ThreadSignals, SignalSet.Of(Signal.SIGALRM), out _);
        Thread.Sleep(30);
        Assert.True(context.ProcessSignals.Pending(context.ThreadSignals).IsEmpty);
        context.WriteWords(A, 0, 0, 0, 1_000_000);
        Assert.Equal(-Errno.EINVAL, TimerCalls.Setitimer(context, Args(ProcessTimers.ITIMER_REAL, A, 0)));
        Assert.Equal(-Errno.EINVAL, TimerCalls.Setitimer(context, Args(3, A, 0)));
    }

    [Fact]
    public void Alarm_tells_what_was_left()
    {
        using var context = new FakeContext();
        Assert.Equal(0, TimerCalls.Alarm(context, Args(100)));
        Assert.InRange(TimerCalls.Alarm(context, Args(0)), 60, 100);
        Assert.Equal(0, TimerCalls.Alarm(context, Args(0)));
    }

    [Fact]
    public void Cpu_time_is_counted()
    {
        using var context = new FakeContext();
        context.ThreadSignals.Mask = ~default(SignalSet);
        context.WriteWords(A, 0, 0, 0, 10_000);
        Assert.Equal(0, TimerCalls.Setitimer(context, Args(ProcessTimers.ITIMER_PROF, A, 0)));
        long start = Stopwatch.GetTimestamp();
        while (!context.ProcessSignals.TryTake(context.ThreadSignals, SignalSet.Of(Signal.SIGPROF), out _))
            Assert.True(Stopwatch.GetElapsedTime(start).TotalSeconds < 10);
    }

    [Fact]
    public void A_posix_timer_counts_the_expiries_it_could_not_signal()
    {
        using var context = new FakeContext();
        context.ThreadSignals.Mask = ~default(SignalSet);
        context.WriteWords(A, 0xabcd, 40 | (ulong)TimerNotify4 << 32, (uint)context.ThreadId);
        Assert.Equal(0, TimerCalls.TimerCreate(context, Args(1, A, B)));
        ulong id = (uint)context.ReadWord(B);
        context.WriteWords(A, 0, 2_000_000, 0, 2_000_000);
        Assert.Equal(0, TimerCalls.TimerSettime(context, Args(id, 0, A, C)));
        Thread.Sleep(60);
        SignalInfo info = Wait(context, 40);
        Assert.Equal((SignalInfo.SI_TIMER, 0xabcdul), (info.Code, info.Value));
        Assert.InRange(info.Overrun, 5, 10_000);
        Assert.Equal(info.Overrun, TimerCalls.TimerGetoverrun(context, Args(id)));
        Assert.Equal(0, TimerCalls.TimerGettime(context, Args(id, C)));
        Assert.Equal(2_000_000ul, context.ReadWord(C + 8));
        Assert.Equal(0, TimerCalls.TimerDelete(context, Args(id)));
        Assert.Equal(-Errno.EINVAL, TimerCalls.TimerDelete(context, Args(id)));
    }

    private const int TimerNotify4 = 4;

    [Fact]
    public void An_absolute_time_in_the_past_expires_at_once()
    {
        using var context = new FakeContext();
        context.ThreadSignals.Mask = ~default(SignalSet);
        Assert.Equal(0, TimerCalls.TimerCreate(context, Args(0, 0, B)));
        ulong id = (uint)context.ReadWord(B);
        context.WriteWords(A, 0, 0, 1, 0);
        Assert.Equal(0, TimerCalls.TimerSettime(context, Args(id, 1, A, 0)));
        Assert.Equal(id, Wait(context, Signal.SIGALRM).Value);
        Assert.Equal(-Errno.EINVAL, TimerCalls.TimerCreate(context, Args(77, 0, B)));
    }

    [Fact]
    public void The_clock_of_a_thread_that_is_gone_stands_still()
    {
        int clock = 0;
        var thread = new Thread(() =>
        {
            using var host = new HostThread();
            clock = HostClock.OfThread(host.ThreadId);
            Assert.True(HostClock.Read(clock) > 0);
        });
        thread.Start();
        thread.Join();
        for (int i = 0; i < 1000 && HostClock.Read(clock) != 0; i++)
            Thread.Sleep(1);
        Assert.Equal(0, HostClock.Read(clock));
    }
}
