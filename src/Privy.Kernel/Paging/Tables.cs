namespace Privy.Kernel;

/// <summary>
/// Table frames. They live in the kernel region and are chained a space, so that dropping a whole tree is one splice.
/// </summary>
internal static unsafe class Tables
{
    /// <summary>Pointer to a table; <paramref name="entry"/> may carry attribute bits.</summary>
    internal static ulong* At(KernelState* k, ulong entry) =>
        (ulong*)((entry & Entry.AddressMask) - k->KernelPhysical + k->KernelBase);

    private static ulong* Link(KernelState* k, ulong table) =>
        k->TableLinks + ((table - k->KernelPhysical + k->KernelBase - k->TableStart) >> 12);

    /// <summary>The table after <paramref name="table"/> in its chain; 0: none.</summary>
    internal static ulong Next(KernelState* k, ulong table) => *Link(k, table) & KernelState.TableLinkMask;

    /// <summary>
    /// Counts a copy-on-write fault of main under one of its page tables, and returns how many there were since the table was made, this
    /// one included.
    /// </summary>
    internal static int CountFault(KernelState* k, ulong entry)
    {
        ulong* link = Link(k, entry & Entry.AddressMask);
        ulong count = *link & ~KernelState.TableLinkMask;
        if (count == ~KernelState.TableLinkMask)
            return (int)count;
        *link += 1;
        return (int)count + 1;
    }

    /// <summary>A zeroed table on a chain (null: on none); 0 when there is none left.</summary>
    internal static ulong Allocate(KernelState* k, TableChain* chain)
    {
        ulong table = Take(k, out bool used);
        if (table == 0)
            return 0;
        // Zeroed here, by the guest: under shadow paging stores of the host to a former table go unnoticed.
        if (used)
            Intrinsics.ZeroPage(At(k, table));
        if (chain != null)
            Chain(k, chain, table);
        return table;
    }

    /// <summary>A zeroed table for a space, on its chain; 0 when there is none left.</summary>
    internal static ulong Allocate(KernelState* k, Space* space, ulong address, int level)
    {
        TableChain* chain = ChainOf(k, space, address, level);
        ulong table = 0;
        if (space->View != 0 && k->CleanTables != 0)
            table = TakeClean(k, out _);
        else if (level == 1 && k->FreeLeaves != 0)
            table = TakeLeaf(k);
        if (table == 0)
            return Allocate(k, chain);
        Intrinsics.ZeroPage(At(k, table));
        Chain(k, chain, table);
        return table;
    }

    /// <summary>Frees the tables of a view that no processor has walked.</summary>
    internal static void FreeClean(KernelState* k, TableChain* chain)
    {
        if (chain->First == 0 || k->CleanTableCount + chain->Count > KernelState.CleanTablesMost)
            return;
        *Link(k, chain->Last) = k->CleanTables;
        k->CleanTables = chain->First;
        k->CleanTableCount += chain->Count;
        k->TablesInUse -= chain->Count;
        Forget(chain);
    }

    /// <summary>A table with undefined content (<paramref name="used"/>) or zeros; 0 when there is none left.</summary>
    internal static ulong Take(KernelState* k, out bool used)
    {
        ulong table = k->FreeTables;
        bool fresh = k->TableNext < k->TableEnd && k->TableNext - k->TableStart < KernelState.TableRotation;
        if (table != 0 && !fresh)
        {
            used = true;
            k->FreeTables = Next(k, table);
            if (k->FreeTables == 0)
                k->FreeTablesTail = 0;
        }
        else
        {
            if (k->TableNext >= k->TableEnd)
            {
                used = true;
                table = TakeLeaf(k);
                return table != 0 ? table : TakeClean(k, out used);
            }
            used = false;
            table = k->TableNext - k->KernelBase + k->KernelPhysical;
            k->TableNext += Layout.PageSize;
        }
        k->TablesInUse++;
        return table;
    }

    private static ulong TakeLeaf(KernelState* k)
    {
        ulong table = k->FreeLeaves;
        if (table == 0)
            return 0;
        k->FreeLeaves = Next(k, table);
        k->TablesInUse++;
        return table;
    }

    private static ulong TakeClean(KernelState* k, out bool used)
    {
        used = true;
        ulong table = k->CleanTables;
        if (table == 0)
            return 0;
        k->CleanTables = Next(k, table);
        k->CleanTableCount--;
        k->TablesInUse++;
        return table;
    }

    /// <summary>The chain for a table of a space that maps <paramref name="address"/>; <paramref name="level"/> is 1 for page tables.</summary>
    internal static TableChain* ChainOf(KernelState* k, Space* space, ulong address, int level)
    {
        if (space != k->Spaces)
            return level == 1 ? &space->Leaves : &space->Tables;
        return level > 2 || IsRegion(k, address) ? &space->Renewed : &space->Tables;
    }

    /// <summary>Whether main's tables of the gigabyte are replaced when a view is taken.</summary>
    internal static bool IsRegion(KernelState* k, ulong address)
    {
        ulong gigabyte = LinearMap.Physical(k, address) >> 30;
        return (k->RegionGigabytes[gigabyte >> 6] >> (int)(gigabyte & 63) & 1) != 0;
    }

    internal static void Chain(KernelState* k, TableChain* chain, ulong table)
    {
        *Link(k, table) = chain->First;
        if (chain->First == 0)
            chain->Last = table;
        chain->First = table;
        chain->Count++;
    }

    /// <summary>Frees the tables of a snapshot that no vCPU has loaded.</summary>
    internal static void Free(KernelState* k, Space* space)
    {
        TableChain* leaves = &space->Leaves;
        if (leaves->First != 0)
        {
            *Link(k, leaves->Last) = k->FreeLeaves;
            k->FreeLeaves = leaves->First;
            k->TablesInUse -= leaves->Count;
            Forget(leaves);
        }
        TableChain* others = &space->Tables;
        if (others->First == 0)
            return;
        AppendFree(k, others->First, others->Last);
        k->TablesInUse -= others->Count;
        Forget(others);
    }

    /// <summary>Sets tables of main aside: the vCPU that asks is still running on them.</summary>
    internal static void Retire(KernelState* k, TableChain* chain)
    {
        if (chain->First == 0)
            return;
        *Link(k, chain->Last) = k->RetiredTables;
        if (k->RetiredTables == 0)
            k->RetiredTail = chain->Last;
        k->RetiredTables = chain->First;
        k->RetiredCount += chain->Count;
        Forget(chain);
    }

    /// <summary>
    /// Frees main's former trees once a vCPU of main runs on the present one. One is enough: when a snapshot is taken
    /// all others are out of the guest, and the host loads the present root at each entry.
    /// </summary>
    internal static void FreeRetired(KernelState* k, VcpuArea* v)
    {
        Space* main = k->Spaces;
        if (k->RetiredTables == 0 || v->Space != 0 || (v->LoadedRoot != main->Root && v->LoadedRoot != main->AliasRoot))
            return;
        // They hold what tells which pages main has written.
        RegionWrites.Settle(k);
        AppendFree(k, k->RetiredTables, k->RetiredTail);
        k->TablesInUse -= k->RetiredCount;
        k->RetiredTables = 0;
        k->RetiredTail = 0;
        k->RetiredCount = 0;
    }

    // At the end of the queue, see TableRotation.
    private static void AppendFree(KernelState* k, ulong first, ulong last)
    {
        *Link(k, last) = 0;
        if (k->FreeTablesTail == 0)
            k->FreeTables = first;
        else
            *Link(k, k->FreeTablesTail) = first;
        k->FreeTablesTail = last;
    }

    private static void Forget(TableChain* chain)
    {
        chain->First = 0;
        chain->Last = 0;
        chain->Count = 0;
    }

    /// <summary>A top-level table with the kernel half, after <see cref="PrepareRoots"/> under the same lock.</summary>
    internal static ulong TakeRoot(KernelState* k)
    {
        ulong root = k->ReadyRoots;
        k->ReadyRoots = Next(k, root);
        k->ReadyRootCount--;
        return root;
    }

    /// <summary>
    /// Makes sure that so many roots are ready; four are what a snapshot takes (two of it, two of main). What takes another table from them
    /// overwrites it.
    /// </summary>
    internal static Outcome PrepareRoots(KernelState* k, ulong count)
    {
        while (k->ReadyRootCount < count)
        {
            ulong root = Take(k, out _);
            if (root == 0)
                return Outcome.NeedTables;
            Intrinsics.CopyPage(At(k, root), At(k, k->TemplateRoot));
            *Link(k, root) = k->ReadyRoots;
            k->ReadyRoots = root;
            k->ReadyRootCount++;
        }
        return Outcome.Done;
    }
}
