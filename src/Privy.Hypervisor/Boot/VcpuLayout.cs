using Privy.Kernel;

namespace Privy.Hypervisor.Boot;

/// <summary>Offsets inside a vCPU's area (<see cref="Layout.VcpuStride"/> bytes); the area begins with <see cref="VcpuArea"/>.</summary>
internal static class VcpuLayout
{
    /// <summary>The <see cref="SyscallRing"/>.</summary>
    internal const ulong Ring = 0x800;

    internal const ulong Gdt = 0x1000;
    internal const ulong Tss = 0x1100;
    internal const ulong Idt = 0x2000;
    internal const ulong Code = 0x3000;

    /// <summary>Top of the stack that the processor switches to on an exception from CPL 3 (TSS.RSP0).</summary>
    internal const ulong Rsp0Top = 0x5000;

    /// <summary>
    /// Top of the stack of page faults (TSS.IST1), whichever ring they go to. One of its own, since the direct way comes from ring 3 to ring 3, where the processor would go on with the program's.
    /// </summary>
    internal const ulong FaultStackTop = 0x4800;

    /// <summary>The constant IRETQ frame by which the ring 0 page-fault stub enters the CPL 3 handler.</summary>
    internal const ulong HandlerFrame = 0x5000;

    /// <summary>The IRETQ frame by which the host makes ring 0 return to the program.</summary>
    internal const ulong ReturnFrame = 0x5100;

    /// <summary>Top of the kernel's CPL 3 stack; the page-fault stub puts the program's 16 registers there first.</summary>
    internal const ulong StackTop = Layout.VcpuStride;

    /// <summary>Where a vCPU's <see cref="TrapFrame"/> is.</summary>
    internal static unsafe ulong TrapOf(ulong area) => area + FaultStackTop - (ulong)sizeof(TrapFrame);

    internal static ulong AreaOf(int index) => Layout.KernelBase + Layout.VcpuOffset + ((ulong)index * Layout.VcpuStride);
}

/// <summary>Segment selectors: Linux' own, so that IRETQ executed at CPL 3 finds what it expects on every KVM.</summary>
internal static class Selectors
{
    internal const ushort KernelCode = 0x10;
    internal const ushort KernelData = 0x18;
    internal const ushort UserCode32 = 0x23;
    internal const ushort UserData = 0x2b;
    internal const ushort UserCode = 0x33;
    internal const ushort TaskState = 0x40;
    internal const ushort CpuNumber = 0x7b;
}
