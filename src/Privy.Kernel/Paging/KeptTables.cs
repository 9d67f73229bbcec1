namespace Privy.Kernel;

/// <summary>
/// Main's page tables are used again for the same 2 MB after the next snapshot, and on no chain. Under shadow paging KVM has shadows of them,
/// which it finds again; for a table that was never one, or was one of something else, it must make one, and makes all processors forget that the table's frame could be
/// written: 20 to 60 us more for each 2 MB that is written to after each snapshot.
/// </summary>
internal static unsafe class KeptTables
{
    /// <summary>
    /// Replaces main's 2 MB entry of an address by a page table with the same translations, as <see cref="Walk.Split"/> does. The entry is read-only.
    /// </summary>
    internal static Outcome Split(KernelState* k, ulong address, ulong* directory)
    {
        Outcome outcome = Take(k, address, out ulong kept);
        if (outcome != Outcome.Done)
            return outcome;
        if (kept == 0)
            return Walk.Split(k, k->Spaces, address, directory, -1, keepAccessed: true, out _);
        ulong* table = Tables.At(k, kept);
        ulong page = Walk.Read(directory) & ~Entry.Large;
        for (int i = 0; i < Entry.Count; i++, page += Layout.PageSize)
        {
            // A store costs more than a look.
            if (table[i] != page)
                Walk.Write(table + i, page);
        }
        Walk.Write(directory, Walk.TableEntry(k, k->Spaces, kept));
        return Outcome.Done;
    }

    /// <summary>Hangs an empty page table below main's absent directory entry of an address, as <see cref="Walk.MakeTable"/> does.</summary>
    internal static Outcome Make(KernelState* k, ulong address, ulong* directory)
    {
        Outcome outcome = Take(k, address, out ulong kept);
        if (outcome != Outcome.Done)
            return outcome;
        if (kept == 0)
            return Walk.MakeTable(k, k->Spaces, address, directory);
        Intrinsics.ZeroPage(Tables.At(k, kept));
        Walk.Write(directory, Walk.TableEntry(k, k->Spaces, kept));
        return Outcome.Done;
    }

    /// <summary>The place for the table of an address, which another 2 MB may have taken; null where none are kept.</summary>
    internal static KeptTable* At(KernelState* k, ulong address) =>
        k->KeptTables == null ? null : k->KeptTables + (address >> 21 & k->KeptTableMask);

    /// <summary>The table kept for an address, made if there is none; 0 where it is in use already: by another 2 MB, or by this one before it got a large page.</summary>
    private static Outcome Take(KernelState* k, ulong address, out ulong table)
    {
        table = 0;
        KeptTable* kept = At(k, address);
        ulong noRegion = k->MainEpoch | KeptTable.NoRegion;
        if (kept == null || kept->Epoch == k->Epoch || kept->Epoch == noRegion)
            return Outcome.Done;
        // It may hold what tells which pages main has written.
        RegionWrites.Settle(k);
        if (kept->Table == 0)
        {
            kept->Table = Tables.Allocate(k, null);
            if (kept->Table == 0)
                return Outcome.NeedTables;
            k->KeptTableCount++;
        }
        bool region = Tables.IsRegion(k, address);
        kept->Epoch = region ? k->Epoch : noRegion;
        // Half of what was written in a region before still counts (ViewBlocks.IsHot).
        if (region)
            Tables.HalveFaults(k, kept->Table);
        else
            Tables.ForgetFaults(k, kept->Table);
        table = kept->Table;
        return Outcome.Done;
    }
}
