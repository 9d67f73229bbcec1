using System.Runtime.InteropServices;

namespace Privy.Kvm;

/// <summary>A segment register with its hidden part; <c>struct kvm_segment</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct Segment
{
    public ulong Base;
    public uint Limit;
    public ushort Selector;
    public byte Type;
    public byte Present;
    public byte Dpl;
    public byte Db;
    public byte S;
    public byte L;
    public byte G;
    public byte Avl;
    public byte Unusable;
    public byte Padding;
}

/// <summary>GDTR or IDTR; <c>struct kvm_dtable</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
public unsafe struct DescriptorTable
{
    public ulong Base;
    public ushort Limit;
    public fixed ushort Padding[3];
}

/// <summary>Segment and control registers; <c>struct kvm_sregs</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
public unsafe struct SystemRegisters
{
    public Segment Cs;
    public Segment Ds;
    public Segment Es;
    public Segment Fs;
    public Segment Gs;
    public Segment Ss;
    public Segment Tr;
    public Segment Ldt;
    public DescriptorTable Gdt;
    public DescriptorTable Idt;
    public ulong Cr0;
    public ulong Cr2;
    public ulong Cr3;
    public ulong Cr4;
    public ulong Cr8;
    public ulong Efer;
    public ulong ApicBase;
    public fixed ulong InterruptBitmap[4];
}

/// <summary><c>struct kvm_userspace_memory_region</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct MemoryRegion
{
    public uint Slot;
    public uint Flags;
    public ulong GuestPhysical;
    public ulong Size;
    public ulong HostVirtual;
}

/// <summary>One entry of <c>struct kvm_cpuid2</c>; <c>struct kvm_cpuid_entry2</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
public unsafe struct CpuidEntry
{
    public uint Function;
    public uint Index;
    public uint Flags;
    public uint Eax;
    public uint Ebx;
    public uint Ecx;
    public uint Edx;
    public fixed uint Padding[3];
}

/// <summary>One model-specific register; <c>struct kvm_msr_entry</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct MsrEntry
{
    public uint Index;
    public uint Reserved;
    public ulong Data;
}

/// <summary>One extended control register; <c>struct kvm_xcr</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct XcrEntry
{
    public uint Index;
    public uint Reserved;
    public ulong Value;
}

/// <summary><c>struct kvm_xcrs</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
public unsafe struct ExtendedControlRegisters
{
    public uint Count;
    public uint Flags;
    public XcrEntry Xcr0;
    /// <summary>Room for the other 15 entries of the array.</summary>
    public fixed byte Others[15 * 16];
    public fixed ulong Padding[16];
}

/// <summary>An XSAVE image in the standard format; <c>struct kvm_xsave</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
public unsafe struct XsaveArea
{
    /// <summary>Bytes in the image.</summary>
    public const int Length = 4096;

    public fixed byte Bytes[Length];
}

/// <summary>What waits for delivery to a vCPU; the part of <c>struct kvm_vcpu_events</c> that is about exceptions.</summary>
[StructLayout(LayoutKind.Explicit, Size = 64)]
public struct VcpuEvents
{
    [FieldOffset(0)] public byte ExceptionInjected;
    [FieldOffset(1)] public byte ExceptionVector;
    [FieldOffset(3)] public byte ExceptionPending;
    /// <summary>Which of the other fields a write sets; 0: none but the exception.</summary>
    [FieldOffset(20)] public uint Flags;
}

/// <summary><c>struct kvm_device_attr</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct DeviceAttribute
{
    public uint Flags;
    public uint Group;
    public ulong Attribute;
    public ulong Address;
}

/// <summary>The head of <c>struct kvm_run</c> with the MMIO member of its union, and the synchronised registers.</summary>
[StructLayout(LayoutKind.Explicit, Size = 304 + 144 + 312 + 64)]
public struct RunPage
{
    [FieldOffset(1)] public byte ImmediateExit;
    [FieldOffset(8)] public uint ExitReason;
    [FieldOffset(32)] public ulong MmioAddress;
    [FieldOffset(40)] public ulong MmioData;
    [FieldOffset(48)] public uint MmioLength;
    [FieldOffset(52)] public byte MmioIsWrite;
    /// <summary>Of KVM_EXIT_FAIL_ENTRY: the hardware's reason; of KVM_EXIT_INTERNAL_ERROR: the suberror.</summary>
    [FieldOffset(32)] public ulong FailReason;
    [FieldOffset(288)] public ulong ValidRegs;
    [FieldOffset(296)] public ulong DirtyRegs;
    [FieldOffset(304)] public GuestRegisters Registers;
    [FieldOffset(448)] public SystemRegisters SystemRegisters;
    [FieldOffset(760)] public VcpuEvents Events;
}
