using Privy.Hypervisor.Host;

namespace Privy.Hypervisor.Signals;

/// <summary>
/// The one thread that waits for all timers of all processes. It sleeps in the kernel until the earliest, without an end while none is armed, and is
/// kicked when an earlier one is set.
/// </summary>
internal static unsafe class TimerThread
{
    // How often CPU time is looked at while a timer on it is armed, at the least.
    private const long CpuPoll = 1_000_000;

    private static readonly Lock Gate = new();
    private static readonly List<PosixTimer> Armed = [];
    private static HostThread? s_thread;

    /// <summary>Arms (or, with 0, disarms) a timer; returns what was left and the old period.</summary>
    internal static (long Left, long Interval) Arm(PosixTimer timer, long value, long interval, bool absolute)
    {
        lock (Gate)
        {
            (long, long) old = QueryUnderGate(timer);
            timer.ResetOverrun();
            timer.Interval = value == 0 ? 0 : interval;
            // 0 means disarmed, so an absolute time of the clock's origin becomes 1 ns after it.
            timer.Due = value == 0 ? 0 : absolute ? Math.Max(1, value) : Saturate(timer.Now, value);
            if (timer.Due != 0 && !timer.Armed)
                Armed.Add(timer);
            else if (timer.Due == 0 && timer.Armed)
                Armed.Remove(timer);
            timer.Armed = timer.Due != 0;
            if (timer.Armed)
                Wake();
            return old;
        }
    }

    /// <summary>What is left of a timer, and its period.</summary>
    internal static (long Left, long Interval) Query(PosixTimer timer)
    {
        lock (Gate)
            return QueryUnderGate(timer);
    }

    // An armed timer that is due but not yet seen shows the least time there is, as in the kernel.
    private static (long, long) QueryUnderGate(PosixTimer timer) => timer.Armed ? (Math.Max(1, timer.Due - timer.Now), timer.Interval) : (0, timer.Interval);

    private static long Saturate(long now, long value) => value > long.MaxValue - now ? long.MaxValue : now + value;

    private static void Wake()
    {
        if (s_thread is { } running)
        {
            running.Interrupt();
            return;
        }
        using var ready = new ManualResetEventSlim();
        new Thread(() =>
        {
            s_thread = new HostThread();
            ready.Set();
            Run(s_thread);
        })
        { IsBackground = true, Name = "privy-timers" }.Start();
        ready.Wait();
    }

    private static void Run(HostThread self)
    {
        HostSyscall.RawQuick(HostCallNumber.Prctl, 29, 1); // PR_SET_TIMERSLACK: the default of 50 µs is not the program's.
        long* until = stackalloc long[2];
        while (true)
        {
            self.ClearInterrupt();
            long sleep = long.MaxValue; // Until this time of the monotonic clock.
            lock (Gate)
            {
                long monotonic = HostClock.Monotonic;
                for (int i = Armed.Count - 1; i >= 0; i--)
                {
                    PosixTimer timer = Armed[i];
                    long now = timer.Now;
                    if (now >= timer.Due)
                    {
                        long times = 1;
                        if (timer.Interval > 0)
                        {
                            times += (now - timer.Due) / timer.Interval;
                            timer.Due += times * timer.Interval;
                        }
                        // Under the lock: once a timer is disarmed, no signal of it may follow. The lock of a process comes after this one, never before.
                        timer.Expire(times);
                        if (timer.Interval == 0)
                        {
                            timer.Due = 0;
                            timer.Armed = false;
                            Armed.RemoveAt(i);
                            continue;
                        }
                    }
                    long left = timer.Due - now;
                    // CPU time runs at most as many times as fast as there are processors.
                    if (timer.IsCpuClock)
                        left = Math.Max(CpuPoll, left / Environment.ProcessorCount);
                    // The wall clock may be set while the thread sleeps.
                    else if (timer.Clock is HostClock.Realtime or HostClock.Tai)
                        left = Math.Min(left, HostClock.Second);
                    sleep = Math.Min(sleep, Saturate(monotonic, left));
                }
            }
            if (sleep == long.MaxValue)
                self.Invoke(34); // pause
            else
            {
                until[0] = sleep / HostClock.Second;
                until[1] = sleep % HostClock.Second;
                self.Invoke(230, HostClock.MonotonicId, 1, (ulong)until); // clock_nanosleep, TIMER_ABSTIME
            }
        }
    }
}
