using System.Runtime.InteropServices;

namespace Privy.Kvm.Tests;

/// <summary>The device itself: what it offers, a guest that runs, and errors.</summary>
public unsafe class DeviceTests
{
    private const int ENOENT = 2, EINTR = 4, EEXIST = 17, EINVAL = 22, ENOTTY = 25;

    /// <summary>Its own descriptors need room where there are few numbers, and stay where tables are small where there are many.</summary>
    [Theory]
    [InlineData(100, 64)]
    [InlineData(200, 72)]
    [InlineData(1024, 512)]
    [InlineData(4096, 3072)]
    [InlineData(4992, 3968)]
    [InlineData(1 << 20, 3968)]
    [InlineData(int.MaxValue, 3968)]
    public void Own_descriptors_begin_in_the_upper_half_of_few_numbers(long limit, int first) => Assert.Equal(first, OwnDescriptors.FirstNumber(limit));

    [Fact]
    public void A_missing_device_is_an_error_with_its_path()
    {
        var e = Assert.Throws<KvmException>(() => KvmSystem.Open("/nonexistent/kvm"));
        Assert.Equal(ENOENT, e.Errno);
        Assert.Equal("open(/nonexistent/kvm)", e.Call);
        Assert.Contains("errno 2", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Another_device_is_refused_and_closed()
    {
        var before = Directory.GetFileSystemEntries("/proc/self/fd").Length;
        for (var i = 0; i < 20; i++)
        {
            var e = Assert.Throws<KvmException>(() => KvmSystem.Open("/dev/null"));
            Assert.Equal(ENOTTY, e.Errno);
            Assert.Equal("KVM_GET_API_VERSION", e.Call);
        }

        Assert.InRange(Directory.GetFileSystemEntries("/proc/self/fd").Length, 0, before + 10);
    }

    [KvmFact]
    public void What_Privy_needs_is_there()
    {
        using var kvm = KvmSystem.Open();
        foreach (var needed in (KvmCapability[])[KvmCapability.UserMemory, KvmCapability.SyncMmu, KvmCapability.Xsave, KvmCapability.Xcrs, KvmCapability.ImmediateExit])
            Assert.True(kvm.Check(needed) > 0, needed.ToString());
        Assert.Equal(7, kvm.Check(KvmCapability.SyncRegs) & 7);
        Assert.True(kvm.Check(KvmCapability.NrMemslots) >= 64);
        Assert.True(kvm.Check(KvmCapability.MaxVcpus) >= 1);
        Assert.Equal(0, kvm.Check((KvmCapability)100_000));
    }

    [KvmFact]
    public void The_CPUID_leaves_have_a_vendor_and_long_mode()
    {
        using var kvm = KvmSystem.Open();
        var leaves = kvm.SupportedCpuid();
        var vendor = Assert.Single(leaves, l => l.Function == 0);
        Assert.NotEqual(0u, vendor.Ebx);
        const uint longMode = 1 << 29;
        Assert.NotEqual(0u, Assert.Single(leaves, l => l.Function == 0x8000_0001).Edx & longMode);
    }

    [KvmFact]
    public void A_guest_computes_and_rings_the_doorbell()
    {
        using var guest = new Guest();
        guest.Load([
            0x48, 0x01, 0xD8,                                       // add rax, rbx
            0xA2, 0x00, 0x00, 0x20, 0x00, 0x00, 0x00, 0x00, 0x00,   // mov [doorbell], al
            0x48, 0xFF, 0xC0,                                       // inc rax
            0xA2, 0x08, 0x00, 0x20, 0x00, 0x00, 0x00, 0x00, 0x00,   // mov [doorbell + 8], al
        ]);
        guest.Cpu.Registers.Rax = 40;
        guest.Cpu.Registers.Rbx = 2;
        guest.Cpu.MarkRegistersDirty();
        guest.RunToDoorbell();
        Assert.Equal(42ul, guest.Cpu.Registers.Rax);
        Assert.Equal(1u, guest.Cpu.Run->MmioLength);
        Assert.Equal(42ul, guest.Cpu.Run->MmioData & 0xFF);
        Assert.Equal(42ul, guest.Cpu.GetRegisters().Rax);

        // A change of the registers in the run page reaches the guest.
        guest.Cpu.Registers.Rax = 99;
        guest.Cpu.Registers.Rip = Guest.Code + 12;
        guest.Cpu.MarkRegistersDirty();
        Assert.Equal(0, guest.Cpu.Enter());
        Assert.Equal(Guest.Doorbell + 8, guest.Cpu.Run->MmioAddress);
        Assert.Equal(100ul, guest.Cpu.Registers.Rax);
    }

    [KvmFact]
    public void Vector_registers_go_in_and_out()
    {
        using var guest = new Guest();
        guest.Load([
            0x66, 0x0F, 0xFE, 0xC1,                                 // paddd xmm0, xmm1
            0xA2, 0x00, 0x00, 0x20, 0x00, 0x00, 0x00, 0x00, 0x00,   // mov [doorbell], al
        ]);
        var area = (XsaveArea*)NativeMemory.AllocZeroed((nuint)sizeof(XsaveArea));
        try
        {
            guest.Cpu.GetXsave(area);
            const int xmm = 160, header = 512; // Intel SDM vol. 1, 13.4.1 and 13.4.2
            *(uint*)(area->Bytes + xmm) = 30;
            *(uint*)(area->Bytes + xmm + 16) = 12;
            *(ulong*)(area->Bytes + header) |= 2; // SSE state is present
            guest.Cpu.SetXsave(area);
            guest.RunToDoorbell();
            guest.Cpu.GetXsave(area);
            Assert.Equal(42u, *(uint*)(area->Bytes + xmm));
        }
        finally
        {
            NativeMemory.Free(area);
        }
    }

    [KvmFact]
    public void An_exit_asked_for_comes_before_the_first_instruction()
    {
        using var guest = new Guest();
        guest.Load([0xEB, 0xFE]); // jmp to itself
        guest.Cpu.Run->ImmediateExit = 1;
        Assert.Equal(EINTR, guest.Cpu.Enter());
        Assert.Equal(Guest.Code, guest.Cpu.Registers.Rip);
    }

    [KvmFact]
    public void A_bad_memory_region_is_an_error_with_its_numbers()
    {
        using var guest = new Guest();
        var e = Assert.Throws<KvmException>(() => guest.Vm.SetMemoryRegion(new MemoryRegion { Slot = 7, GuestPhysical = 0x40_0000, Size = 0x1001, HostVirtual = 0x1000 }));
        Assert.Equal(EINVAL, e.Errno);
        Assert.Equal("KVM_SET_USER_MEMORY_REGION(slot 7, guest 0x400000, size 0x1001, host 0x1000)", e.Call);
        // Two slots may not share guest-physical addresses.
        e = Assert.Throws<KvmException>(() => guest.Vm.SetMemoryRegion(new MemoryRegion { Slot = 1, GuestPhysical = 0x1000, Size = 0x1000, HostVirtual = 0x1000_0000 }));
        Assert.Equal(EEXIST, e.Errno);
    }

    [KvmFact]
    public void A_vCPU_number_can_be_used_once()
    {
        using var guest = new Guest();
        var e = Assert.Throws<KvmException>(() => guest.Vm.CreateVcpu(0));
        Assert.Equal(EEXIST, e.Errno);
        Assert.Equal("KVM_CREATE_VCPU(0)", e.Call);
    }

    [KvmFact]
    public void A_bad_register_value_is_an_error_that_names_it()
    {
        using var guest = new Guest();
        var e = Assert.Throws<KvmException>(() => guest.Cpu.SetMsrs([new MsrEntry { Index = 0xC000_0082, Data = 0x1000 }, new MsrEntry { Index = 0xC000_0080, Data = 1UL << 63 }]));
        Assert.Equal(EINVAL, e.Errno);
        Assert.Equal("KVM_SET_MSRS(0xc0000080 = 0x8000000000000000) on vCPU 0", e.Call);
        e = Assert.Throws<KvmException>(() => guest.Cpu.SetXcr0(0)); // x87 state cannot be turned off
        Assert.Equal(EINVAL, e.Errno);
        Assert.Equal("KVM_SET_XCRS(0x0) on vCPU 0", e.Call);
    }

    [KvmFact]
    public void Own_descriptors_are_high_and_forgotten_when_closed()
    {
        var before = Own();
        using (new Guest())
        {
            var mine = Own().Except(before).ToArray();
            Assert.Equal(3, mine.Length); // the device, the VM and the vCPU
            Assert.All(mine, d => Assert.True(d >= 64, $"descriptor {d}"));
        }

        Assert.Equal(before, Own());

        static int[] Own() => [.. Enumerable.Range(0, 1 << 20).Where(OwnDescriptors.Contains)];
    }
}
