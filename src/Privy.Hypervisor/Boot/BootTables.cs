using Privy.Kernel;

namespace Privy.Hypervisor.Boot;

/// <summary>
/// Builds the kernel half of the address space: the page tables that main and all snapshots share. The host writes them
/// before the guest first runs and never again, because a table in use that is written by the host goes unnoticed under shadow paging.
/// </summary>
internal sealed unsafe class BootTables
{
    private const ulong Present = 1;
    private const ulong Writable = 2;
    private const ulong User = 4;
    private const ulong AccessedDirty = 0x60;
    private const ulong Large = 0x80;
    private const ulong NoExecute = 1UL << 63;
    private const ulong AddressMask = 0x000F_FFFF_FFFF_F000;

    private readonly KernelState* _state;

    internal BootTables(KernelState* state)
    {
        _state = state;
        Root = NewTable();
    }

    /// <summary>Guest-physical address of the top-level table.</summary>
    internal ulong Root { get; }

    /// <summary>Maps a range by 2 MB entries; addresses and length are multiples of 2 MB.</summary>
    internal void MapLarge(ulong address, ulong physical, ulong length, bool execute)
    {
        for (ulong offset = 0; offset < length; offset += Layout.LargePageSize)
            *Entry(address + offset, 1) = (physical + offset) | Present | Writable | User | AccessedDirty | Large | (execute ? 0 : NoExecute);
    }

    /// <summary>Maps one 4 KB page.</summary>
    internal void MapPage(ulong address, ulong physical, bool write, bool execute) =>
        *Entry(address, 0) = physical | Present | User | AccessedDirty | (write ? Writable : 0) | (execute ? 0 : NoExecute);

    /// <summary>Makes the page-directory-pointer table for a range of 512 GB; returns its guest-physical address.</summary>
    internal ulong MakeDirectoryPointers(ulong address) => PhysicalOf(Table(address, 2));

    private ulong* Entry(ulong address, int level) => Table(address, level) + Index(address, level);

    /// <summary>The table of a level (0: page table, 3: top) that holds the entry for an address; made when absent.</summary>
    private ulong* Table(ulong address, int level)
    {
        var table = VirtualOf(Root);
        for (var at = 3; at > level; at--)
        {
            var entry = table + Index(address, at);
            if ((*entry & Present) == 0)
                *entry = NewTable() | Present | Writable | User | AccessedDirty;
            table = VirtualOf(*entry & AddressMask);
        }

        return table;
    }

    private ulong NewTable()
    {
        var table = _state->TableNext;
        if (table >= _state->TableEnd)
            throw new InvalidOperationException("the kernel region is too small for the boot page tables");
        _state->TableNext += Layout.PageSize;
        return PhysicalOf((ulong*)table);
    }

    private static int Index(ulong address, int level) => (int)((address >> (12 + (9 * level))) & 511);

    private ulong PhysicalOf(ulong* table) => (ulong)table - _state->KernelBase + _state->KernelPhysical;

    private ulong* VirtualOf(ulong physical) => (ulong*)(physical - _state->KernelPhysical + _state->KernelBase);
}
