namespace Privy.Hypervisor.Signals;

/// <summary>An alternate signal stack: <c>stack_t</c>.</summary>
public readonly record struct AlternateStack(ulong Address, uint Flags, ulong Length)
{
    /// <summary>Flags (signal.h).</summary>
    public const uint SS_ONSTACK = 1, SS_DISABLE = 2, SS_AUTODISARM = 1u << 31;

    /// <summary>Least length the kernel accepts on x86-64.</summary>
    public const ulong MINSIGSTKSZ = 2048;

    /// <summary>None.</summary>
    public static AlternateStack None { get; } = new(0, SS_DISABLE, 0);

    /// <summary>True if the stack pointer lies on it.</summary>
    public bool Contains(ulong stackPointer) => stackPointer > Address && stackPointer - Address <= Length;

    /// <summary>True if the thread counts as running on it. With SS_AUTODISARM it never does: the kernel takes the stack away when a handler starts.</summary>
    public bool IsActive(ulong stackPointer) => (Flags & SS_AUTODISARM) == 0 && Contains(stackPointer);
}

/// <summary>Signal state of one program thread. Its queue and mask are under the lock of its process.</summary>
public sealed class ThreadSignals
{
    internal readonly SignalQueue Queue = new();
    private readonly Action _wake;
    private SignalSet _mask;
    private SignalSet? _savedMask;
    private (ulong Rip, long Number, long Deadline) _restarted;

    /// <summary>A thread that takes part in its process from now on.</summary>
    /// <param name="process">Its process.</param>
    /// <param name="threadId">Id of the host thread; also what the program sees.</param>
    /// <param name="mask">Signals blocked at first.</param>
    /// <param name="wake">Called from any thread, under the lock of the process, when the thread must look at its signals: interrupts it, never waits.</param>
    public ThreadSignals(ProcessSignals process, int threadId, SignalSet mask, Action wake)
    {
        Process = process;
        ThreadId = threadId;
        _wake = wake;
        _mask = mask & ~SignalSet.Unblockable;
        lock (process.Gate)
        {
            process.Members.Add(this);
            process.NoteBlocked(_mask);
        }
    }

    /// <summary>The process the thread belongs to.</summary>
    public ProcessSignals Process { get; }

    /// <summary>Thread id.</summary>
    public int ThreadId { get; }

    /// <summary>Blocked signals. Set by the thread itself; unblocking what is pending interrupts it.</summary>
    public SignalSet Mask
    {
        get
        {
            lock (Process.Gate)
                return _mask;
        }

        set => Process.SetMask(this, value, wake: true);
    }

    /// <summary>
    /// The mask to go back to after a call that waits with another one (sigsuspend, ppoll, pselect, epoll_pwait). It is what the handler's frame saves, so that the
    /// handler still runs with the temporary mask.
    /// </summary>
    public SignalSet? SavedMask => _savedMask;

    /// <summary>The alternate stack. Only the thread itself uses it.</summary>
    public AlternateStack AlternateStack { get; set; } = AlternateStack.None;

    /// <summary>Signals that the thread waits for in sigtimedwait: they wake it although they are blocked.</summary>
    public SignalSet Awaited { get; internal set; }

    /// <summary>True if a signal waits that the thread does not block (or awaits). The thread looks at this before it returns to the program.</summary>
    public bool HasDeliverable
    {
        get
        {
            lock (Process.Gate)
                return !((Queue.Pending | Process.Shared.Pending) & (~_mask | Awaited)).IsEmpty;
        }
    }

    /// <summary>The thread is gone: signals for the process that it was woken for go to another thread.</summary>
    public void Exit()
    {
        lock (Process.Gate)
        {
            Process.Members.Remove(this);
            Process.Retarget(Process.Shared.Pending & ~_mask, this);
        }
    }

    /// <summary>
    /// Begins a call that waits with another mask: the mask stays until <see cref="SignalDelivery.BeforeReturn"/> has run handlers with it or, without any, put the old one back.
    /// The thread must call <see cref="SignalDelivery.BeforeReturn"/> after such a call, always.
    /// </summary>
    public void BeginTemporaryMask(SignalSet mask)
    {
        SignalSet old = Mask;
        Mask = mask;
        _savedMask = old;
    }

    /// <summary>The relative timeout that is left, in nanoseconds, for a call that may be started again after an interruption the program never notices: the first time
    /// all of it, after such a restart what remains of it.</summary>
    /// <param name="rip">Program counter behind the call.</param>
    /// <param name="number">Its number.</param>
    /// <param name="timeout">Its timeout, not negative.</param>
    public long RemainingTimeout(ulong rip, long number, long timeout)
    {
        long now = HostClock.Monotonic;
        if (_restarted.Rip == rip && _restarted.Number == ~number)
        {
            // Kept once more: this run may be interrupted as well.
            _restarted.Number = number;
            return Math.Max(0, _restarted.Deadline - now);
        }
        _restarted = (rip, number, timeout > long.MaxValue - now ? long.MaxValue : now + timeout);
        return timeout;
    }

    /// <summary>The call before <paramref name="rip"/> is about to be made again without the program noticing.</summary>
    internal void NoteRestart(ulong rip, long number)
    {
        if (_restarted.Rip == rip && _restarted.Number == number)
            _restarted.Number = ~number;
    }

    internal void ForgetRestart() => _restarted = default;

    internal void ClearSavedMask() => _savedMask = null;

    internal SignalSet MaskUnderGate
    {
        get => _mask;
        set => _mask = value & ~SignalSet.Unblockable;
    }

    internal void Wake() => _wake();
}
