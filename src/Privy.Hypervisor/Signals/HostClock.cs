using Privy.Hypervisor.Host;

namespace Privy.Hypervisor.Signals;

/// <summary>Clocks of the host in nanoseconds.</summary>
internal static unsafe class HostClock
{
    internal const int Realtime = 0, MonotonicId = 1, ProcessCpu = 2, ThreadCpu = 3, MonotonicRaw = 4, Boottime = 7, RealtimeAlarm = 8, BoottimeAlarm = 9, Tai = 11;
    internal const long Second = 1_000_000_000;

    internal static long Monotonic => Read(MonotonicId);

    /// <summary>The time of a clock. 0 for the CPU time of a thread that is gone: a timer on it never expires.</summary>
    internal static long Read(int clock)
    {
        long* time = stackalloc long[2];
        long result = HostSyscall.RawQuick(228, (ulong)(long)clock, (ulong)time);
        if (result != 0 && clock < 0)
            return 0;
        HostSyscall.Checked(result, "clock_gettime", $"clock {clock}");
        return time[0] * Second + time[1];
    }

    /// <summary>The clock of one thread's CPU time, readable from every thread of the process (posix-timers.h, MAKE_THREAD_CPUCLOCK).</summary>
    internal static int OfThread(int threadId) => ~threadId << 3 | 6;
}
