using Privy.Hypervisor.Boot;
using Privy.Hypervisor.Host;
using Privy.Kernel;

namespace Privy.Hypervisor.Memory;

/// <summary>
/// Keeps host memory ready behind the table frames and pool frames that the next snapshot takes, and gives back what lies behind
/// tables of dropped trees. Used by one background thread.
/// </summary>
/// <remarks>
/// Measured: a snapshot takes some 40 table frames, so each dozen snapshots would meet one 2 MB page that the host has yet to
/// find and zero, which takes 5 ms in a virtual machine whose own memory is not backed yet.
/// </remarks>
internal sealed unsafe class SnapshotReserve(Machine machine)
{
    private const ulong TablesAhead = 4UL << 20;
    private const ulong FramesAhead = 16UL << 20;
    private const int TrimBatch = 2048;

    // Tables this close to the end of the rotation may be taken again soon.
    private const ulong TrimMargin = 8192 * Layout.PageSize;

    private ulong _tablesReady;
    private ulong _framesReady = Layout.PoolPhysical;
    private ulong _lastTrimmed;

    /// <summary>Makes the reserve whole again.</summary>
    /// <param name="forFirst">Before any snapshot: a little of each, as most programs never take one.</param>
    internal void Replenish(bool forFirst)
    {
        var state = machine.State;
        var share = forFirst ? 4UL : 1;
        Populate(ref _tablesReady, Volatile.Read(ref state->TableNext), TablesAhead / share, state->TableEnd, physical: false);
        if (machine.Slots.Ensure(Volatile.Read(ref state->PoolNext)) == 0)
            Populate(ref _framesReady, Volatile.Read(ref state->PoolNext), FramesAhead / share, machine.Map.PoolEnd, physical: true);
        // What the kernel keeps for each of them lies in arrays of 2 MB pages as well.
        Touch((ulong)(state->Frames + ((state->PoolNext - Layout.PoolPhysical) / Layout.PageSize)), FramesAhead / share / Layout.PageSize * (ulong)sizeof(FrameInfo));
        Touch((ulong)(state->TableLinks + ((state->TableNext - state->TableStart) / Layout.PageSize)), TablesAhead / share / Layout.PageSize * sizeof(ulong));
    }

    /// <summary>Gives the memory behind long unused tables back to the host.</summary>
    internal void Trim()
    {
        var state = machine.State;
        if (state->TableNext + TrimMargin > state->TableStart + KernelState.TableRotation)
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
            _ = HostMemory.Advise(batch[first], (ulong)(i - first) * Layout.PageSize, HostMemory.MADV_DONTNEED);
        }
    }

    private ulong Next(ulong table) =>
        machine.State->TableLinks[(table - machine.State->KernelPhysical + machine.State->KernelBase - machine.State->TableStart) / Layout.PageSize];

    private static void Populate(ref ulong ready, ulong next, ulong ahead, ulong end, bool physical)
    {
        var from = Math.Max(ready, next);
        var to = Math.Min((next + ahead + Layout.LargePageSize - 1) & ~(Layout.LargePageSize - 1), end);
        if (from >= to)
            return;
        var host = physical ? (ulong)Machine.PoolHost(from) : from;
        Touch(host, to - from);
        ready = to;
    }

    private static void Touch(ulong address, ulong length)
    {
        const int populateWrite = 23;
        var start = address & ~(Layout.PageSize - 1);
        // Linux 5.14; without it the first touch does the work, later.
        _ = HostMemory.Advise(start, (address + length - start + Layout.PageSize - 1) & ~(Layout.PageSize - 1), populateWrite);
    }
}
