using Privy.Hypervisor.Host;

namespace Privy.Hypervisor.Signals;

/// <summary>How a timer tells of its expiry (sigevent(7)).</summary>
internal enum TimerNotify
{
    Signal = 0,
    None = 1,
    ThreadId = 4,
}

/// <summary>A timer of setitimer or timer_create. Fields are under the lock of <see cref="TimerThread"/>.</summary>
internal sealed class PosixTimer(ProcessSignals process, int clock, SignalInfo info, TimerNotify notify, ThreadSignals? thread)
{
    internal readonly int Clock = clock;
    internal readonly TimerNotify Notify = notify;

    /// <summary>Next expiry on <see cref="Clock"/> in nanoseconds; 0 while disarmed.</summary>
    internal long Due;

    /// <summary>Period, 0 for once.</summary>
    internal long Interval;

    /// <summary>Set in the timer thread's list.</summary>
    internal bool Armed;

    private int _pending;
    private long _overrun;
    private int _lastOverrun;

    /// <summary>Expiries that the last signal taken stood for, beyond the first.</summary>
    internal int LastOverrun => Volatile.Read(ref _lastOverrun);

    internal bool IsCpuClock => Clock is HostClock.ProcessCpu or HostClock.ThreadCpu || Clock < 0;

    internal long Now => HostClock.Read(Clock);

    /// <summary>The timer has expired <paramref name="times"/> times since it was looked at last.</summary>
    internal void Expire(long times)
    {
        if (Notify == TimerNotify.None)
            return;
        // One signal per timer is pending at most (timer_getoverrun(2)).
        if (Volatile.Read(ref _pending) != 0)
        {
            Interlocked.Add(ref _overrun, times);
            return;
        }
        Interlocked.Add(ref _overrun, times - 1);
        // Interval timers send what the kernel itself would; those have no overrun count.
        process.Send(info, thread, info.Code == SignalInfo.SI_TIMER ? this : null);
    }

    internal void Queued() => Volatile.Write(ref _pending, 1);

    /// <summary>The signal is taken from its queue.</summary>
    internal void Taken(ref SignalInfo taken)
    {
        int overrun = (int)Math.Min(int.MaxValue, Interlocked.Exchange(ref _overrun, 0));
        Volatile.Write(ref _lastOverrun, overrun);
        taken.Overrun = overrun;
        Volatile.Write(ref _pending, 0);
    }

    internal void ResetOverrun()
    {
        Interlocked.Exchange(ref _overrun, 0);
        Volatile.Write(ref _lastOverrun, 0);
    }
}

/// <summary>
/// The timers of one process: three interval timers and those of timer_create. Real time is exact. CPU time is that of the whole host process (or of the
/// thread, for CLOCK_THREAD_CPUTIME_ID), the hypervisor's own part included, and ITIMER_VIRTUAL counts system time as well: the host cannot tell them apart.
/// </summary>
public sealed class ProcessTimers
{
    /// <summary>The three interval timers (sys/time.h).</summary>
    public const int ITIMER_REAL = 0, ITIMER_VIRTUAL = 1, ITIMER_PROF = 2;

    private readonly ProcessSignals _process;
    private readonly PosixTimer[] _interval;
    private readonly Dictionary<int, PosixTimer> _timers = [];
    private int _nextId;

    internal ProcessTimers(ProcessSignals process)
    {
        _process = process;
        _interval =
        [
            Interval(HostClock.MonotonicId, Signal.SIGALRM),
            Interval(HostClock.ProcessCpu, Signal.SIGVTALRM),
            Interval(HostClock.ProcessCpu, Signal.SIGPROF),
        ];
        PosixTimer Interval(int clock, int signal) => new(process, clock, SignalInfo.FromKernel(signal), TimerNotify.Signal, null);
    }

    /// <summary>Sets an interval timer; both in nanoseconds, 0 disarms. Returns what was left and the old period.</summary>
    public (long Left, long Interval) SetInterval(int which, long value, long interval) => TimerThread.Arm(_interval[which], value, interval, absolute: false);

    /// <summary>What is left of an interval timer, and its period.</summary>
    public (long Left, long Interval) GetInterval(int which) => TimerThread.Query(_interval[which]);

    /// <summary>The process is gone.</summary>
    public void Exit()
    {
        foreach (PosixTimer timer in _interval)
            TimerThread.Arm(timer, 0, 0, absolute: false);
        DeleteAll();
    }

    internal int Create(int clock, int signal, ulong value, bool valueIsId, TimerNotify notify, ThreadSignals? thread)
    {
        lock (_timers)
        {
            int id = _nextId++;
            var info = new SignalInfo { Number = signal, Code = SignalInfo.SI_TIMER, ProcessId = id, Value = valueIsId ? (ulong)id : value };
            _timers.Add(id, new PosixTimer(_process, clock, info, notify, thread));
            return id;
        }
    }

    internal PosixTimer? Find(int id)
    {
        lock (_timers)
            return _timers.GetValueOrDefault(id);
    }

    internal bool Delete(int id)
    {
        lock (_timers)
        {
            if (!_timers.Remove(id, out PosixTimer? timer))
                return false;
            TimerThread.Arm(timer, 0, 0, absolute: false);
            return true;
        }
    }

    internal void DeleteAll()
    {
        lock (_timers)
        {
            foreach (PosixTimer timer in _timers.Values)
                TimerThread.Arm(timer, 0, 0, absolute: false);
            _timers.Clear();
        }
    }
}
