namespace Privy.Hypervisor.Syscalls;

/// <summary>The six argument registers of a system call (rdi, rsi, rdx, r10, r8, r9).</summary>
public readonly record struct SyscallArguments(ulong A0, ulong A1, ulong A2, ulong A3, ulong A4, ulong A5)
{
    /// <summary>Argument by index, 0 to 5.</summary>
    public ulong this[int index] => index switch { 0 => A0, 1 => A1, 2 => A2, 3 => A3, 4 => A4, 5 => A5, _ => throw new ArgumentOutOfRangeException(nameof(index)) };
}
