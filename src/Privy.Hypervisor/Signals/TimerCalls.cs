using System.Runtime.InteropServices;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Syscalls;

namespace Privy.Hypervisor.Signals;

/// <summary><c>struct timespec</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
internal readonly record struct Timespec(long Seconds, long Nanoseconds)
{
    internal Timespec(long nanoseconds) : this(nanoseconds / HostClock.Second, nanoseconds % HostClock.Second)
    {
    }

    /// <summary>False if it is no valid time; too long a time becomes the longest.</summary>
    internal bool TryNanoseconds(out long nanoseconds)
    {
        nanoseconds = Seconds >= long.MaxValue / HostClock.Second ? long.MaxValue : Seconds * HostClock.Second + Nanoseconds;
        return Seconds >= 0 && Nanoseconds is >= 0 and < HostClock.Second;
    }
}

/// <summary>The system calls about timers that send signals.</summary>
public static class TimerCalls
{
    /// <summary>setitimer(which, new, old).</summary>
    public static long Setitimer(ISignalContext context, in SyscallArguments a)
    {
        int which = (int)a.A0;
        if (which is < 0 or > ProcessTimers.ITIMER_PROF)
            return -Errno.EINVAL;
        Setting wanted = default; // NULL disarms, as in the kernel.
        if (a.A1 != 0 && !SignalCalls.TryRead(context, a.A1, out wanted))
            return -Errno.EFAULT;
        if (!TryMicroseconds(wanted.Value, out long value) || !TryMicroseconds(wanted.Interval, out long interval))
            return -Errno.EINVAL;
        (long left, long period) = context.ProcessSignals.Timers.SetInterval(which, value, interval);
        return a.A2 == 0 || SignalCalls.TryWrite(context, a.A2, InMicroseconds(left, period)) ? 0 : -Errno.EFAULT;
    }

    /// <summary>getitimer(which, value).</summary>
    public static long Getitimer(ISignalContext context, in SyscallArguments a)
    {
        int which = (int)a.A0;
        if (which is < 0 or > ProcessTimers.ITIMER_PROF)
            return -Errno.EINVAL;
        (long left, long period) = context.ProcessSignals.Timers.GetInterval(which);
        return SignalCalls.TryWrite(context, a.A1, InMicroseconds(left, period)) ? 0 : -Errno.EFAULT;
    }

    /// <summary>alarm(seconds): the real-time interval timer in seconds.</summary>
    public static long Alarm(ISignalContext context, in SyscallArguments a)
    {
        (long left, _) = context.ProcessSignals.Timers.SetInterval(ProcessTimers.ITIMER_REAL, (uint)a.A0 * HostClock.Second, 0);
        // Rounded, but never to "none was set" (kernel/time/itimer.c, alarm_setitimer).
        return left == 0 ? 0 : Math.Max(1, (left + HostClock.Second / 2) / HostClock.Second);
    }

    /// <summary>timer_create(clock, event, id).</summary>
    public static long TimerCreate(ISignalContext context, in SyscallArguments a)
    {
        int clock = (int)a.A0;
        switch (clock)
        {
            case HostClock.Realtime or HostClock.MonotonicId or HostClock.ProcessCpu or HostClock.Boottime or HostClock.Tai:
                break;
            case HostClock.ThreadCpu:
                clock = HostClock.OfThread((int)HostSyscall.RawQuick(HostCallNumber.Gettid));
                break;
            case HostClock.RealtimeAlarm: // Nothing is woken from suspend.
                clock = HostClock.Realtime;
                break;
            case HostClock.BoottimeAlarm:
                clock = HostClock.Boottime;
                break;
            case HostClock.MonotonicRaw or 5 or 6:
                return -Errno.ENOTSUP;
            default:
                return -Errno.EINVAL;
        }
        var wanted = new Event { Signal = Signal.SIGALRM };
        if (a.A1 != 0 && !SignalCalls.TryRead(context, a.A1, out wanted))
            return -Errno.EFAULT;
        ThreadSignals? thread = null;
        switch ((TimerNotify)wanted.Notify)
        {
            case TimerNotify.None:
                break;
            case TimerNotify.ThreadId:
                thread = context.Processes.FindThread(wanted.ThreadId);
                if (thread?.Process != context.ProcessSignals || !Signal.IsValid(wanted.Signal))
                    return -Errno.EINVAL;
                break;
            case TimerNotify.Signal:
                if (!Signal.IsValid(wanted.Signal))
                    return -Errno.EINVAL;
                break;
            default: // SIGEV_THREAD is libc's affair.
                return -Errno.EINVAL;
        }
        ProcessTimers timers = context.ProcessSignals.Timers;
        int id = timers.Create(clock, wanted.Signal, wanted.Value, valueIsId: a.A1 == 0, (TimerNotify)wanted.Notify, thread);
        if (SignalCalls.TryWrite(context, a.A2, id))
            return 0;
        timers.Delete(id);
        return -Errno.EFAULT;
    }

    /// <summary>timer_settime(id, flags, new, old).</summary>
    public static long TimerSettime(ISignalContext context, in SyscallArguments a)
    {
        if (a.A2 == 0)
            return -Errno.EINVAL;
        if (!SignalCalls.TryRead(context, a.A2, out Setting wanted))
            return -Errno.EFAULT;
        if (!wanted.Value.TryNanoseconds(out long value) || !wanted.Interval.TryNanoseconds(out long interval))
            return -Errno.EINVAL;
        if (context.ProcessSignals.Timers.Find((int)a.A0) is not { } timer)
            return -Errno.EINVAL;
        (long left, long period) = TimerThread.Arm(timer, value, interval, absolute: ((int)a.A1 & 1) != 0);
        return a.A3 == 0 || SignalCalls.TryWrite(context, a.A3, new Setting(new Timespec(period), new Timespec(left))) ? 0 : -Errno.EFAULT;
    }

    /// <summary>timer_gettime(id, value).</summary>
    public static long TimerGettime(ISignalContext context, in SyscallArguments a)
    {
        if (context.ProcessSignals.Timers.Find((int)a.A0) is not { } timer)
            return -Errno.EINVAL;
        (long left, long period) = TimerThread.Query(timer);
        return SignalCalls.TryWrite(context, a.A1, new Setting(new Timespec(period), new Timespec(left))) ? 0 : -Errno.EFAULT;
    }

    /// <summary>timer_getoverrun(id).</summary>
    public static long TimerGetoverrun(ISignalContext context, in SyscallArguments a) =>
        context.ProcessSignals.Timers.Find((int)a.A0) is { } timer ? timer.LastOverrun : -Errno.EINVAL;

    /// <summary>timer_delete(id).</summary>
    public static long TimerDelete(ISignalContext context, in SyscallArguments a) => context.ProcessSignals.Timers.Delete((int)a.A0) ? 0 : -Errno.EINVAL;

    private static bool TryMicroseconds(Timespec value, out long nanoseconds)
    {
        nanoseconds = 0;
        return value.Nanoseconds is >= 0 and < 1_000_000 && (value with { Nanoseconds = value.Nanoseconds * 1000 }).TryNanoseconds(out nanoseconds);
    }

    // Rounded up: an armed timer never shows 0.
    private static Setting InMicroseconds(long left, long period)
    {
        return new Setting(Convert(period), Convert(left));
        static Timespec Convert(long nanoseconds)
        {
            long microseconds = nanoseconds / 1000 + (nanoseconds % 1000 != 0 ? 1 : 0);
            return new Timespec(microseconds / 1_000_000, microseconds % 1_000_000);
        }
    }

    /// <summary><c>struct itimerspec</c> and <c>struct itimerval</c>, whose fractions are microseconds.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private readonly record struct Setting(Timespec Interval, Timespec Value);

    [StructLayout(LayoutKind.Sequential, Size = 64)]
    private struct Event
    {
        internal ulong Value;
        internal int Signal;
        internal int Notify;
        internal int ThreadId;
    }
}
