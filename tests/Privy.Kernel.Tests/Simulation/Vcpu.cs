namespace Privy.Kernel.Tests.Simulation;

internal enum Access
{
    Read,
    Write,
    Fetch,
}

/// <summary>
/// A vCPU with a TLB and a paging-structure cache that keep what they have until CR3 changes or a fault drops it.
/// </summary>
internal sealed unsafe class Vcpu
{
    private readonly Machine _machine;
    private readonly Dictionary<ulong, ulong> _small = [];
    private readonly Dictionary<ulong, ulong> _large = [];
    private readonly Dictionary<ulong, ulong> _directories = [];
    private readonly TrapFrame* _trap;

    public Vcpu(Machine machine, int index)
    {
        _machine = machine;
        Area = (VcpuArea*)(machine.K->VcpuAreas + (ulong)index * Layout.VcpuStride);
        Area->Kernel = machine.K;
        Area->Index = index;
        _trap = (TrapFrame*)((byte*)Area + 4096);
        Area->Trap = _trap;
        Index = index;
    }

    public int Index { get; }

    public VcpuArea* Area { get; }

    public bool InGuest => Area->InGuest != 0;

    public int StaleDrops { get; private set; }

    private KernelState* K => _machine.K;

    public void Assign(int space)
    {
        Area->Space = space;
        Area->FlushPending = 1;
    }

    /// <summary>The host's entry protocol. Loading the root that is loaded already flushes nothing.</summary>
    public void Enter()
    {
        if (Area->InGuest != 0)
            return;
        Area->InGuest = 1;
        Space* space = K->Spaces + Area->Space;
        ulong root = Area->LoadedRoot == space->AliasRoot ? space->AliasRoot : space->Root;
        if (Area->FlushPending != 0)
        {
            Area->FlushPending = 0;
            if (Area->LoadedRoot == root)
                root = root == space->Root ? space->AliasRoot : space->Root;
        }
        if (Area->LoadedRoot != root)
        {
            _small.Clear();
            _large.Clear();
            _directories.Clear();
        }
        Area->LoadedRoot = root;
    }

    public void Exit() => Area->InGuest = 0;

    /// <summary>
    /// Accesses an address: 0 and the physical address, or the fault code the kernel left.
    /// </summary>
    public int Touch(ulong address, Access access, out ulong physical)
    {
        Enter();
        for (int i = 0; i < 12; i++)
        {
            if (Translate(address, access, mayUseCache: true, out physical))
                return 0;
            _trap->Cr2 = address;
            _trap->Rip = 0x1234;
            _trap->Error = 4UL | (access == Access.Write ? 2UL : 0) | (access == Access.Fetch ? 16UL : 0);
            long result = _machine.Code.PageFault(Area);
            Machine.Check(K->Lock == 0, "lock kept");
            int exit = Area->ExitRequest;
            Area->ExitRequest = 0;
            if (exit != 0)
                Exit();
            if ((exit & ExitReason.Fault) != 0)
            {
                Machine.Check(result < 0 && Area->FaultAddress == address, "fault report");
                return Area->FaultCode;
            }
            Enter();
            Machine.Check(result == 0, "result of a resolved fault");
        }
        throw new SimulationException($"endless fault at {address:x}, {access}");
    }

    /// <summary>What the MMU does: true and the physical address, or false for a page fault.</summary>
    public bool Translate(ulong address, Access access, bool mayUseCache, out ulong physical)
    {
        Random random = _machine.Random;
        if (mayUseCache)
        {
            if (random.Next(64) == 0)
                _small.Remove(address >> 12);
            if (_small.TryGetValue(address >> 12, out ulong entry))
            {
                physical = (entry & Entry.AddressMask) | (address & 0xfff);
                if (Allows(entry, access) && !MustSetDirty(entry, access))
                    return true;
            }
            else if (_large.TryGetValue(address >> 21, out entry))
            {
                physical = (entry & Entry.LargeAddressMask) | (address & 0x1f_ffff);
                if (Allows(entry, access) && !MustSetDirty(entry, access))
                    return true;
            }
            else
            {
                entry = 0;
            }
            if (entry != 0 && MustSetDirty(entry, access))
            {
                // Not a fault: the processor walks again to set the bit.
                _small.Remove(address >> 12);
            }
            else if (entry != 0)
            {
                // Rights may have grown since: the processor may look again or fault at once.
                Drop(address);
                StaleDrops++;
                physical = 0;
                if (random.Next(2) == 0)
                    return false;
            }
        }
        return WalkTables(address, access, out physical);
    }

    private bool WalkTables(ulong address, Access access, out ulong physical)
    {
        physical = 0;
        bool dirty = access == Access.Write;
        ulong* slot;
        if (_directories.TryGetValue(address >> 21, out ulong cached) && _machine.Random.Next(2) == 0)
        {
            slot = _machine.Table(cached) + (address >> 12 & 511);
        }
        else
        {
            slot = _machine.Table(Area->LoadedRoot) + (address >> 39 & 511);
            if (!Step(slot, address))
                return false;
            slot = _machine.Table(*slot) + (address >> 30 & 511);
            if (!Step(slot, address))
                return false;
            slot = _machine.Table(*slot) + (address >> 21 & 511);
            if ((*slot & (Entry.Present | Entry.Large)) == (Entry.Present | Entry.Large))
            {
                if (!Leaf(slot, address, access, dirty))
                    return false;
                _large[address >> 21] = *slot;
                _small.Remove(address >> 12);
                physical = (*slot & Entry.LargeAddressMask) | (address & 0x1f_ffff);
                return true;
            }
            if (!Step(slot, address))
                return false;
            _directories[address >> 21] = *slot;
            slot = _machine.Table(*slot) + (address >> 12 & 511);
        }
        if (!Leaf(slot, address, access, dirty))
            return false;
        _small[address >> 12] = *slot;
        physical = (*slot & Entry.AddressMask) | (address & 0xfff);
        return true;
    }

    private bool Step(ulong* slot, ulong address)
    {
        if ((*slot & Entry.Present) == 0)
        {
            Drop(address);
            return false;
        }
        Machine.Check((*slot & (Entry.Writable | Entry.User | Entry.NoExecute)) == (Entry.Writable | Entry.User), "rights of a table");
        *slot |= Entry.Accessed;
        return true;
    }

    private bool Leaf(ulong* slot, ulong address, Access access, bool dirty)
    {
        if ((*slot & Entry.Present) == 0 || !Allows(*slot, access))
        {
            Drop(address);
            return false;
        }
        Machine.Check((*slot & Entry.User) != 0, "supervisor page");
        Machine.Check(_machine.HasSlot(*slot & Entry.AddressMask), "entry without a memory slot");
        *slot |= Entry.Accessed;
        if (dirty)
            *slot |= Entry.Dirty;
        return true;
    }

    /// <summary>
    /// A fault drops the translations of its page. The TLB may have held the 2 MB as pieces of 4 KB, so that only one
    /// of them goes and the others stay.
    /// </summary>
    private void Drop(ulong address)
    {
        if (_large.Remove(address >> 21, out ulong large) && _machine.Random.Next(2) == 0)
        {
            foreach (ulong page in World.HotPages)
                _small.TryAdd((address >> 21 << 9) + page, (large & ~Entry.Large) + (page << 12));
        }
        _small.Remove(address >> 12);
        _directories.Remove(address >> 21);
    }

    /// <summary>A translation that was made by a read does not let a write through before the entry's Dirty bit is set.</summary>
    private static bool MustSetDirty(ulong entry, Access access) =>
        access == Access.Write && (entry & (Entry.Writable | Entry.Dirty)) == Entry.Writable;

    private static bool Allows(ulong entry, Access access) => access switch
    {
        Access.Write => (entry & Entry.Writable) != 0,
        Access.Fetch => (entry & Entry.NoExecute) == 0,
        _ => true,
    };
}
