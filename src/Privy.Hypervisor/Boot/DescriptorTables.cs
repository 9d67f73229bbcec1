using Privy.Kernel;

namespace Privy.Hypervisor.Boot;

/// <summary>Writes the GDT, TSS and IDT of a vCPU (Intel SDM vol. 3, 3.4.5, 6.14, 7.7).</summary>
internal static unsafe class DescriptorTables
{
    internal const ushort GdtLimit = Selectors.CpuNumber | 7;
    internal const ushort TssLimit = 0x67;
    internal const ushort IdtLimit = (32 * 16) - 1;

    private const ulong InterruptGate = 0x8E00; // present, DPL 0

    internal static void Write(ulong area, VcpuStubs stubs)
    {
        var gdt = (ulong*)(area + VcpuLayout.Gdt);
        gdt[Selectors.KernelCode >> 3] = 0x00AF_9B00_0000_FFFF;
        gdt[Selectors.KernelData >> 3] = 0x00CF_9300_0000_FFFF;
        gdt[Selectors.UserCode32 >> 3] = 0x00CF_FB00_0000_FFFF;
        gdt[Selectors.UserData >> 3] = 0x00CF_F300_0000_FFFF;
        gdt[Selectors.UserCode >> 3] = 0x00AF_FB00_0000_FFFF;
        // getcpu in the vDSO reads processor and node out of this segment's limit, and returns whatever its register held when there is
        // no such segment. 0: the processor that every machine has.
        gdt[Selectors.CpuNumber >> 3] = 0x0040_F500_0000_0000;
        var tss = area + VcpuLayout.Tss;
        gdt[Selectors.TaskState >> 3] = TssLimit | ((tss & 0xFF_FFFF) << 16) | (0x8BUL << 40) | ((tss >> 24 & 0xFF) << 56);
        gdt[(Selectors.TaskState >> 3) + 1] = tss >> 32;

        *(ulong*)(tss + 4) = area + VcpuLayout.Rsp0Top;
        *(ulong*)(tss + 36) = area + VcpuLayout.FaultStackTop; // IST1
        *(ushort*)(tss + 102) = TssLimit + 1; // no I/O permission bitmap: every port faults

        for (var vector = 0; vector < stubs.Vectors.Length; vector++)
        {
            // int3 and into are instructions of the program; the others must not be raised by INT n.
            SetGate(area, vector, stubs.Vectors[vector], fromProgram: vector is 3 or 4);
        }

        var shared = (VcpuArea*)area;
        shared->FaultGate = (ulong*)(area + VcpuLayout.Idt) + (2 * VcpuStubs.PageFaultVector);
        shared->GateThroughRing0 = FaultGate(stubs.Vectors[VcpuStubs.PageFaultVector], Selectors.KernelCode);
        *shared->FaultGate = shared->GateThroughRing0;

        var frame = (ulong*)(area + VcpuLayout.HandlerFrame);
        frame[0] = stubs.FaultHandler;
        frame[1] = Selectors.UserCode;
        frame[2] = 2;
        frame[3] = area + VcpuLayout.StackTop;
        frame[4] = Selectors.UserData;
    }

    /// <summary>Leads page faults of a vCPU straight to ring 3, which cannot read CR2: a guess replaces it (<see cref="FaultAddress"/>).</summary>
    internal static void UseDirectFaults(ulong area, VcpuStubs stubs)
    {
        var shared = (VcpuArea*)area;
        shared->GateDirect = FaultGate(stubs.FaultDirect, Selectors.UserCode);
        *shared->FaultGate = shared->GateDirect;
    }

    /// <summary>The word of the IDT in which the ways of a page fault differ: all handlers of a vCPU lie in one page.</summary>
    private static ulong FaultGate(ulong target, ushort code)
    {
        const ulong ist1 = 1;
        return GateWord(target, code, InterruptGate | ist1);
    }

    /// <summary>Leads a vector of a vCPU to a handler in ring 0.</summary>
    /// <param name="area">The vCPU's area.</param>
    /// <param name="vector">The vector.</param>
    /// <param name="target">Address of the handler.</param>
    /// <param name="fromProgram">Whether the program may raise it by INT n.</param>
    internal static void SetGate(ulong area, int vector, ulong target, bool fromProgram)
    {
        const ulong callable = 0x6000; // DPL 3
        var idt = (ulong*)(area + VcpuLayout.Idt);
        idt[2 * vector] = GateWord(target, Selectors.KernelCode, fromProgram ? InterruptGate | callable : InterruptGate);
        idt[(2 * vector) + 1] = target >> 32;
    }

    /// <summary>The first word of a gate (Intel SDM vol. 3, figure 6-8); its second is the target's upper half.</summary>
    private static ulong GateWord(ulong target, ushort code, ulong kind) =>
        (target & 0xFFFF) | ((ulong)code << 16) | (kind << 32) | ((target >> 16 & 0xFFFF) << 48);
}
