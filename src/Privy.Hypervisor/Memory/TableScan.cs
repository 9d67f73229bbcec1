using Privy.Kernel;

namespace Privy.Hypervisor.Memory;

/// <summary>Looks whether tables hold entries for a range, so that a call into the kernel can be saved when they do not.</summary>
internal static unsafe class TableScan
{
    internal static bool AnyEntry(KernelState* state, ulong root, ulong start, ulong end)
    {
        return Scan(state, root, 3, start, end);
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
