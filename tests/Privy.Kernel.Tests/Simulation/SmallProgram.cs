namespace Privy.Kernel.Tests.Simulation;

/// <summary>Main with one writable mapping of 8 MB, and snapshots with a vCPU each: for tests of single behaviours.</summary>
internal sealed unsafe class SmallProgram : IDisposable
{
    public const ulong Start = Machine.WindowBase + (16 * Layout.LargePageSize);
    public const ulong End = Start + (4 * Layout.LargePageSize);

    public SmallProgram()
    {
        Machine = new Machine(generous: true);
        K->Spaces->Vmas[0] = new Vma { Start = Start, End = End, Flags = Vma.Read | Vma.Write, Birth = K->Epoch };
        K->Spaces->VmaCount = 1;
        K->Spaces->Vcpus[0] = 1;
        Machine.Vcpus[0].Assign(0);
    }

    public Machine Machine { get; }

    public KernelState* K => Machine.K;

    public Vcpu Main => Machine.Vcpus[0];

    public Vcpu Of(int space) => Machine.Vcpus[space];

    /// <summary>A snapshot of main; its vCPU has the space's index as its own.</summary>
    public int Snapshot(int parent = 0)
    {
        Vcpu v = Of(parent);
        v.Enter();
        int space = (int)KernelEntry.CreateSnapshot(v.Area, parent);
        v.Exit();
        Assert.InRange(space, 1, Machine.VcpuCount - 1);
        Of(space).Assign(space);
        K->Spaces[space].Vcpus[0] = 1UL << space;
        return space;
    }

    public void Release(int space)
    {
        Of(space).Exit();
        Assert.Equal(0, On(Main, v => KernelEntry.Release(v, space)));
    }

    public delegate long Call(VcpuArea* v);

    public static long On(Vcpu v, Call call)
    {
        v.Enter();
        long result = call(v.Area);
        v.Exit();
        return result;
    }

    public ulong Read(int space, ulong address)
    {
        Assert.Equal(0, Of(space).Touch(address, Access.Read, out ulong physical));
        return *Machine.Word(physical);
    }

    public void Write(int space, ulong address, ulong value)
    {
        Assert.Equal(0, Of(space).Touch(address, Access.Write, out ulong physical));
        *Machine.Word(physical) = value;
    }

    public PageKind Kind(int space, ulong address) => Translate.Lookup(K, K->Spaces + space, address, out _, out _);

    public ulong DirectoryEntry(int space, ulong address) => *Walk.Directory(K, K->Spaces + space, address);

    public void Dispose() => Machine.Dispose();
}
