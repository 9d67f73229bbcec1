using System.Buffers.Binary;
using System.Runtime.InteropServices;
using Iced.Intel;
using Privy.Kernel;
using static Iced.Intel.AssemblerRegisters;

namespace Privy.Hypervisor.Boot;

/// <summary>
/// The assembly of one vCPU: system-call entry, exception entries and the page-fault upcall. Each vCPU has its own copy,
/// with the addresses of its area as constants, because no register is free at these points.
/// </summary>
/// <remarks>
/// A store to the doorbell page leaves the guest: no memory slot lies behind it (KVM_EXIT_MMIO). The moffs form of MOV
/// takes a 64-bit address without a register.
/// </remarks>
internal sealed class VcpuStubs
{
    private const int ExceptionVectors = 32;
    internal const int PageFaultVector = 14;

    private ulong _area;

    private VcpuStubs(byte[] code, ulong[] vectors)
    {
        Code = code;
        Vectors = vectors;
    }

    internal byte[] Code { get; }

    /// <summary>Entry of exception vector n.</summary>
    internal ulong[] Vectors { get; }

    /// <summary>The target of SYSCALL.</summary>
    internal SyscallStub Syscall { get; private init; } = null!;

    /// <summary>An IRETQ for ring 0, on <see cref="VcpuLayout.ReturnFrame"/>.</summary>
    internal ulong InterruptReturn { get; private init; }

    /// <summary>CPL 3 page-fault handler.</summary>
    internal ulong FaultHandler { get; private init; }

    /// <summary>Where page faults arrive that do not pass through ring 0.</summary>
    internal ulong FaultDirect { get; private init; }

    /// <summary>
    /// The last look at <see cref="VcpuArea.ExitRequest"/> before the program continues. From here to <see cref="FaultReturn"/>
    /// the code can be started over, so a vCPU kicked in between is set back to here.
    /// </summary>
    internal ulong FaultCheck { get; private init; }

    /// <summary>The IRETQ back to the program.</summary>
    internal ulong FaultReturn { get; private init; }

    /// <summary>Calls the kernel function in rax with the arguments in place, and rings <see cref="Layout.DoorbellCallDone"/>.</summary>
    internal ulong Call { get; private init; }

    /// <summary>
    /// These stubs for another vCPU. Assembling takes a millisecond, which a thread's start should not; the areas have equal
    /// layouts, so that only the 64-bit constants that point into the area differ.
    /// </summary>
    internal VcpuStubs MovedTo(int index)
    {
        var area = VcpuLayout.AreaOf(index);
        var distance = area - _area;
        var code = (byte[])Code.Clone();
        for (var i = 0; i + sizeof(ulong) <= code.Length; i++)
        {
            var word = code.AsSpan(i, sizeof(ulong));
            var value = BinaryPrimitives.ReadUInt64LittleEndian(word);
            if (value - _area >= Layout.VcpuStride)
                continue;
            BinaryPrimitives.WriteUInt64LittleEndian(word, value + distance);
            i += sizeof(ulong) - 1;
        }

        return new VcpuStubs(code, Array.ConvertAll(Vectors, v => v + distance))
        {
            _area = area,
            Syscall = Syscall.MovedBy(distance),
            InterruptReturn = InterruptReturn + distance,
            FaultHandler = FaultHandler + distance,
            FaultDirect = FaultDirect + distance,
            FaultCheck = FaultCheck + distance,
            FaultReturn = FaultReturn + distance,
            Call = Call + distance,
        };
    }

    internal static unsafe VcpuStubs Assemble(int index, ulong pageFaultFunction)
    {
        var area = VcpuLayout.AreaOf(index);
        var asm = new Assembler(64);
        var interruptReturn = asm.CreateLabel("interrupt_return");
        var faultEntry = asm.CreateLabel("fault_entry");
        var faultDirect = asm.CreateLabel("fault_direct");
        var faultHandler = asm.CreateLabel("fault_handler");
        var faultCheck = asm.CreateLabel("fault_check");
        var faultReturn = asm.CreateLabel("fault_return");
        var faultExit = asm.CreateLabel("fault_exit");
        var call = asm.CreateLabel("call");
        var trap = VcpuLayout.TrapOf(area);

        void PushTrap(string field) =>
            asm.AddInstruction(Instruction.Create(Iced.Intel.Code.Push_rm64, new MemoryOperand(Register.RIP, (long)(trap + FieldOffset<TrapFrame>(field)), 8)));

        var syscall = SyscallStub.Assemble(asm, area, () => Doorbell(asm, Layout.DoorbellSyscall));

        asm.Label(ref interruptReturn);
        asm.iretq();

        // Ring 0, and each instruction here costs 0.6 us where ring 0 is emulated: save what the handler needs, go to CPL 3.
        asm.Label(ref faultEntry);
        asm.push(rax);
        asm.mov(rax, cr2);
        asm.push(rax);
        asm.mov(rsp, area + VcpuLayout.HandlerFrame);
        asm.iretq();

        // The other way is a gate that leads to ring 3 at once (Intel SDM vol. 3, 6.12.1: to the same privilege level), with a stack of its own by IST. CR2 cannot be read here.
        asm.Label(ref faultDirect);
        asm.push(rax);
        asm.mov(rax, TrapFrame.Unknown);
        asm.push(rax);
        // Relative to rip: the end of this area is the start of the next, and so no constant that can be moved (MovedTo).
        asm.AddInstruction(Instruction.Create(Iced.Intel.Code.Lea_r64_m, Register.RSP, new MemoryOperand(Register.RIP, (long)(area + VcpuLayout.StackTop), 8)));

        // The program's registers, in the order of their numbers: the kernel may have to guess the address from them (VcpuArea.Registers).
        asm.Label(ref faultHandler);
        foreach (var register in (ReadOnlySpan<AssemblerRegister64>)[r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp])
            asm.push(register);
        PushTrap(nameof(TrapFrame.Rsp));
        asm.push(rbx);
        asm.push(rdx);
        asm.push(rcx);
        PushTrap(nameof(TrapFrame.Rax));
        asm.cld();
        asm.mov(rdi, area);
        asm.mov(rax, pageFaultFunction);
        asm.call(rax);
        // What a C# function may have changed.
        foreach (var (register, number) in (ReadOnlySpan<(AssemblerRegister64, int)>)[(rcx, 1), (rdx, 2), (rsi, 6), (rdi, 7), (r8, 8), (r9, 9), (r10, 10), (r11, 11)])
            asm.mov(register, __[rsp + (number * sizeof(ulong))]);
        asm.mov(rsp, trap + FieldOffset<TrapFrame>(nameof(TrapFrame.Rax)));
        asm.mov(rax, __[rsp]);
        asm.lea(rsp, __[rsp + 16]); // past rax and the error code: the hardware's frame
        asm.Label(ref faultCheck);
        asm.AddInstruction(Instruction.Create(Iced.Intel.Code.Cmp_rm32_imm8, new MemoryOperand(Register.RIP, (long)(area + FieldOffset<VcpuArea>(nameof(VcpuArea.ExitRequest))), 8), 0));
        asm.jne(faultExit);
        asm.Label(ref faultReturn);
        asm.iretq();
        asm.Label(ref faultExit);
        Doorbell(asm, Layout.DoorbellUserExit);
        asm.jmp(faultCheck);

        asm.Label(ref call);
        asm.cld();
        asm.call(rax);
        asm.mov(rdi, area);
        asm.mov(__qword_ptr[rdi + (int)FieldOffset<VcpuArea>(nameof(VcpuArea.CallResult))], rax);
        Doorbell(asm, Layout.DoorbellCallDone);
        asm.ud2();

        var vectorLabels = new Label[ExceptionVectors];
        for (var vector = 0; vector < ExceptionVectors; vector++)
        {
            vectorLabels[vector] = asm.CreateLabel($"vector_{vector}");
            asm.Label(ref vectorLabels[vector]);
            Doorbell(asm, Layout.DoorbellException + (8 * (ulong)vector));
            asm.hlt();
        }

        using var stream = new MemoryStream();
        var result = asm.Assemble(new StreamCodeWriter(stream), area + VcpuLayout.Code, BlockEncoderOptions.ReturnNewInstructionOffsets);
        var vectors = new ulong[ExceptionVectors];
        for (var vector = 0; vector < ExceptionVectors; vector++)
            vectors[vector] = vector == PageFaultVector ? result.GetLabelRIP(faultEntry) : result.GetLabelRIP(vectorLabels[vector]);
        if (stream.Length > 0x1000)
            throw new InvalidOperationException($"the stubs take {stream.Length} bytes, a page holds 4096");
        return new VcpuStubs(stream.ToArray(), vectors)
        {
            _area = area,
            Syscall = syscall(result),
            InterruptReturn = result.GetLabelRIP(interruptReturn),
            FaultHandler = result.GetLabelRIP(faultHandler),
            FaultDirect = result.GetLabelRIP(faultDirect),
            FaultCheck = result.GetLabelRIP(faultCheck),
            FaultReturn = result.GetLabelRIP(faultReturn),
            Call = result.GetLabelRIP(call),
        };
    }

    private static ulong FieldOffset<T>(string field) => (ulong)Marshal.OffsetOf<T>(field);

    private static void Doorbell(Assembler asm, ulong offset) =>
        asm.AddInstruction(Instruction.Create(Iced.Intel.Code.Mov_moffs8_AL, new MemoryOperand(Register.None, Register.None, 1, (long)(Layout.DoorbellVirtual + offset), 8), Register.AL));
}

/// <summary>The kernel image's imports: what C# cannot express. One copy for all vCPUs.</summary>
internal static class KernelImports
{
    /// <summary>The one instruction of the kernel that may touch memory the host cannot supply.</summary>
    internal const string TryCopy = "try_copy";

    /// <summary>Where the vCPU goes on when it could not.</summary>
    internal const string TryCopyFailed = "try_copy_failed";

    internal static (byte[] Code, Dictionary<string, ulong> Symbols) Assemble(ulong address)
    {
        var asm = new Assembler(64);
        var names = new[] { "privy_doorbell_host", "privy_copy_page", "privy_zero_page", "privy_pause", "privy_try_copy", TryCopy, TryCopyFailed, "privy_timestamp", "privy_fs_base", "privy_gs_base" };
        var labels = names.Select(name => asm.CreateLabel(name)).ToArray();

        asm.Label(ref labels[0]);
        asm.AddInstruction(Instruction.Create(Code.Mov_moffs8_AL, new MemoryOperand(Register.None, Register.None, 1, (long)(Layout.DoorbellVirtual + Layout.DoorbellHost), 8), Register.AL));
        asm.ret();

        // MOVSQ, not MOVSB: fast string bytes (ERMS) are not everywhere.
        asm.Label(ref labels[1]);
        asm.mov(ecx, 512);
        asm.rep.movsq();
        asm.ret();

        asm.Label(ref labels[2]);
        asm.xor(eax, eax);
        asm.mov(ecx, 512);
        asm.rep.stosq();
        asm.ret();

        asm.Label(ref labels[3]);
        asm.pause();
        asm.ret();

        // Its result is 1, or 0 when the host found KVM_RUN to fail at the copy (Vcpu.SkipFailedCopy).
        asm.Label(ref labels[4]);
        asm.mov(rcx, rdx);
        asm.Label(ref labels[5]);
        asm.rep.movsq();
        asm.mov(eax, 1);
        asm.ret();
        asm.Label(ref labels[6]);
        asm.xor(eax, eax);
        asm.ret();

        asm.Label(ref labels[7]);
        asm.rdtsc();
        asm.shl(rdx, 32);
        asm.or(rax, rdx);
        asm.ret();

        asm.Label(ref labels[8]);
        asm.rdfsbase(rax);
        asm.ret();

        asm.Label(ref labels[9]);
        asm.rdgsbase(rax);
        asm.ret();

        using var stream = new MemoryStream();
        var result = asm.Assemble(new StreamCodeWriter(stream), address, BlockEncoderOptions.ReturnNewInstructionOffsets);
        var symbols = new Dictionary<string, ulong>();
        for (var i = 0; i < names.Length; i++)
            symbols[names[i]] = result.GetLabelRIP(labels[i]);
        return (stream.ToArray(), symbols);
    }
}
