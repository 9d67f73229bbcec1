namespace Privy.Kernel;

/// <summary>The map of all guest-physical memory in the kernel half; made a gigabyte at a time.</summary>
internal static unsafe class DirectMap
{
    internal static void* At(KernelState* k, ulong physical) => (void*)(k->DirectBase + physical);

    /// <summary>Makes sure that <see cref="At"/> of the gigabyte of <paramref name="physical"/> can be used.</summary>
    internal static Outcome Ensure(KernelState* k, VcpuArea* v, ulong physical)
    {
        if (physical >= k->PhysicalEnd)
            HostCall.Panic(v, PanicCode.PhysicalRange, physical);
        Outcome slot = Slots.Ensure(k, v, physical);
        if (slot != Outcome.Done || k->DirectTables == 0)
            return slot;

        ulong* entry = Tables.At(k, k->DirectTables) + (physical >> 30);
        if (*entry != 0)
            return Outcome.Done;
        ulong table = Tables.Allocate(k, null);
        if (table == 0)
            return Outcome.NeedTables;
        k->DirectTableCount++;
        ulong* directory = Tables.At(k, table);
        ulong mapping = (physical & ~(Layout.Gigabyte - 1)) | Entry.Present | Entry.Writable | Entry.User
            | Entry.Accessed | Entry.Dirty | Entry.Large | Entry.NoExecute;
        for (int i = 0; i < Entry.Count; i++)
            directory[i] = mapping + ((ulong)i << 21);
        System.Threading.Volatile.Write(ref *entry, table | Entry.Present | Entry.Writable | Entry.User | Entry.Accessed);
        return Outcome.Done;
    }
}
