using Privy.Hypervisor.Boot;
using Privy.Hypervisor.Host;
using Privy.Kernel;

namespace Privy.Hypervisor.Memory;

/// <summary>
/// Keeps host memory ready behind the table frames that snapshots take, and gives back what lies behind the pool when no snapshot is left. Used by one background thread.
/// </summary>
/// <remarks>
/// Measured: a snapshot takes some 40 table frames, so each dozen snapshots would meet one 2 MB page that the host has yet to
/// find and zero, which takes 5 ms in a virtual machine whose own memory is not backed yet.
/// </remarks>
/// <param name="machine">The machine.</param>
/// <param name="aheadBytes">Most memory that copies ahead of main's writes may take; null: half of what the system has to spare.</param>
internal sealed unsafe class SnapshotReserve(Machine machine, ulong? aheadBytes)
{
    private const ulong TablesAhead = 4UL << 20;

    // Kept while there is no snapshot, so that the next one's first writes find frames.
    internal const ulong FramesKept = 16UL << 20;

    private const int RestBetweenParts = 2;
    private const int RestBesideSnapshots = 250;
    private const int LullBeforeGivingBack = 1000;
    private const ulong GivenBackAtOnce = 64UL << 20;

    private readonly FrameReserve _frames = machine.Frames;
    private readonly HostProcessMemory _memory = new();
    private ulong _tablesReady;
    private bool _lull;

    /// <summary>How long the thread may wait for a fork before it calls <see cref="Tend"/>, in milliseconds; -1: for ever.</summary>
    internal int Rest { get; private set; } = -1;

    /// <summary>Makes the reserve whole again, after a fork.</summary>
    /// <param name="forFirst">Before any snapshot: a little of each, as most programs never take one.</param>
    internal void Replenish(bool forFirst)
    {
        var state = machine.State;
        var share = forFirst ? 4UL : 1;
        var next = Volatile.Read(ref state->TableNext);
        var from = Math.Max(_tablesReady, next);
        var to = Math.Min(FrameReserve.LargePageUp(next + (TablesAhead / share)), state->TableEnd);
        if (from < to)
        {
            HostMemory.Populate(from, to - from);
            _tablesReady = to;
        }

        // Beside a snapshot the frames' own thread does it: this one has a child to make, and would not catch up with the writers.
        if (forFirst)
            _frames.Populate(FramesKept / share);
        else
            _frames.Begin();
        // What the kernel keeps for each table lies in an array of 2 MB pages as well.
        HostMemory.Populate((ulong)(state->TableLinks + ((next - state->TableStart) / Layout.PageSize)), TablesAhead / share / Layout.PageSize * sizeof(ulong));
        state->AheadLimit = (aheadBytes ?? Spare() / 2) / Layout.PageSize;
        if (forFirst)
            return;
        Rest = RestBesideSnapshots;
        _lull = false;
    }

    /// <summary>Gives back what snapshots needed, some time after the last one has ended.</summary>
    internal void Tend()
    {
        var state = machine.State;
        if (Volatile.Read(ref state->ActiveMask) != 0)
        {
            _lull = false;
            Rest = RestBesideSnapshots;
        }
        else if (!_lull)
        {
            _lull = true;
            Rest = LullBeforeGivingBack;
        }
        else
        {
            Rest = GiveBack() ? RestBetweenParts : -1;
        }
    }

    /// <summary>Gives back the memory behind unused frames, from the end, a part at a time. False: there is no more.</summary>
    private bool GiveBack()
    {
        var state = machine.State;
        for (ulong given = 0; given < GivenBackAtOnce; given += Layout.LargePageSize)
        {
            // The lock keeps the kernel from taking these frames; for a 2 MB page the host needs it for some ten microseconds.
            HostKernelLock.Acquire(state);
            try
            {
                var piece = (state->PoolReady - 1) & ~(Layout.LargePageSize - 1);
                if (state->ActiveMask != 0 || piece < state->PoolStart + FramesKept || piece < state->PoolNext)
                    return false;
                _ = HostMemory.Advise((ulong)Machine.PoolHost(piece), state->PoolReady - piece, HostMemory.MADV_DONTNEED);
                state->PoolReady = piece;
            }
            finally
            {
                HostKernelLock.Release(state);
            }
        }

        return true;
    }

    /// <summary>Memory that the system has to spare, not counting what the pool has already.</summary>
    private ulong Spare() => _memory.Available() + (machine.State->PoolReady - machine.State->PoolStart);
}
