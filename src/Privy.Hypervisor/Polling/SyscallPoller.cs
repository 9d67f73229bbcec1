using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics.X86;
using Privy.Hypervisor.Boot;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Memory;
using Privy.Hypervisor.Syscalls;

namespace Privy.Hypervisor.Polling;

/// <summary>
/// The host thread that makes posted system calls (<see cref="SyscallRing"/>) of the main process' threads. It polls while there are calls, and
/// sleeps when there are none; asleep it costs nothing, and calls leave the guest.
/// </summary>
internal sealed unsafe class SyscallPoller
{
    private const int RoundsPerLook = 64;
    private const ulong WaitPrivate = 128, WakePrivate = 129; // FUTEX_*

    /// <summary>A poller that waits for a processor longer than this part of the time takes it from somebody.</summary>
    private const int WantedProcessor = 20;

    /// <summary>An exit that costs less than this in nanoseconds is not worth a polling thread: on hardware one costs 1,000 to 2,000.</summary>
    internal const double WorthwhileExit = 8_000;

    /// <summary>Fewer calls than this in a period are better made by exits: less than a tenth of a processor.</summary>
    private const int FewCalls = 16;

    private static readonly long s_period = Stopwatch.Frequency / 250;
    private static readonly long s_moveInterval = Stopwatch.Frequency / 100;

    private readonly MainSpace _space;
    private readonly SyscallPolicy _policy;
    private readonly Lock _lock = new();

    /// <summary>1 while the thread sleeps; it waits on this word.</summary>
    private readonly int* _asleep = (int*)NativeMemory.AlignedAlloc(64, 64);

    /// <summary>1 while the thread dozes: it waits on this word until one of the program's threads goes back into the program.</summary>
    private readonly int* _dozing = (int*)NativeMemory.AlignedAlloc(64, 64);

    private volatile CallRing[] _rings = [];
    private Thread? _thread;
    private bool _measured;
    private long _lastMove;
    private int* _processor;
    private (long Completed, long Declined, long TakenBack) _retired;

    internal SyscallPoller(MainSpace space, SyscallPolicy policy)
    {
        _space = space;
        _policy = policy;
        *_asleep = 1;
        *_dozing = 0;
        Usable = policy != SyscallPolicy.Exit && ThreadPlacement.AllowedProcessors() > 1;
    }

    /// <summary>False where calls always leave the guest: with one processor, or where an exit is cheap.</summary>
    internal bool Usable { get; private set; }

    /// <summary>The writes that the main process' first thread has put off; null: it puts none off.</summary>
    internal DeferredSends? Sends { get; private set; }

    /// <summary>Writes put off and reads answered from what was received ahead, of all threads so far.</summary>
    internal (long Writes, long Reads) Deferred { get; private set; }

    /// <summary>The main process' first thread puts writes off.</summary>
    internal void Begin(DeferredSends? sends) => Sends = sends;

    /// <summary>It does so no more, and has disposed of them.</summary>
    internal void End(DeferredSends sends)
    {
        Sends = null;
        Deferred = (Deferred.Writes + sends.Made, Deferred.Reads + sends.Taken);
    }

    /// <summary>Whether posted calls are looked for.</summary>
    internal bool Awake => Volatile.Read(ref *_asleep) == 0;

    /// <summary>Calls made, handed back, and taken back by programs.</summary>
    internal (long Completed, long Declined, long TakenBack) Totals
    {
        get
        {
            lock (_lock)
            {
                var sum = _retired;
                foreach (var ring in _rings)
                    sum = Plus(sum, ring);
                return sum;
            }
        }
    }

    /// <summary>Serves a thread's calls from now on.</summary>
    internal void Add(CallRing ring)
    {
        lock (_lock)
        {
            _rings = [.. _rings, ring];
            SetMode(ring);
        }
    }

    /// <summary>Serves it no more. Called by its host thread, so that no call is posted.</summary>
    internal void Remove(CallRing ring)
    {
        lock (_lock)
        {
            if (!_rings.Contains(ring))
                return;
            _rings = _rings.Where(r => r != ring).ToArray();
            _retired = Plus(_retired, ring);
            ring.Words->Mode = SyscallMode.Exit;
        }
    }

    /// <summary>After <see cref="CallRing.Paused"/> has changed.</summary>
    internal void Update(CallRing ring)
    {
        lock (_lock)
            SetMode(ring);
    }

    /// <summary>A thread's exits cost a quarter of a processor: polls from now on, if that is cheaper than exits are.</summary>
    /// <param name="vcpu">The calling thread's, out of the guest.</param>
    internal void Wake(Vcpu vcpu)
    {
        lock (_lock)
        {
            if (!Usable || Awake)
                return;
            if (!_measured && _policy == SyscallPolicy.Auto && MeasureExit(vcpu) < WorthwhileExit)
            {
                Usable = false;
                return;
            }

            _measured = true;
            Volatile.Write(ref *_asleep, 0);
            foreach (var ring in _rings)
                SetMode(ring);
            if (_thread is null)
            {
                _thread = new Thread(Poll, 256 * 1024) { IsBackground = true, Name = "privy-poller" };
                _thread.Start();
                return;
            }
        }

        _ = HostSyscall.RawQuick(SyscallNumber.futex, (ulong)_asleep, WakePrivate, 1);
    }

    /// <summary>A thread goes back into the program, and may post a call soon.</summary>
    internal void Rouse()
    {
        if (Volatile.Read(ref *_dozing) != 0 && Interlocked.Exchange(ref *_dozing, 0) != 0)
            _ = HostSyscall.RawQuick(SyscallNumber.futex, (ulong)_dozing, WakePrivate, 1);
    }

    /// <summary>What an exit costs here, in nanoseconds: the shortest of a few calls of a kernel function that has nothing to do.</summary>
    private double MeasureExit(Vcpu vcpu)
    {
        const int calls = 5;
        var shortest = double.MaxValue;
        // As for any kernel call on main's tables: a snapshot taken meanwhile would free them under it.
        lock (_space.Changes)
        {
            for (var i = 0; i < calls; i++)
            {
                var start = Stopwatch.GetTimestamp();
                _ = _space.Machine.Kernel.PrepareWrite(vcpu, _space.Index, 0, 0);
                shortest = Math.Min(shortest, Stopwatch.GetElapsedTime(start).TotalNanoseconds);
            }
        }

        return shortest;
    }

    private void SetMode(CallRing ring)
    {
        var mode = Usable && Awake && !ring.Paused ? SyscallMode.Ring : SyscallMode.Local;
        var before = Interlocked.Exchange(ref ring.Words->Mode, mode);
        if (before == SyscallMode.Ring && mode != SyscallMode.Ring && ring.Sends is { } sends)
            sends.Unwatched();
    }

    private void Poll()
    {
        // The program's signals are not this thread's, and a call that a limit ends is declined, not a reason for one.
        var all = ulong.MaxValue;
        _ = HostSyscall.RawQuick(HostCallNumber.RtSigprocmask, 0, (ulong)&all, 0, 8);
        _processor = ThreadPlacement.OfThisThread();
        var begin = Stopwatch.GetTimestamp();
        var calls = 0;
        var delay = new RunDelay();
        var (wanted, waitedBefore) = (false, delay.Read());
        while (true)
        {
            var served = 0;
            for (var round = 0; round < RoundsPerLook; round++)
            {
                foreach (var ring in _rings)
                    served += Serve(ring) ? 1 : 0;
                X86Base.Pause();
            }

            var now = Stopwatch.GetTimestamp();
            calls += served;
            Sends?.Watch(now * (1_000_000_000 / Stopwatch.Frequency));
            // Whoever sends the program its requests may have no other processor: it runs while there is nothing to do here, not in the middle of a call.
            if (served == 0 && wanted && !AnyInProgram())
                Doze();
            else if (served == 0)
                _ = HostSyscall.RawQuick(SyscallNumber.sched_yield);
            if (now - begin < s_period)
                continue;
            foreach (var ring in _rings)
            {
                if (ring.Judge(now, now - begin))
                    Update(ring);
            }

            var waited = delay.Read();
            wanted = waited - waitedBefore > (now - begin) * (1_000_000_000 / Stopwatch.Frequency) / WantedProcessor;
            waitedBefore = waited;
            if (calls < FewCalls)
            {
                Sleep();
                now = Stopwatch.GetTimestamp();
            }

            (begin, calls) = (now, 0);
        }
    }

    private bool AnyInProgram()
    {
        foreach (var ring in _rings)
        {
            if (ring.InProgram)
                return true;
        }

        return false;
    }

    /// <summary>
    /// Somebody else wants the processor, and no thread can post a call: sleeps until one can. Only then, as waking up takes longer than a call does.
    /// </summary>
    private void Doze()
    {
        _ = Interlocked.Exchange(ref *_dozing, 1);
        // Threads clear their mark first and then look at the word; each side sees the other's.
        if (AnyInProgram())
        {
            Volatile.Write(ref *_dozing, 0);
            return;
        }

        // A thread that leaves the program by a fault has no mark: not for ever.
        var limit = stackalloc long[] { 0, 1_000_000 };
        _ = HostSyscall.Raw(SyscallNumber.futex, (ulong)_dozing, WaitPrivate, 1, (ulong)limit);
        Volatile.Write(ref *_dozing, 0);
    }

    private bool Serve(CallRing ring)
    {
        var words = ring.Words;
        if (Volatile.Read(ref words->State) != RingState.Posted || Interlocked.CompareExchange(ref words->State, RingState.Claimed, RingState.Posted) != RingState.Posted)
            return false;
        var sends = Sends;
        var result = sends is null || sends.Admits(words) ? PolledCalls.Execute(_space, words) : PolledCalls.Declined;
        if (sends is not null && !sends.Answers(words, result))
            result = PolledCalls.Declined;
        ring.NoteSite();
        if (result == PolledCalls.Declined)
        {
            ring.Declined++;
            Volatile.Write(ref words->State, RingState.Declined);
        }
        else
        {
            ring.Completed++;
            words->Result = result;
            Volatile.Write(ref words->State, RingState.Done);
        }

        LeaveProcessor(ring);
        return true;
    }

    /// <summary>On the caller's own processor the poller keeps it from running: it goes to another.</summary>
    private void LeaveProcessor(CallRing ring)
    {
        if (_processor == null || ring.Processor == null || Volatile.Read(ref *ring.Processor) != Volatile.Read(ref *_processor))
            return;
        var now = Stopwatch.GetTimestamp();
        if (now - _lastMove < s_moveInterval)
            return;
        _lastMove = now;
        ThreadPlacement.Avoid(*_processor, ring.ThreadId);
    }

    private void Sleep()
    {
        lock (_lock)
        {
            Volatile.Write(ref *_asleep, 1);
            foreach (var ring in _rings)
                SetMode(ring);
        }

        // A call posted in between is taken back by its stub after a while; it need not wait that long.
        foreach (var ring in _rings)
            _ = Serve(ring);
        while (!Awake)
            _ = HostSyscall.Raw(SyscallNumber.futex, (ulong)_asleep, WaitPrivate, 1);
    }

    private static (long, long, long) Plus((long Completed, long Declined, long TakenBack) sum, CallRing ring) =>
        (sum.Completed + ring.Completed, sum.Declined + ring.Declined, sum.TakenBack + ring.Words->TakenBack);
}
