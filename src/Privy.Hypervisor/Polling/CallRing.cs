using System.Diagnostics;
using Privy.Hypervisor.Boot;
using Privy.Hypervisor.Host;

namespace Privy.Hypervisor.Polling;

/// <summary>
/// How one thread of the program makes system calls without exits, and when: only while it makes many, and only while the poller keeps up. Used by
/// the thread's host thread; the poller reads <see cref="Words"/> and counts.
/// </summary>
internal sealed unsafe class CallRing
{
    /// <summary>Calls that are looked at together.</summary>
    private const int Calls = 64;

    /// <summary>Exits until a poller that did not keep up gets another chance.</summary>
    private const int FirstPause = 32, LongestPause = 1_024;

    /// <summary>Rounds of the stub's wait, 20-40 ns each: about what an exit costs, so that waiting in vain at most doubles it.</summary>
    private const uint Patience = 1_000;

    /// <summary>In this time <see cref="Calls"/> exits take about a quarter of a processor, where polling is of use at all.</summary>
    private static readonly long s_busy = Stopwatch.Frequency * Calls * 110 / 1_000_000;

    private readonly SyscallPoller? _poller;
    private readonly Vcpu _vcpu;
    private long _begin;
    private int _calls, _pause, _nextPause = FirstPause;
    private int _backSeen;
    private long _answeredSeen;

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
        if (_pause > 0)
        {
            if (--_pause == 0)
                _poller.Update(this);
            return;
        }

        if (++_calls < Calls)
            return;
        _calls = 0;
        var now = Stopwatch.GetTimestamp();
        var busy = now - _begin < s_busy;
        _begin = now;
        if (_poller.Awake)
            JudgePoller();
        else if (busy)
            _poller.Wake(_vcpu);
    }

    /// <summary>The thread ends, or is about to get a descriptor table of its own.</summary>
    internal void Close() => _poller?.Remove(this);

    private void JudgePoller()
    {
        var back = Words->TakenBack - _backSeen;
        var answered = Completed + Declined;
        var inTime = answered - _answeredSeen;
        _backSeen = Words->TakenBack;
        _answeredSeen = answered;
        // A call taken back costs an exit and the wait; one answered saves most of an exit.
        if (inTime >= back)
        {
            _nextPause = FirstPause;
            return;
        }

        _pause = _nextPause;
        _nextPause = Math.Min(2 * _nextPause, LongestPause);
        _poller!.Update(this);
    }
}
