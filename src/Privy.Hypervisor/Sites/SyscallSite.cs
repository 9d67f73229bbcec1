using Privy.Kvm;

namespace Privy.Hypervisor.Sites;

/// <summary>A place of the program where it loads the number of a system call and executes SYSCALL.</summary>
/// <param name="Load">The instruction that loads the number.</param>
/// <param name="Length">Its length: <see cref="LongLoad"/>, or <see cref="ShortLoad"/>.</param>
/// <param name="Number">The number.</param>
/// <param name="Pad">Where a jump to the trampoline has room, if the load is too short for one; else 0.</param>
/// <param name="PadLength">Length of what is there.</param>
internal sealed record SyscallSite(ulong Load, int Length, uint Number, ulong Pad, int PadLength)
{
    /// <summary>MOV EAX, imm32.</summary>
    internal const int LongLoad = 5;

    /// <summary>XOR EAX, EAX.</summary>
    internal const int ShortLoad = 2;

    /// <summary>The load's bytes.</summary>
    internal required byte[] Bytes { get; init; }

    /// <summary>The SYSCALL.</summary>
    internal ulong Syscall => Load + (ulong)Length;

    /// <summary>The code it leads to; none until it is rewritten.</summary>
    internal Trampoline? Trampoline { get; set; }

    /// <summary>
    /// Sets registers that were taken on the way to the stub, before anything of the call has happened, to what the program's own code would have left: the
    /// load is done, SYSCALL comes next. Nobody then sees an address that is not of the program's code.
    /// </summary>
    /// <param name="registers">The registers; rip may be anywhere from the jump's target on.</param>
    /// <param name="stackPointer">The program's rsp while the trampoline has its own.</param>
    internal void Complete(ref GuestRegisters registers, ulong stackPointer)
    {
        const ulong carry = 1, parity = 4, adjust = 0x10, zero = 0x40, sign = 0x80, overflow = 0x800;
        if (Trampoline!.HasOwnStack(registers.Rip))
            registers.Rsp = stackPointer;
        if (Length == ShortLoad)
            registers.Rflags = (registers.Rflags & ~(carry | adjust | sign | overflow)) | parity | zero;
        registers.Rax = Number;
        registers.Rip = Syscall;
    }
}
