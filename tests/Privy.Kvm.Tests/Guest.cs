using System.Runtime.InteropServices;

namespace Privy.Kvm.Tests;

/// <summary>A VM with 2 MB of memory and one vCPU in 64-bit user mode: the smallest thing that runs on every kind of KVM.</summary>
/// <remarks>
/// User mode on purpose: paravirtual KVM runs nothing else natively. The second 2 MB are mapped with no slot behind them, so a store there
/// leaves the guest.
/// </remarks>
internal sealed unsafe class Guest : IDisposable
{
    internal const ulong Size = 2 << 20;
    internal const ulong Doorbell = Size;
    internal const ulong Code = 0x10_0000;

    private readonly byte* _memory = (byte*)NativeMemory.AlignedAlloc((nuint)Size, (nuint)Size);

    internal Guest()
    {
        new Span<byte>(_memory, (int)Size).Clear();
        Kvm = KvmSystem.Open();
        Vm = Kvm.CreateVirtualMachine();
        Vm.SetMemoryRegion(new MemoryRegion { Slot = 0, GuestPhysical = 0, Size = Size, HostVirtual = (ulong)_memory });
        Cpu = Vm.CreateVcpu(0);
        Cpu.SetCpuid(Kvm.SupportedCpuid());

        const ulong presentWritableUser = 7, accessedDirty = 0x60, large = 0x80;
        const ulong top = 0x1000, pointers = 0x2000, directory = 0x3000;
        *(ulong*)(_memory + top) = pointers | presentWritableUser | accessedDirty;
        *(ulong*)(_memory + pointers) = directory | presentWritableUser | accessedDirty;
        *(ulong*)(_memory + directory) = 0 | presentWritableUser | accessedDirty | large;
        *(ulong*)(_memory + directory + 8) = Doorbell | presentWritableUser | accessedDirty | large;

        var value = Cpu.GetSystemRegisters();
        var data = new Segment { Limit = 0xFFFF_FFFF, Selector = 0x2b, Type = 3, Present = 1, Dpl = 3, Db = 1, S = 1, G = 1 };
        value.Cs = new Segment { Limit = 0xFFFF_FFFF, Selector = 0x33, Type = 11, Present = 1, Dpl = 3, S = 1, L = 1, G = 1 };
        value.Ds = value.Es = value.Fs = value.Gs = value.Ss = data;
        value.Tr = new Segment { Limit = 0x67, Selector = 0x40, Type = 11, Present = 1 };
        value.Ldt = new Segment { Unusable = 1 };
        value.Cr0 = 0x8005_0033; // PE MP ET NE WP AM PG
        value.Cr3 = top;
        value.Cr4 = 0x620; // PAE OSFXSR OSXMMEXCPT
        value.Efer = 0xD01; // SCE LME LMA NXE
        Cpu.SetSystemRegisters(value);
    }

    internal KvmSystem Kvm { get; }

    internal VirtualMachine Vm { get; }

    internal VirtualCpu Cpu { get; }

    /// <summary>Puts code into the guest and the vCPU before it.</summary>
    internal void Load(ReadOnlySpan<byte> code)
    {
        code.CopyTo(new Span<byte>(_memory + Code, (int)(Size - Code)));
        Cpu.Registers = new GuestRegisters { Rip = Code, Rflags = 2 };
        Cpu.MarkRegistersDirty();
    }

    /// <summary>Enters until the guest stores to the doorbell; a signal for another purpose may end KVM_RUN early.</summary>
    internal void RunToDoorbell()
    {
        int errno;
        do
            errno = Cpu.Enter();
        while (errno == 4);
        Assert.Equal(0, errno);
        Assert.Equal("MMIO", KvmExit.Name(Cpu.Run->ExitReason));
        Assert.Equal(Doorbell, Cpu.Run->MmioAddress);
        Assert.Equal(1, Cpu.Run->MmioIsWrite);
    }

    public void Dispose()
    {
        Cpu.Dispose();
        Vm.Dispose();
        Kvm.Dispose();
        NativeMemory.AlignedFree(_memory);
    }
}
