using Iced.Intel;
using Privy.Kernel;
using static Iced.Intel.AssemblerRegisters;

namespace Privy.Hypervisor.Diagnostics;

/// <summary>
/// The guest program of the cost probe: loops that time one event with RDTSC, so that each sample is free of the exit that brings the
/// results out.
/// </summary>
internal sealed class ProbeProgram
{
    /// <summary>NOPs in the longer of the two handlers that are compared.</summary>
    internal const int Nops = 64;

    private ProbeProgram(byte[] code) => Code = code;

    internal byte[] Code { get; }

    /// <summary>SYSCALL again and again, with the time stamp in r8.</summary>
    internal ulong Syscalls { get; private init; }

    /// <summary>Stores to the doorbell page again and again.</summary>
    internal ulong Doorbells { get; private init; }

    /// <summary>Times r12 breakpoints; results at rdi.</summary>
    internal ulong Breakpoints { get; private init; }

    /// <summary>Times r12 stores of one byte at rsi, rbx apart; results at rdi.</summary>
    internal ulong Stores { get; private init; }

    /// <summary>Places the program at an address.</summary>
    internal static ProbeProgram Assemble(ulong address)
    {
        var asm = new Assembler(64);
        var syscalls = asm.CreateLabel();
        var doorbells = asm.CreateLabel();
        var breakpoints = asm.CreateLabel();
        var stores = asm.CreateLabel();

        asm.Label(ref syscalls);
        TimeStamp(asm);
        asm.mov(r8, rax);
        asm.syscall();
        asm.jmp(syscalls);

        asm.Label(ref doorbells);
        asm.AddInstruction(Instruction.Create(Iced.Intel.Code.Mov_moffs8_AL, new MemoryOperand(Register.None, Register.None, 1, (long)(Layout.DoorbellVirtual + Layout.DoorbellSyscall), 8), Register.AL));
        asm.jmp(doorbells);

        asm.Label(ref breakpoints);
        Sample(asm, static a => a.int3());
        asm.Label(ref stores);
        Sample(asm, static a => a.mov(__byte_ptr[rsi], 1));

        using var stream = new MemoryStream();
        var result = asm.Assemble(new StreamCodeWriter(stream), address, BlockEncoderOptions.ReturnNewInstructionOffsets);
        return new ProbeProgram(stream.ToArray())
        {
            Syscalls = result.GetLabelRIP(syscalls),
            Doorbells = result.GetLabelRIP(doorbells),
            Breakpoints = result.GetLabelRIP(breakpoints),
            Stores = result.GetLabelRIP(stores),
        };
    }

    /// <summary>A handler of ring 0: some NOPs and IRETQ. The difference between handlers of different lengths is the cost of ring 0.</summary>
    internal static byte[] Stub(int nops)
    {
        var code = new byte[nops + 2];
        Array.Fill(code, (byte)0x90);
        code[nops] = 0x48;
        code[nops + 1] = 0xCF;
        return code;
    }

    private static void Sample(Assembler asm, Action<Assembler> timed)
    {
        var loop = asm.CreateLabel();
        asm.xor(r13d, r13d);
        asm.Label(ref loop);
        TimeStamp(asm);
        asm.mov(r8, rax);
        timed(asm);
        TimeStamp(asm);
        asm.sub(rax, r8);
        asm.mov(__qword_ptr[rdi + (r13 * 8)], rax);
        asm.add(rsi, rbx);
        asm.inc(r13);
        asm.cmp(r13, r12);
        asm.jb(loop);
        asm.syscall();
        asm.ud2();
    }

    private static void TimeStamp(Assembler asm)
    {
        asm.rdtsc();
        asm.shl(rdx, 32);
        asm.or(rax, rdx);
    }
}
