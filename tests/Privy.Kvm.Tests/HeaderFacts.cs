using System.Runtime.InteropServices;

namespace Privy.Kvm.Tests;

/// <summary>One number that Privy.Kvm and the kernel's headers must agree on.</summary>
/// <param name="Ours">What it is called here.</param>
/// <param name="Value">Its value here.</param>
/// <param name="Header">The C expression with the same value.</param>
/// <param name="Plain">The value as the kernel's ABI has it, for machines without the headers.</param>
internal sealed record HeaderFact(string Ours, ulong Value, string Header, ulong Plain);

/// <summary>Everything Privy.Kvm takes over from <c>linux/kvm.h</c> and its neighbours.</summary>
internal static class HeaderFacts
{
    internal static IReadOnlyList<HeaderFact> All { get; } = [.. Structs(), .. Constants()];

    private static IEnumerable<HeaderFact> Structs() =>
    [
        .. Struct<GuestRegisters>("kvm_regs", 144,
            ("Rax", "rax", 0), ("Rbx", "rbx", 8), ("Rcx", "rcx", 16), ("Rdx", "rdx", 24), ("Rsi", "rsi", 32), ("Rdi", "rdi", 40),
            ("Rsp", "rsp", 48), ("Rbp", "rbp", 56), ("R8", "r8", 64), ("R9", "r9", 72), ("R10", "r10", 80), ("R11", "r11", 88),
            ("R12", "r12", 96), ("R13", "r13", 104), ("R14", "r14", 112), ("R15", "r15", 120), ("Rip", "rip", 128), ("Rflags", "rflags", 136)),
        .. Struct<Segment>("kvm_segment", 24,
            ("Base", "base", 0), ("Limit", "limit", 8), ("Selector", "selector", 12), ("Type", "type", 14), ("Present", "present", 15),
            ("Dpl", "dpl", 16), ("Db", "db", 17), ("S", "s", 18), ("L", "l", 19), ("G", "g", 20), ("Avl", "avl", 21),
            ("Unusable", "unusable", 22), ("Padding", "padding", 23)),
        .. Struct<DescriptorTable>("kvm_dtable", 16, ("Base", "base", 0), ("Limit", "limit", 8), ("Padding", "padding", 10)),
        .. Struct<SystemRegisters>("kvm_sregs", 312,
            ("Cs", "cs", 0), ("Ds", "ds", 24), ("Es", "es", 48), ("Fs", "fs", 72), ("Gs", "gs", 96), ("Ss", "ss", 120), ("Tr", "tr", 144),
            ("Ldt", "ldt", 168), ("Gdt", "gdt", 192), ("Idt", "idt", 208), ("Cr0", "cr0", 224), ("Cr2", "cr2", 232), ("Cr3", "cr3", 240),
            ("Cr4", "cr4", 248), ("Cr8", "cr8", 256), ("Efer", "efer", 264), ("ApicBase", "apic_base", 272), ("InterruptBitmap", "interrupt_bitmap", 280)),
        .. Struct<MemoryRegion>("kvm_userspace_memory_region", 32,
            ("Slot", "slot", 0), ("Flags", "flags", 4), ("GuestPhysical", "guest_phys_addr", 8), ("Size", "memory_size", 16), ("HostVirtual", "userspace_addr", 24)),
        .. Struct<CpuidEntry>("kvm_cpuid_entry2", 40,
            ("Function", "function", 0), ("Index", "index", 4), ("Flags", "flags", 8), ("Eax", "eax", 12), ("Ebx", "ebx", 16),
            ("Ecx", "ecx", 20), ("Edx", "edx", 24), ("Padding", "padding", 28)),
        .. Struct<MsrEntry>("kvm_msr_entry", 16, ("Index", "index", 0), ("Reserved", "reserved", 4), ("Data", "data", 8)),
        .. Struct<XcrEntry>("kvm_xcr", 16, ("Index", "xcr", 0), ("Reserved", "reserved", 4), ("Value", "value", 8)),
        .. Struct<ExtendedControlRegisters>("kvm_xcrs", 392,
            ("Count", "nr_xcrs", 0), ("Flags", "flags", 4), ("Xcr0", "xcrs", 8), ("Others", "xcrs[1]", 24), ("Padding", "padding", 264)),
        .. Struct<XsaveArea>("kvm_xsave", 4096, ("Bytes", "region", 0)),
        .. Struct<VcpuEvents>("kvm_vcpu_events", 64,
            ("ExceptionInjected", "exception.injected", 0), ("ExceptionVector", "exception.nr", 1), ("ExceptionPending", "exception.pending", 3), ("Flags", "flags", 20)),
        .. Struct<DeviceAttribute>("kvm_device_attr", 24, ("Flags", "flags", 0), ("Group", "group", 4), ("Attribute", "attr", 8), ("Address", "addr", 16)),
        // The run page is larger than its named part; the page itself is mapped with the size KVM_GET_VCPU_MMAP_SIZE tells.
        .. Fields<RunPage>("kvm_run",
            ("ImmediateExit", "immediate_exit", 1), ("ExitReason", "exit_reason", 8), ("MmioAddress", "mmio.phys_addr", 32), ("MmioData", "mmio.data", 40),
            ("MmioLength", "mmio.len", 48), ("MmioIsWrite", "mmio.is_write", 52), ("FailReason", "fail_entry.hardware_entry_failure_reason", 32),
            ("ValidRegs", "kvm_valid_regs", 288), ("DirtyRegs", "kvm_dirty_regs", 296), ("Registers", "s.regs.regs", 304), ("SystemRegisters", "s.regs.sregs", 448), ("Events", "s.regs.events", 760)),
        new("RunPage.FailReason (suberror)", (ulong)Marshal.OffsetOf<RunPage>("FailReason"), "offsetof(struct kvm_run, internal.suberror)", 32),
        // Arrays that follow a count in the calls that take a list.
        new("list of CPUID leaves", 8, "offsetof(struct kvm_cpuid2, entries)", 8),
        new("list of MSRs", 8, "offsetof(struct kvm_msrs, entries)", 8),
    ];

    private static IEnumerable<HeaderFact> Constants() =>
    [
        new("KvmSystem.ApiVersion", KvmSystem.ApiVersion, "KVM_API_VERSION", 12),

        new("KvmIoctl.GetApiVersion", KvmIoctl.GetApiVersion, "KVM_GET_API_VERSION", 0xAE00),
        new("KvmIoctl.CreateVm", KvmIoctl.CreateVm, "KVM_CREATE_VM", 0xAE01),
        new("KvmIoctl.CheckExtension", KvmIoctl.CheckExtension, "KVM_CHECK_EXTENSION", 0xAE03),
        new("KvmIoctl.GetTscKilohertz", KvmIoctl.GetTscKilohertz, "KVM_GET_TSC_KHZ", 0xAEA3),
        new("KvmIoctl.GetVcpuMmapSize", KvmIoctl.GetVcpuMmapSize, "KVM_GET_VCPU_MMAP_SIZE", 0xAE04),
        new("KvmIoctl.GetSupportedCpuid", KvmIoctl.GetSupportedCpuid, "KVM_GET_SUPPORTED_CPUID", 0xC008AE05),
        new("KvmIoctl.CreateVcpu", KvmIoctl.CreateVcpu, "KVM_CREATE_VCPU", 0xAE41),
        new("KvmIoctl.SetUserMemoryRegion", KvmIoctl.SetUserMemoryRegion, "KVM_SET_USER_MEMORY_REGION", 0x4020AE46),
        new("KvmIoctl.SetTssAddress", KvmIoctl.SetTssAddress, "KVM_SET_TSS_ADDR", 0xAE47),
        new("KvmIoctl.SetIdentityMapAddress", KvmIoctl.SetIdentityMapAddress, "KVM_SET_IDENTITY_MAP_ADDR", 0x4008AE48),
        new("KvmIoctl.Run", KvmIoctl.Run, "KVM_RUN", 0xAE80),
        new("KvmIoctl.GetRegisters", KvmIoctl.GetRegisters, "KVM_GET_REGS", 0x8090AE81),
        new("KvmIoctl.SetRegisters", KvmIoctl.SetRegisters, "KVM_SET_REGS", 0x4090AE82),
        new("KvmIoctl.GetSystemRegisters", KvmIoctl.GetSystemRegisters, "KVM_GET_SREGS", 0x8138AE83),
        new("KvmIoctl.SetSystemRegisters", KvmIoctl.SetSystemRegisters, "KVM_SET_SREGS", 0x4138AE84),
        new("KvmIoctl.SetMsrs", KvmIoctl.SetMsrs, "KVM_SET_MSRS", 0x4008AE89),
        new("KvmIoctl.SetCpuid2", KvmIoctl.SetCpuid2, "KVM_SET_CPUID2", 0x4008AE90),
        new("KvmIoctl.GetXsave", KvmIoctl.GetXsave, "KVM_GET_XSAVE", 0x9000AEA4),
        new("KvmIoctl.SetXsave", KvmIoctl.SetXsave, "KVM_SET_XSAVE", 0x5000AEA5),
        new("KvmIoctl.SetXcrs", KvmIoctl.SetXcrs, "KVM_SET_XCRS", 0x4188AEA7),
        new("KvmIoctl.GetEvents", KvmIoctl.GetEvents, "KVM_GET_VCPU_EVENTS", 0x8040AE9F),
        new("KvmIoctl.SetEvents", KvmIoctl.SetEvents, "KVM_SET_VCPU_EVENTS", 0x4040AEA0),
        new("KvmIoctl.SetDeviceAttribute", KvmIoctl.SetDeviceAttribute, "KVM_SET_DEVICE_ATTR", 0x4018AEE1),

        new("KvmCapability.UserMemory", (ulong)KvmCapability.UserMemory, "KVM_CAP_USER_MEMORY", 3),
        new("KvmCapability.NrVcpus", (ulong)KvmCapability.NrVcpus, "KVM_CAP_NR_VCPUS", 9),
        new("KvmCapability.NrMemslots", (ulong)KvmCapability.NrMemslots, "KVM_CAP_NR_MEMSLOTS", 10),
        new("KvmCapability.SyncMmu", (ulong)KvmCapability.SyncMmu, "KVM_CAP_SYNC_MMU", 16),
        new("KvmCapability.Xsave", (ulong)KvmCapability.Xsave, "KVM_CAP_XSAVE", 55),
        new("KvmCapability.Xcrs", (ulong)KvmCapability.Xcrs, "KVM_CAP_XCRS", 56),
        new("KvmCapability.TscControl", (ulong)KvmCapability.TscControl, "KVM_CAP_TSC_CONTROL", 60),
        new("KvmCapability.MaxVcpus", (ulong)KvmCapability.MaxVcpus, "KVM_CAP_MAX_VCPUS", 66),
        new("KvmCapability.SyncRegs", (ulong)KvmCapability.SyncRegs, "KVM_CAP_SYNC_REGS", 74),
        new("KvmCapability.ReadonlyMemory", (ulong)KvmCapability.ReadonlyMemory, "KVM_CAP_READONLY_MEM", 81),
        new("KvmCapability.ImmediateExit", (ulong)KvmCapability.ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT", 136),

        new("KvmExit.Io", KvmExit.Io, "KVM_EXIT_IO", 2),
        new("KvmExit.Hlt", KvmExit.Hlt, "KVM_EXIT_HLT", 5),
        new("KvmExit.Mmio", KvmExit.Mmio, "KVM_EXIT_MMIO", 6),
        new("KvmExit.Shutdown", KvmExit.Shutdown, "KVM_EXIT_SHUTDOWN", 8),
        new("KvmExit.FailEntry", KvmExit.FailEntry, "KVM_EXIT_FAIL_ENTRY", 9),
        new("KvmExit.Interrupted", KvmExit.Interrupted, "KVM_EXIT_INTR", 10),
        new("KvmExit.InternalError", KvmExit.InternalError, "KVM_EXIT_INTERNAL_ERROR", 17),

        new("SyncSets.None", (ulong)SyncSets.None, "0", 0),
        new("SyncSets.Registers", (ulong)SyncSets.Registers, "KVM_SYNC_X86_REGS", 1),
        new("SyncSets.SystemRegisters", (ulong)SyncSets.SystemRegisters, "KVM_SYNC_X86_SREGS", 2),
        new("SyncSets.Events", (ulong)SyncSets.Events, "KVM_SYNC_X86_EVENTS", 4),

        // VirtualCpu.TryClearTscOffset leaves these two zero.
        new("TSC group", 0, "KVM_VCPU_TSC_CTRL", 0),
        new("TSC offset", 0, "KVM_VCPU_TSC_OFFSET", 0),

        new("NativeMethods.O_RDWR", NativeMethods.O_RDWR, "O_RDWR", 2),
        new("NativeMethods.O_CLOEXEC", NativeMethods.O_CLOEXEC, "O_CLOEXEC", 0x80000),
        new("NativeMethods.F_DUPFD_CLOEXEC", NativeMethods.F_DUPFD_CLOEXEC, "F_DUPFD_CLOEXEC", 1030),
        new("NativeMethods.PROT_READ_WRITE", NativeMethods.PROT_READ_WRITE, "PROT_READ | PROT_WRITE", 3),
        new("NativeMethods.MAP_SHARED", NativeMethods.MAP_SHARED, "MAP_SHARED", 1),
    ];

    private static IEnumerable<HeaderFact> Struct<T>(string name, ulong size, params (string Ours, string Header, ulong Offset)[] fields)
        where T : unmanaged =>
        [new($"sizeof {typeof(T).Name}", (ulong)Marshal.SizeOf<T>(), $"sizeof(struct {name})", size), .. Fields<T>(name, fields)];

    private static IEnumerable<HeaderFact> Fields<T>(string name, params (string Ours, string Header, ulong Offset)[] fields)
        where T : unmanaged =>
        fields.Select(f => new HeaderFact($"{typeof(T).Name}.{f.Ours}", (ulong)Marshal.OffsetOf<T>(f.Ours), $"offsetof(struct {name}, {f.Header})", f.Offset));
}
