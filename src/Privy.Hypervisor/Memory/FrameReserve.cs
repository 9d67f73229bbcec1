using Privy.Hypervisor.Boot;
using Privy.Hypervisor.Host;
using Privy.Kernel;

namespace Privy.Hypervisor.Memory;

/// <summary>Has the host find memory for pool frames before the kernel hands them out.</summary>
/// <remarks>
/// While there are snapshots a thread keeps ahead of the writers, with low priority: where the host needs milliseconds for each 2 MB, it would keep the
/// program and whoever waits for it from their processors. A reader that needs more does the work itself (<see cref="Serve"/>).
/// </remarks>
internal sealed unsafe class FrameReserve(Machine machine)
{
    // What a reader's copies are given at a time, above what is left to faults.
    private const ulong Piece = 2 * Layout.LargePageSize;

    // Kept ahead of writers: what they can copy while the thread waits for a processor. A child that ends soon, with little written beside it, needs less: as much
    // again as was used, at least what is kept between snapshots.
    private const ulong MostAhead = 64UL << 20;

    private const int ShortestRest = 2;
    private const int LongestRest = 250;

    private readonly SemaphoreSlim _snapshot = new(0);
    private bool _started;

    /// <summary>A snapshot was taken. Called by one thread.</summary>
    internal void Begin()
    {
        _snapshot.Release();
        if (_started)
            return;
        _started = true;
        new Thread(KeepAhead, 256 * 1024) { IsBackground = true, Name = "privy-frames" }.Start();
    }

    /// <summary>Makes frames ready until so many bytes of them are ahead of the one handed out last.</summary>
    internal void Populate(ulong ahead)
    {
        var state = machine.State;
        for (; ; )
        {
            // Frames that were handed out have memory: by now, or by the copy that is on its way.
            var from = Math.Max(Volatile.Read(ref state->PoolReady), Volatile.Read(ref state->PoolNext));
            var to = Math.Min(LargePageUp(from + 1), state->PoolEnd);
            if (from >= to || from >= Volatile.Read(ref state->PoolNext) + ahead || machine.Slots.Ensure(from) != 0)
                return;
            HostMemory.Populate((ulong)Machine.PoolHost(from), to - from);
            // What the kernel keeps for each of them lies in an array of 2 MB pages as well.
            HostMemory.Populate((ulong)(state->Frames + ((from - state->PoolStart) / Layout.PageSize)), (to - from) / Layout.PageSize * (ulong)sizeof(FrameInfo));
            Raise(ref state->PoolReady, to);
        }
    }

    /// <summary>Serves <see cref="HostRequest.NeedReadyFrames"/>. Returns 0, or a negative errno when nothing was to be had.</summary>
    internal long Serve()
    {
        var before = Volatile.Read(ref machine.State->PoolReady);
        Populate(Piece);
        return Volatile.Read(ref machine.State->PoolReady) > before ? 0 : -Errno.ENOMEM;
    }

    internal static ulong LargePageUp(ulong value) => (value + Layout.LargePageSize - 1) & ~(Layout.LargePageSize - 1);

    private void KeepAhead()
    {
        const ulong process = 0, self = 0, lowPriority = 10;
        _ = HostSyscall.RawQuick(Syscalls.SyscallNumber.setpriority, process, self, lowPriority);
        var state = machine.State;
        while (true)
        {
            _snapshot.Wait();
            ulong last = 0;
            for (var rest = ShortestRest; Volatile.Read(ref state->ActiveMask) != 0; _snapshot.Wait(rest))
            {
                Populate(Math.Min(MostAhead, SnapshotReserve.FramesKept + Volatile.Read(ref state->PoolNext) - state->PoolStart));
                var next = Volatile.Read(ref state->PoolNext);
                rest = next != last ? ShortestRest : Math.Min(rest * 2, LongestRest);
                last = next;
            }
        }
    }

    // Without the kernel's lock: main would wait for it while a thread of low priority that has it waits for a processor.
    private static void Raise(ref ulong value, ulong to)
    {
        for (var old = Volatile.Read(ref value); old < to;)
        {
            var seen = Interlocked.CompareExchange(ref value, to, old);
            if (seen == old)
                return;
            old = seen;
        }
    }
}
