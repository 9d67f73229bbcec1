using Privy.Hypervisor.Boot;
using Privy.Hypervisor.Host;
using Privy.Kernel;

namespace Privy.Hypervisor.Memory;

/// <summary>
/// Keeps host memory ready behind the table frames that snapshots take, and gives back what lies behind tables of dropped trees and behind the
/// pool when no snapshot is left. Used by one background thread.
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
    private const int TrimBatch = 2048;

    // Kept while there is no snapshot, so that the next one's first writes find frames.
    internal const ulong FramesKept = 16UL << 20;

    // Tables this close to the end of the rotation may be taken again soon.
    private const ulong TrimMargin = 8192 * Layout.PageSize;

    private const int RestBetweenParts = 2;
    private const int RestBesideSnapshots = 250;
    private const int LullBeforeGivingBack = 1000;
    private const ulong GivenBackAtOnce = 64UL << 20;

    private readonly FrameReserve _frames = machine.Frames;
    private ulong _tablesReady;
    private ulong _lastTrimmed;
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

    /// <summary>Gives the memory behind long unused tables back to the host.</summary>
    internal void Trim()
    {
        var state = machine.State;
        if (MayBeTakenSoon())
            return;
        var batch = new List<ulong>(TrimBatch);
        HostKernelLock.Acquire(state);
        try
        {
            // Free tables queue up at the end and are not taken before the rotation is through, so the part that was given back stays put.
            var table = _lastTrimmed == 0 ? state->FreeTables : Next(_lastTrimmed);
            while (table != 0 && batch.Count < TrimBatch)
            {
                batch.Add(table - state->KernelPhysical + state->KernelBase);
                _lastTrimmed = table;
                table = Next(table);
            }
        }
        finally
        {
            HostKernelLock.Release(state);
        }

        batch.Sort();
        for (var i = 0; i < batch.Count;)
        {
            var first = i;
            while (i + 1 < batch.Count && batch[i + 1] == batch[i] + Layout.PageSize)
                i++;
            i++;
            // Thousands of these take a while, in which thousands of tables may be taken.
            if (MayBeTakenSoon())
                return;
            _ = HostMemory.Advise(batch[first], (ulong)(i - first) * Layout.PageSize, HostMemory.MADV_DONTNEED);
        }
    }

    /// <summary>Whether the rotation may be through so soon that a free table becomes a new one while its memory is given back: it would lose its entries.</summary>
    private bool MayBeTakenSoon() => Volatile.Read(ref machine.State->TableNext) + TrimMargin > machine.State->TableStart + KernelState.TableRotation;

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

    private ulong Next(ulong table) =>
        machine.State->TableLinks[(table - machine.State->KernelPhysical + machine.State->KernelBase - machine.State->TableStart) / Layout.PageSize] & KernelState.TableLinkMask;

    /// <summary>Memory that the system has to spare, not counting what the pool has already.</summary>
    private ulong Spare() => HostProcessMemory.Available() + (machine.State->PoolReady - machine.State->PoolStart);
}
