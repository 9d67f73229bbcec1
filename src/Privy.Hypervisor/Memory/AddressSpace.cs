using Privy.Hypervisor.Boot;
using Privy.Hypervisor.Host;
using Privy.Kernel;
using static Privy.Hypervisor.Host.HostMemory;

namespace Privy.Hypervisor.Memory;

/// <summary>Bits of <see cref="Vma.HostTag"/>.</summary>
internal static class VmaTag
{
    /// <summary>Backed by a file: pages nobody touched are not zeros.</summary>
    internal const uint File = Vma.TagFile;

    /// <summary>The host mapping has no access yet (PROT_NONE); the first mprotect must grant it there too.</summary>
    internal const uint HostNone = 2;

    /// <summary>The stack of the first thread.</summary>
    internal const uint Stack = 4;

    /// <summary>
    /// The program has no access, and the host none either, so that a system call on it fails as natively; the bytes are kept. Only
    /// while there is no snapshot, which may have to read them.
    /// </summary>
    internal const uint HostHidden = 8;

    /// <summary>The hypervisor's, though it lies in the window: the program can run it and is not told of it.</summary>
    internal const uint Hypervisor = 16;
}

/// <summary>
/// The memory of one guest process: its mappings and the calls that change them. <see cref="MainSpace"/> is the program's own,
/// linear in the host; <see cref="SnapshotSpace"/> is a forked child's.
/// </summary>
internal abstract unsafe class AddressSpace(Machine machine, int index)
{
    /// <summary>What stays free below the first thread's stack (Linux: stack_guard_gap, 256 pages).</summary>
    internal const ulong StackGap = 256 * Layout.PageSize;

    /// <summary>Serialises everything that changes mappings or tables by system calls, and forks.</summary>
    internal Lock Changes { get; } = new();

    internal Machine Machine { get; } = machine;

    /// <summary>Number of the space in the kernel.</summary>
    internal int Index { get; } = index;

    internal VmaList Mappings { get; } = new(machine.State, index);

    /// <summary>Where the program break began.</summary>
    internal ulong BreakStart { get; set; }

    /// <summary>The program break.</summary>
    internal ulong Break { get; set; }

    /// <summary>Stops and starts the vCPUs of the space together.</summary>
    internal EntryGate Gate { get; } = new(&machine.State->Spaces[index].Inside);

    /// <summary>Host addresses below which the program break may grow.</summary>
    internal ulong BreakLimit { get; set; }

    protected Space* Space => Machine.State->Spaces + Index;

    internal abstract bool IsMain { get; }

    /// <summary>mmap(2).</summary>
    internal abstract long Map(Vcpu vcpu, ulong address, ulong length, int protection, int flags, int descriptor, ulong offset);

    /// <summary>munmap(2).</summary>
    internal abstract long Unmap(Vcpu vcpu, ulong address, ulong length);

    /// <summary>mprotect(2).</summary>
    internal abstract long Protect(Vcpu vcpu, ulong address, ulong length, int protection);

    /// <summary>mremap(2).</summary>
    internal abstract long Remap(Vcpu vcpu, ulong address, ulong oldLength, ulong newLength, int flags, ulong newAddress);

    /// <summary>madvise(2).</summary>
    internal abstract long Advise(Vcpu vcpu, ulong address, ulong length, int advice);

    /// <summary>Before a snapshot of [first, end) is taken; under <see cref="Changes"/>.</summary>
    internal virtual void PrepareSnapshot(ulong first, ulong end)
    {
    }

    /// <summary>Makes [address, address + length) writable without a fault: as rule 1 wants it before the host kernel writes there.</summary>
    /// <returns>False: some page is not mapped writable.</returns>
    internal abstract bool PrepareWrite(Vcpu vcpu, ulong address, ulong length);

    /// <summary>Copies out of the space. False: some page is not mapped readable.</summary>
    internal abstract bool TryRead(Vcpu vcpu, ulong address, Span<byte> destination);

    /// <summary>Copies into the space. False: some page is not mapped writable.</summary>
    internal abstract bool TryWrite(Vcpu vcpu, ulong address, ReadOnlySpan<byte> source);

    /// <summary>brk(2): returns the break as it is afterwards.</summary>
    internal ulong SetBreak(Vcpu vcpu, ulong wanted)
    {
        lock (Changes)
        {
            if (wanted < BreakStart || wanted > BreakLimit)
                return Break;
            var oldEnd = PageUp(Break);
            var newEnd = PageUp(wanted);
            if (newEnd > oldEnd)
            {
                if (Map(vcpu, oldEnd, newEnd - oldEnd, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) < 0)
                    return Break;
            }
            else if (newEnd < oldEnd && ShrinkBreak(vcpu, newEnd, oldEnd) < 0)
            {
                return Break;
            }

            Break = wanted;
            return wanted;
        }
    }

    /// <summary>What a listing of the space's memory needs to know.</summary>
    internal MemoryListing.Subject Describe()
    {
        lock (Changes)
            return new MemoryListing.Subject([.. Mappings.All.ToArray().Where(vma => (vma.HostTag & VmaTag.Hypervisor) == 0)], BreakStart, Break, IsMain ? null : CountPages);
    }

    /// <summary>Attaches a vCPU: shootdowns reach it from now on.</summary>
    internal void Attach(Vcpu vcpu) => Interlocked.Or(ref Space->Vcpus[vcpu.Area->Index / 64], 1UL << (vcpu.Area->Index % 64));

    /// <summary>Detaches a vCPU.</summary>
    internal void Detach(Vcpu vcpu) => Interlocked.And(ref Space->Vcpus[vcpu.Area->Index / 64], ~(1UL << (vcpu.Area->Index % 64)));

    private MemoryListing.PageCount CountPages(ulong start, ulong end)
    {
        lock (Changes)
            return LinearMap.Contains(Machine.State, start) ? TableScan.Count(Machine.State, Space->Root, start, end) : default;
    }

    /// <summary>Removes pages at the end of the heap, whose addresses may come back at any time.</summary>
    protected abstract long ShrinkBreak(Vcpu vcpu, ulong start, ulong end);

    /// <summary>Makes all vCPUs of the space flush their translations: the others at once, this one before it enters again.</summary>
    protected void Flush(Vcpu self)
    {
        self.Area->FlushPending = 1;
        for (var word = 0; word < Layout.MaxVcpus / 64; word++)
        {
            for (var bits = Volatile.Read(ref Space->Vcpus[word]); bits != 0; bits &= bits - 1)
            {
                var index = (word * 64) + System.Numerics.BitOperations.TrailingZeroCount(bits);
                if (index != self.Area->Index)
                    Machine.FlushVcpu(index);
            }
        }
    }

    internal static ulong PageUp(ulong value) => (value + Layout.PageSize - 1) & ~(Layout.PageSize - 1);

    internal static bool IsPageAligned(ulong value) => (value & (Layout.PageSize - 1)) == 0;

    protected static uint Rights(int protection)
    {
        uint flags = 0;
        // x86 cannot deny reading where it allows writing or executing.
        if ((protection & (PROT_READ | PROT_WRITE | PROT_EXEC)) != 0)
            flags |= Vma.Read;
        if ((protection & PROT_WRITE) != 0)
            flags |= Vma.Write;
        if ((protection & PROT_EXEC) != 0)
            flags |= Vma.Execute;
        return flags;
    }
}
