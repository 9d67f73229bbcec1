namespace Privy.Kernel;

/// <summary>Finds and makes the tables on the way to an address.</summary>
internal static unsafe class Walk
{
    internal static int RootIndex(ulong address) => (int)(address >> 39) & 511;

    internal static int PointerIndex(ulong address) => (int)(address >> 30) & 511;

    internal static int DirectoryIndex(ulong address) => (int)(address >> 21) & 511;

    internal static int TableIndex(ulong address) => (int)(address >> 12) & 511;

    /// <summary>An entry as it is now: hardware sets A and D, and other vCPUs edit tables.</summary>
    internal static ulong Read(ulong* entry) => System.Threading.Volatile.Read(ref *entry);

    internal static void Write(ulong* entry, ulong value) => System.Threading.Volatile.Write(ref *entry, value);

    /// <summary>Replaces an entry and returns the old one with the A bit it had at that instant.</summary>
    internal static ulong Exchange(ulong* entry, ulong value) =>
        (ulong)System.Threading.Interlocked.Exchange(ref *(long*)entry, (long)value);

    /// <summary>Stores <paramref name="value"/> if the entry is still <paramref name="old"/>.</summary>
    internal static bool CompareExchange(ulong* entry, ulong value, ulong old) =>
        (ulong)System.Threading.Interlocked.CompareExchange(ref *(long*)entry, (long)value, (long)old) == old;

    /// <summary>The page-directory entry of an address, or null when there is no directory.</summary>
    internal static ulong* Directory(KernelState* k, Space* space, ulong address)
    {
        ulong entry = Read(Tables.At(k, space->Root) + RootIndex(address));
        if ((entry & Entry.Present) == 0)
            return null;
        entry = Read(Tables.At(k, entry) + PointerIndex(address));
        if ((entry & Entry.Present) == 0)
            return null;
        return Tables.At(k, entry) + DirectoryIndex(address);
    }

    /// <summary>The page-table entry of an address, or null when there is no page table.</summary>
    internal static ulong* Page(KernelState* k, Space* space, ulong address)
    {
        ulong* directory = Directory(k, space, address);
        if (directory == null)
            return null;
        ulong entry = Read(directory);
        if ((entry & (Entry.Present | Entry.Large)) != Entry.Present)
            return null;
        return Tables.At(k, entry) + TableIndex(address);
    }

    /// <summary>The entry of a page: its page table's, or what that would be of a 2 MB entry; 0: none.</summary>
    internal static ulong PageEntry(KernelState* k, Space* space, ulong address)
    {
        ulong* directory = Directory(k, space, address);
        ulong entry = directory == null ? 0 : Read(directory);
        if ((entry & Entry.Present) == 0)
            return 0;
        if ((entry & Entry.Large) != 0)
            return (entry & ~Entry.Large) + ((ulong)TableIndex(address) << 12);
        return Read(Tables.At(k, entry) + TableIndex(address));
    }

    // A snapshot's tables start with A = 0, so that clearing the A bits descends only where the snapshot was.
    internal static ulong TableEntry(KernelState* k, Space* space, ulong table) =>
        table | Entry.Present | Entry.Writable | Entry.User | (space == k->Spaces ? Entry.Accessed : 0);

    /// <summary>Makes the tables down to the page directory; an empty one changes nothing: absent entries are computed when touched.</summary>
    internal static Outcome MakeDirectory(KernelState* k, Space* space, ulong address, out ulong* directory, out bool fresh)
    {
        fresh = false;
        directory = null;
        ulong* rootEntry = Tables.At(k, space->Root) + RootIndex(address);
        ulong entry = Read(rootEntry);
        if (entry == 0)
        {
            ulong table = Tables.Allocate(k, space, address, 3);
            if (table == 0)
                return Outcome.NeedTables;
            entry = TableEntry(k, space, table);
            Write(rootEntry, entry);
            Write(Tables.At(k, space->AliasRoot) + RootIndex(address), entry);
        }
        ulong* pointerEntry = Tables.At(k, entry) + PointerIndex(address);
        entry = Read(pointerEntry);
        if (entry == 0)
        {
            ulong table = Tables.Allocate(k, space, address, 2);
            if (table == 0)
                return Outcome.NeedTables;
            entry = TableEntry(k, space, table);
            Write(pointerEntry, entry);
            fresh = true;
        }
        directory = Tables.At(k, entry) + DirectoryIndex(address);
        return Outcome.Done;
    }

    /// <summary>Hangs an empty page table below the absent directory entry of an address.</summary>
    internal static Outcome MakeTable(KernelState* k, Space* space, ulong address, ulong* directory)
    {
        ulong table = Tables.Allocate(k, space, address, 1);
        if (table == 0)
            return Outcome.NeedTables;
        Write(directory, TableEntry(k, space, table));
        return Outcome.Done;
    }

    /// <summary>
    /// Replaces the 2 MB entry of an address by a page table with the same translations, except that the entry of index
    /// <paramref name="omit"/> (if not negative) stays absent. With <paramref name="keepAccessed"/> the new
    /// entries inherit the A bit, since translations made by the old entry may stay cached; without it the
    /// caller must flush every vCPU of the space when <paramref name="accessed"/> comes back true.
    /// </summary>
    internal static Outcome Split(
        KernelState* k, Space* space, ulong address, ulong* directory, int omit, bool keepAccessed, out bool accessed)
    {
        accessed = false;
        ulong tableAddress = Tables.Allocate(k, space, address, 1);
        if (tableAddress == 0)
            return Outcome.NeedTables;
        ulong* table = Tables.At(k, tableAddress);
        ulong page = Read(directory) & ~Entry.Large;
        if (!keepAccessed)
            page &= ~Entry.Accessed;
        for (int i = 0; i < Entry.Count; i++)
        {
            if (i != omit)
                table[i] = page + ((ulong)i << 12);
        }
        ulong old = Exchange(directory, TableEntry(k, space, tableAddress));
        accessed = (old & Entry.Accessed) != 0;
        if (keepAccessed && (old & ~page & Entry.Accessed) != 0)
        {
            // Hardware set A between the read and the exchange.
            for (int i = 0; i < Entry.Count; i++)
            {
                if (i != omit)
                    SetAccessed(table + i);
            }
        }
        return Outcome.Done;
    }

    private static void SetAccessed(ulong* entry)
    {
        ulong old;
        do
            old = Read(entry);
        while (!CompareExchange(entry, old | Entry.Accessed, old));
    }
}
