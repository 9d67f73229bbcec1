using System.Runtime.InteropServices;
using Iced.Intel;
using Privy.Hypervisor.Boot;
using static Iced.Intel.AssemblerRegisters;

namespace Privy.Hypervisor.Sites;

/// <summary>
/// The code that a rewritten site jumps to: loads the number as the site did, and enters the system-call stub as SYSCALL would, with the return address in rcx and the flags in r11. Only
/// for one vCPU, which it knows by the base of GS; any other goes back to the site's SYSCALL.
/// </summary>
/// <remarks>
/// rax, rcx and r11 are free: the number is about to be loaded, and SYSCALL changes the others. No instruction before the jump into the stub changes flags but the load itself. A vCPU
/// that is kicked in here is set to the site's SYSCALL (<see cref="SyscallSite.Complete"/>), so nothing is ever resumed in here that a signal handler's calls might have disturbed.
/// </remarks>
internal sealed class Trampoline
{
    private readonly ulong _ownStack, _programStack;

    private Trampoline(ulong address, byte[] code, ulong ownStack, ulong programStack)
    {
        Address = address;
        Code = code;
        _ownStack = ownStack;
        _programStack = programStack;
    }

    /// <summary>Its first instruction.</summary>
    internal ulong Address { get; }

    internal byte[] Code { get; }

    /// <summary>Whether an address lies in it.</summary>
    internal bool Contains(ulong rip) => rip - Address < (ulong)Code.Length;

    /// <summary>Whether rsp is not the program's at an instruction; <see cref="SyscallRing.StackPointer"/> is.</summary>
    internal bool HasOwnStack(ulong rip) => rip > _ownStack && rip <= _programStack;

    /// <summary>Makes one.</summary>
    /// <param name="site">The site.</param>
    /// <param name="address">Where it is to lie.</param>
    /// <param name="area">The area of the vCPU that it is for, which is the base of its GS.</param>
    /// <param name="entry">Where the address of that vCPU's stub lies, within a jump's reach.</param>
    internal static Trampoline Assemble(SyscallSite site, ulong address, ulong area, ulong entry)
    {
        var stackPointer = VcpuLayout.Ring + (ulong)Marshal.OffsetOf<SyscallRing>(nameof(SyscallRing.StackPointer));
        const ulong stackTop = VcpuLayout.Ring + SyscallRing.StackTop;
        var asm = new Assembler(64);
        var own = asm.CreateLabel("own");
        var ownStack = asm.CreateLabel("own_stack");
        var programStack = asm.CreateLabel("program_stack");

        asm.rdgsbase(rcx);
        asm.mov(r11, unchecked((long)(0 - area)));
        asm.lea(rcx, __[rcx + r11]);
        asm.db(site.Bytes);
        asm.jrcxz(own);
        asm.jmp(site.Syscall);
        asm.Label(ref own);
        // All flags, as SYSCALL has them; LAHF knows only some. Not on the program's stack, whose red zone may be in use.
        asm.mov(rcx, (long)(area + stackPointer));
        asm.mov(__qword_ptr[rcx], rsp);
        asm.Label(ref ownStack);
        asm.lea(rsp, __[rcx + (long)(stackTop - stackPointer)]);
        asm.pushfq();
        asm.pop(r11);
        asm.Label(ref programStack);
        asm.mov(rsp, __qword_ptr[rcx]);
        asm.AddInstruction(Instruction.Create(Iced.Intel.Code.Lea_r64_m, Register.RCX, new MemoryOperand(Register.RIP, (long)site.Syscall + 2, 8)));
        asm.AddInstruction(Instruction.Create(Iced.Intel.Code.Jmp_rm64, new MemoryOperand(Register.RIP, (long)entry, 8)));

        using var stream = new MemoryStream();
        var result = asm.Assemble(new StreamCodeWriter(stream), address, BlockEncoderOptions.ReturnNewInstructionOffsets);
        if (stream.Length > TrampolinePages.Room)
            throw new InvalidOperationException($"a trampoline takes {stream.Length} bytes, its place has {TrampolinePages.Room}");
        return new Trampoline(address, stream.ToArray(), result.GetLabelRIP(ownStack), result.GetLabelRIP(programStack));
    }

    /// <summary>Reads the base of GS into rdx, and makes a call that there is none of (<see cref="Vcpu.TryMark"/>).</summary>
    internal static byte[] Probe(ulong address)
    {
        var asm = new Assembler(64);
        asm.rdgsbase(rdx);
        asm.mov(eax, -1);
        asm.syscall();
        using var stream = new MemoryStream();
        _ = asm.Assemble(new StreamCodeWriter(stream), address);
        return stream.ToArray();
    }

    /// <summary>JMP rel32.</summary>
    internal static byte[] Jump(ulong from, ulong to)
    {
        var code = new byte[SiteFinder.JumpLength];
        code[0] = 0xE9;
        BitConverter.TryWriteBytes(code.AsSpan(1), checked((int)((long)to - (long)from - SiteFinder.JumpLength)));
        return code;
    }

    /// <summary>JMP rel8.</summary>
    internal static byte[] ShortJump(ulong from, ulong to) => [0xEB, (byte)checked((sbyte)((long)to - (long)from - SyscallSite.ShortLoad))];
}
