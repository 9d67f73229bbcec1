namespace Privy.Kernel.Tests.Simulation;

/// <summary>
/// A vCPU on a thread of its own: sets A by compare-and-swap before it caches a translation, as hardware does, and
/// leaves the guest for a kick only between two accesses.
/// </summary>
internal sealed unsafe class ThreadedVcpu
{
    private readonly Machine _machine;
    private readonly Dictionary<ulong, ulong> _small = [];
    private readonly Dictionary<ulong, ulong> _large = [];
    private readonly Random _random;
    private int _kick;
    private int _exits;

    public ThreadedVcpu(Machine machine, int index, int seed)
    {
        _machine = machine;
        _random = new Random(seed);
        Area = machine.Vcpus[index].Area;
    }

    public VcpuArea* Area { get; }

    public void Assign(int space)
    {
        Area->Space = space;
        Area->FlushPending = 1;
    }

    public void Enter()
    {
        Interlocked.Exchange(ref Area->InGuest, 1);
        Space* space = _machine.K->Spaces + Area->Space;
        ulong root = Area->LoadedRoot == space->AliasRoot ? space->AliasRoot : space->Root;
        if (Interlocked.Exchange(ref Area->FlushPending, 0) != 0 && Area->LoadedRoot == root)
            root = root == space->Root ? space->AliasRoot : space->Root;
        if (Area->LoadedRoot == root)
            return;
        _small.Clear();
        _large.Clear();
        Area->LoadedRoot = root;
    }

    public void Exit()
    {
        Interlocked.Exchange(ref Area->InGuest, 0);
        Interlocked.Increment(ref _exits);
    }

    public void LeaveIfKicked()
    {
        if (Volatile.Read(ref _kick) == 0)
            return;
        Volatile.Write(ref _kick, 0);
        Exit();
        Enter();
    }

    /// <summary>The host makes the vCPU leave, and waits for it.</summary>
    public void Kick()
    {
        int exits = Volatile.Read(ref _exits);
        Volatile.Write(ref _kick, 1);
        while (Volatile.Read(ref Area->InGuest) != 0 && Volatile.Read(ref _exits) == exits)
            Thread.Yield();
    }

    public ulong Load(ulong address) => Volatile.Read(ref *_machine.Word(Translate(address, false)));

    public void Store(ulong address, ulong value) => Volatile.Write(ref *_machine.Word(Translate(address, true)), value);

    private ulong Translate(ulong address, bool write)
    {
        LeaveIfKicked();
        for (int i = 0; i < 1000; i++)
        {
            if (_random.Next(256) == 0)
                _small.Remove(address >> 12);
            ulong need = write ? Entry.Writable : 0;
            if (_small.TryGetValue(address >> 12, out ulong entry) && (entry & need) == need)
                return (entry & Entry.AddressMask) | (address & 0xfff);
            if (entry == 0 && _large.TryGetValue(address >> 21, out entry) && (entry & need) == need)
                return (entry & Entry.LargeAddressMask) | (address & 0x1f_ffff);
            _small.Remove(address >> 12);
            _large.Remove(address >> 21);
            if (Walk(address, need))
                continue;
            Area->Trap->Cr2 = address;
            Area->Trap->Rip = 1;
            Area->Trap->Error = write ? 6u : 4u;
            Machine.Check(KernelEntry.PageFault(Area) == 0, $"fault at {address:x}");
        }
        throw new SimulationException("endless fault");
    }

    private bool Walk(ulong address, ulong need)
    {
        ulong entry = Area->LoadedRoot;
        for (int shift = 39; ; shift -= 9)
        {
            ulong* slot = _machine.Table(entry) + (address >> shift & 511);
            do
                entry = Volatile.Read(ref *slot);
            while ((entry & Entry.Present) != 0 && Interlocked.CompareExchange(ref *slot, entry | Entry.Accessed, entry) != entry);
            if ((entry & Entry.Present) == 0)
                return false;
            bool large = shift == 21 && (entry & Entry.Large) != 0;
            if (shift != 12 && !large)
                continue;
            if ((entry & need) != need)
                return false;
            (large ? _large : _small)[address >> (large ? 21 : 12)] = entry;
            return true;
        }
    }
}
