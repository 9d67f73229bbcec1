using System.Collections.Concurrent;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Privy.Hypervisor.Host;

/// <summary>A host thread that makes the program's system calls and can be kicked out of them. Created and disposed on that thread.</summary>
public sealed unsafe class HostThread : IDisposable
{
    private const int SigevThreadId = 4;

    // A signal handler of the runtime takes microseconds; the repetition only has to come after it, and to be cheap if it does not.
    private const long RepeatAfter = 100_000;

    private const int NoTimer = -1;

    private readonly int _processId;
    // Blocks go to other threads and are never freed: whoever holds a disposed object may still read its block.
    private static readonly ConcurrentBag<nint> FreeBlocks = [];

    private readonly HostThreadBlock* _block;

    // Keeps an interrupt of a disposed thread away from the thread that has its block now, which would take it for one that it has been kicked for.
    private readonly Lock _gate = new();
    private bool _disposed;
    private int _tick = -1;

    /// <summary>Makes the calling thread kickable.</summary>
    public HostThread()
    {
        SafeSyscall.Install();
        _processId = Environment.ProcessId;
        ThreadId = (int)HostSyscall.RawQuick(HostCallNumber.Gettid);
        _block = (HostThreadBlock*)(FreeBlocks.TryTake(out nint free) ? free : (nint)NativeMemory.AlignedAlloc(64, 64));
        *_block = new HostThreadBlock { ThreadId = ThreadId, RepeatNanoseconds = RepeatAfter };

        // The process may have been started with everything blocked.
        ulong kicks = SafeSyscall.Kicks.Bits;
        HostSyscall.RawQuick(HostCallNumber.RtSigprocmask, 1, (ulong)&kicks, 0, 8);

        _block->RepeatTimer = CreateTimer();
    }

    /// <summary>Id of the thread in the host.</summary>
    public int ThreadId { get; }

    /// <summary>The words shared with kickers. Valid until <see cref="Dispose"/>.</summary>
    public HostThreadBlock* Block => _block;

    /// <summary>On the thread itself: kicks it once after so many nanoseconds, out of the guest or out of a call that waits. Replaces the one before.</summary>
    public void ArmTick(long nanoseconds)
    {
        if (_tick < 0)
            _tick = CreateTimer();
        var once = stackalloc long[4];
        (once[0], once[1], once[2], once[3]) = (0, 0, 0, nanoseconds);
        HostSyscall.RawQuick(HostCallNumber.TimerSettime, (ulong)_tick, 0, (ulong)once);
    }

    /// <summary>On the thread itself: the kick that was armed does not come.</summary>
    public void DisarmTick() => ArmTick(0);

    /// <summary>A timer whose signal is this thread's kick.</summary>
    private int CreateTimer()
    {
        // struct sigevent: value, signal, notify, then the thread id.
        byte* sigevent = stackalloc byte[64];
        new Span<byte>(sigevent, 64).Clear();
        *(HostThreadBlock**)sigevent = _block;
        *(int*)(sigevent + 8) = SafeSyscall.KickSignal;
        *(int*)(sigevent + 12) = SigevThreadId;
        *(int*)(sigevent + 16) = ThreadId;
        int timer;
        // Refused when the user's signal queue is full (RLIMIT_SIGPENDING): better a thread whose kicks are not repeated than none.
        return HostSyscall.RawQuick(HostCallNumber.TimerCreate, 1, (ulong)sigevent, (ulong)&timer) < 0 ? NoTimer : timer;
    }

    /// <summary>True from <see cref="Interrupt"/> to <see cref="ClearInterrupt"/>.</summary>
    public bool InterruptPending => Volatile.Read(ref _block->InterruptPending) != 0;

    /// <summary><see cref="SafeSyscall.Invoke"/> on this thread, which must be the calling one.</summary>
    public long Invoke(long number, ulong a0 = 0, ulong a1 = 0, ulong a2 = 0, ulong a3 = 0, ulong a4 = 0, ulong a5 = 0) =>
        SafeSyscall.Invoke(_block, number, a0, a1, a2, a3, a4, a5);

    /// <summary>
    /// From any thread: makes the call in flight, or else the next one, end early. Store what the thread is to look at before; repeated
    /// interrupts until <see cref="ClearInterrupt"/> cost no further signal.
    /// </summary>
    public void Interrupt()
    {
        lock (_gate)
            if (!_disposed && Interlocked.Exchange(ref _block->InterruptPending, 1) == 0)
                SendKick();
    }

    /// <summary>On the thread itself, before it looks at what is pending: whatever is stored later interrupts again.</summary>
    public void ClearInterrupt() => Interlocked.Exchange(ref _block->InterruptPending, 0);

    /// <summary>Sends the kick signal alone: ends a <c>KVM_RUN</c> (whose caller has set <c>immediate_exit</c>) or a call in flight.</summary>
    public void Kick()
    {
        lock (_gate)
            if (!_disposed)
                SendKick();
    }

    [SkipLocalsInit]
    private void SendKick()
    {
        // The block travels with the signal, so that the handler can see whether the thread is inside a call.
        byte* info = stackalloc byte[128];
        new Span<byte>(info, 128).Clear();
        *(int*)info = SafeSyscall.KickSignal;
        *(int*)(info + 8) = -1; // SI_QUEUE
        *(int*)(info + 16) = _processId;
        *(HostThreadBlock**)(info + 24) = _block;
        long result = HostSyscall.RawQuick(HostCallNumber.RtTgsigqueueinfo, (ulong)_processId, (ulong)ThreadId, SafeSyscall.KickSignal, (ulong)info);
        // EAGAIN: no room in the queue of real-time signals. The spare kick carries no block: if it meets another handler, nobody knows, so it is repeated from here.
        if (result != -Errno.EAGAIN)
            return;
        Send(ThreadId, SafeSyscall.SpareKickSignal);
        InterruptRepeater.Add(this);
    }

    /// <summary>Sends the kick signal to a thread of this process. No error if it is gone.</summary>
    public static void Kick(int threadId)
    {
        if (Send(threadId, SafeSyscall.KickSignal) == -Errno.EAGAIN)
            Send(threadId, SafeSyscall.SpareKickSignal);
    }

    /// <summary>Kicks the thread once more if it is in a call that an interrupt should have ended. False: it has seen the interrupt, or is gone.</summary>
    internal bool RepeatInterrupt()
    {
        lock (_gate)
        {
            if (_disposed || !InterruptPending)
                return false;
            if (Volatile.Read(ref _block->InCall) != 0)
                Send(ThreadId, SafeSyscall.SpareKickSignal);
            return true;
        }
    }

    private static long Send(int threadId, int signal) =>
        HostSyscall.RawQuick(HostCallNumber.Tgkill, (ulong)Environment.ProcessId, (ulong)threadId, (ulong)signal);

    /// <summary>On the thread itself; later interrupts do nothing.</summary>
    public void Dispose()
    {
        lock (_gate)
        {
            if (_disposed)
                return;
            _disposed = true;
        }
        // Kicks sent before have been delivered to this thread by the time this call returns.
        HostSyscall.RawQuick(HostCallNumber.TimerDelete, (ulong)_block->RepeatTimer);
        if (_tick >= 0)
            HostSyscall.RawQuick(HostCallNumber.TimerDelete, (ulong)_tick);
        FreeBlocks.Add((nint)_block);
    }
}
