using Privy.Kernel;

namespace Privy.Hypervisor.Memory;

/// <summary>Reads tables from the host: whether they hold entries for a range, so that a call into the kernel can be saved when they do not, and how many.</summary>
internal static unsafe class TableScan
{
    internal static bool AnyEntry(KernelState* state, ulong root, ulong start, ulong end)
    {
        return Scan(state, root, 3, start, end);
    }

    /// <summary>Counts the pages of a space in [start, end): those in frames of the pool, and those at their linear place.</summary>
    internal static MemoryListing.PageCount Count(KernelState* state, ulong root, ulong start, ulong end)
    {
        ulong own = 0, linear = 0;
        Count(state, root, 3, start, end, ref own, ref linear);
        return new MemoryListing.PageCount(own, linear);
    }

    private static void Count(KernelState* state, ulong table, int level, ulong start, ulong end, ref ulong own, ref ulong linear)
    {
        var entries = (ulong*)(table - state->KernelPhysical + state->KernelBase);
        var span = 1UL << (12 + (9 * level));
        for (var address = start; address < end;)
        {
            var next = Math.Min(end, (address & ~(span - 1)) + span);
            var entry = Volatile.Read(ref entries[(address >> (12 + (9 * level))) & 511]);
            if (level == 0)
            {
                if ((entry & Entry.Explicit) == 0)
                    linear += (entry & Entry.Present) != 0 ? 1UL : 0;
                else if ((entry & Entry.Private) != 0 || (entry & Entry.AddressMask) != state->ZeroFrame)
                    own++;
            }
            else if (level == 1 && (entry & Entry.Large) != 0)
                linear += (entry & Entry.Present) != 0 ? (next - address) / Layout.PageSize : 0;
            else if ((entry & Entry.Present) != 0)
                Count(state, entry & Entry.AddressMask, level - 1, address, next, ref own, ref linear);
            address = next;
        }
    }

    private static bool Scan(KernelState* state, ulong table, int level, ulong start, ulong end)
    {
        var entries = (ulong*)(table - state->KernelPhysical + state->KernelBase);
        var span = 1UL << (12 + (9 * level));
        for (var address = start; address < end; address = (address & ~(span - 1)) + span)
        {
            var entry = Volatile.Read(ref entries[(address >> (12 + (9 * level))) & 511]);
            if (entry == 0)
                continue;
            if (level == 0 || (level == 1 && (entry & Entry.Large) != 0))
                return true;
            if (Scan(state, entry & Entry.AddressMask, level - 1, address, Math.Min(end, (address & ~(span - 1)) + span)))
                return true;
        }

        return false;
    }
}
