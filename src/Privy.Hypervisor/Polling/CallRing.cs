using System.Diagnostics;
using Privy.Hypervisor.Boot;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Sites;

namespace Privy.Hypervisor.Polling;

/// <summary>
/// How one thread of the program makes system calls without exits, and when: only while it makes many, and only while the poller keeps up. Used by
/// the thread's host thread; the poller reads <see cref="Words"/> and counts.
/// </summary>
internal sealed unsafe class CallRing
{
    /// <summary>Exits that are looked at together.</summary>
    private const int Window = 64;

    /// <summary>Windows in which calls leave the guest before a poller that did not help gets another chance.</summary>
    private const int FirstPause = 1, LongestPause = 64;

    /// <summary>Periods in a row in which the poller helped before its failures are forgotten.</summary>
    private const int Trust = 32;

    /// <summary>What polling must bring to be kept on; it takes processor time that others could use.</summary>
    private const double WorthwhileGain = 1.25;

    /// <summary>Rounds of the stub's wait, 20-40 ns each: about what an exit costs, so that waiting in vain at most doubles it.</summary>
    private const uint Patience = 1_000;

    /// <summary>In this time the exits of a window take about a quarter of a processor, where polling is of use at all.</summary>
    private static readonly long s_busy = Stopwatch.Frequency * Window * 110 / 1_000_000;

    private readonly SyscallPoller? _poller;
    private readonly Vcpu _vcpu;
    /// <summary>A call that takes longer than this waits for something.</summary>
    private static readonly long s_long = Stopwatch.Frequency / 10_000;

    // Written by the host thread, read by the poller.
    private long _exits, _blocked, _outSince;

    // The host thread's alone, but for _pause and _exitRate, which one side writes while the other leaves them alone: see Judge and EndWindow.
    private long _windowBegin, _windowBlocked;
    private int _windowExits;
    private int _pause, _nextPause = FirstPause;
    private double _exitRate;

    // The poller's alone.
    private long _periodCalls, _periodBlocked;
    private int _goodPeriods;

    /// <summary>For the calling host thread's vCPU. Without a poller the stub answers what it can itself, and other calls leave the guest.</summary>
    internal CallRing(SyscallPoller? poller, Vcpu vcpu, int processId, int threadId)
    {
        _poller = poller;
        _vcpu = vcpu;
        Words = vcpu.Ring;
        ThreadId = threadId;
        Processor = ThreadPlacement.OfThisThread();
        Words->ProcessId = processId;
        Words->ThreadId = threadId;
        Words->Patience = Patience;
        PolledCalls.SetNumbers(Words);
    }

    internal SyscallRing* Words { get; }

    /// <summary>The writes that this thread puts off; null: none.</summary>
    internal DeferredSends? Sends { get; set; }

    /// <summary>Where calls are made often; null: nobody counts.</summary>
    internal SyscallSites? Sites { get; set; }

    /// <summary>The host thread.</summary>
    internal int ThreadId { get; }

    /// <summary>Where the kernel keeps the number of its processor; null: nowhere.</summary>
    internal int* Processor { get; }

    /// <summary>Calls the poller made; written by it.</summary>
    internal long Completed { get; set; }

    /// <summary>Calls the poller handed back; written by it.</summary>
    internal long Declined { get; set; }

    /// <summary>The poller does not keep up with this thread, or has no processor: calls leave the guest for a while.</summary>
    internal bool Paused => _pause > 0;

    /// <summary>Whether the thread may post a call: it is not in one outside of the guest.</summary>
    internal bool InProgram => Volatile.Read(ref _outSince) == 0;

    /// <summary>A system call has left the guest.</summary>
    internal void Exited()
    {
        if (Words->Mode == SyscallMode.Exit)
        {
            // The first call: only now is known how the stub must return.
            Words->Ring0 = _vcpu.SyscallEntersRing0 ? 1 : 0;
            Words->Mode = SyscallMode.Local;
            _poller?.Add(this);
        }

        if (_poller is null || !_poller.Usable)
            return;
        Volatile.Write(ref _outSince, Stopwatch.GetTimestamp());
        _exits++;
        if (Words->Mode == SyscallMode.Ring)
            _windowExits = 0;
        else if (++_windowExits >= Window)
            EndWindow(_outSince);
        if (_windowExits == 0)
            (_windowBegin, _windowBlocked) = (_outSince, _blocked);
    }

    /// <summary>The thread goes back into the program after a call.</summary>
    internal void Resumed()
    {
        var took = Stopwatch.GetTimestamp() - _outSince;
        if (took > s_long)
            _blocked += took;
        _ = Interlocked.Exchange(ref _outSince, 0);
        _poller?.Rouse();
    }

    /// <summary>
    /// By the poller, each period: polls on only if the thread gets more calls done, in the time that it does not wait in one, than it does by exits. A
    /// poller that gets too little of a processor loses that comparison, whether its calls are taken back or it is stopped in the middle of them.
    /// </summary>
    /// <param name="now">The period's end.</param>
    /// <param name="length">Its length.</param>
    /// <returns>True: <see cref="Paused"/> has changed.</returns>
    internal bool Judge(long now, long length)
    {
        var since = Volatile.Read(ref _outSince);
        var blocked = _blocked + (since != 0 && now - since > s_long ? now - since : 0);
        var calls = _exits + Completed + (Sends is { } sends ? sends.Made + sends.Taken : 0);
        var rate = (calls - _periodCalls) / (double)Math.Max(1, length - (blocked - _periodBlocked));
        (_periodCalls, _periodBlocked) = (calls, blocked);
        if (Words->Mode != SyscallMode.Ring)
            return false;
        if (rate >= WorthwhileGain * _exitRate)
        {
            if (++_goodPeriods >= Trust)
                _nextPause = FirstPause;
            return false;
        }

        _goodPeriods = 0;

        _pause = _nextPause;
        _nextPause = Math.Min(2 * _nextPause, LongestPause);
        return true;
    }

    /// <summary>By the poller, which has claimed a call: counts its site. One that becomes due is rewritten at the thread's next exit, so there must be one.</summary>
    internal void NoteSite()
    {
        if (Sites is { } sites && sites.Note(Words->Rip))
            _vcpu.RequestExit();
    }

    /// <summary>The thread ends, or is about to get a descriptor table of its own.</summary>
    internal void Close() => _poller?.Remove(this);

    /// <summary>The end of some exits in a row: what calls cost this way, and whether it is time to have them polled.</summary>
    private void EndWindow(long now)
    {
        _windowExits = 0;
        var took = now - _windowBegin;
        _exitRate = Window / (double)Math.Max(1, took - (_blocked - _windowBlocked));
        if (_pause > 0)
        {
            if (--_pause == 0)
                _poller!.Update(this);
        }
        else if (took < s_busy && !_poller!.Awake)
        {
            _poller.Wake(_vcpu);
        }
    }
}
