using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Privy.Hypervisor.Host;

/// <summary>System-call numbers of x86-64 used on the host (asm/unistd_64.h).</summary>
internal static class HostCallNumber
{
    internal const long Read = 0, Write = 1, Close = 3, RtSigaction = 13, RtSigprocmask = 14, RtSigreturn = 15, Getpid = 39, Clone = 56, Clone3 = 435, Execve = 59, Exit = 60,
        Kill = 62, Fcntl = 72, Setpgid = 109, Setsid = 112, Getpgid = 121, Sigaltstack = 131, Prctl = 157, Gettid = 186, Tkill = 200, TimerCreate = 222,
        TimerSettime = 223, TimerDelete = 226, Tgkill = 234, RtSigtimedwait = 128, RtSigqueueinfo = 129, RtTgsigqueueinfo = 297, Eventfd2 = 290;
}

/// <summary>Raw system calls: no errno, no libc wrapper, result as from the kernel.</summary>
public static unsafe class HostSyscall
{
    private static readonly delegate* unmanaged<long, ulong, ulong, ulong, ulong, ulong, ulong, long> Blocking;
    private static readonly delegate* unmanaged[SuppressGCTransition]<long, ulong, ulong, ulong, ulong, ulong, ulong, long> Quick;

    static HostSyscall()
    {
        var c = new Assembler(64);
        Label entry = c.CreateLabel();
        c.Label(ref entry);
        c.mov(rax, rdi);
        c.mov(rdi, rsi);
        c.mov(rsi, rdx);
        c.mov(rdx, rcx);
        c.mov(r10, r8);
        c.mov(r8, r9);
        c.mov(r9, __qword_ptr[rsp + 8]);
        c.syscall();
        c.ret();
        ulong address = HostCode.Assemble(c).GetLabelRIP(entry);
        Blocking = (delegate* unmanaged<long, ulong, ulong, ulong, ulong, ulong, ulong, long>)address;
        Quick = (delegate* unmanaged[SuppressGCTransition]<long, ulong, ulong, ulong, ulong, ulong, ulong, long>)address;
    }

    /// <summary>Makes a call that may block. Not interruptible by the program's signals except as any call is: a kick that arrives before it is lost on it.</summary>
    public static long Raw(long number, ulong a0 = 0, ulong a1 = 0, ulong a2 = 0, ulong a3 = 0, ulong a4 = 0, ulong a5 = 0) =>
        Blocking(number, a0, a1, a2, a3, a4, a5);

    /// <summary>Makes a call that never blocks and ends within a microsecond or so: the garbage collector waits for it.</summary>
    public static long RawQuick(long number, ulong a0 = 0, ulong a1 = 0, ulong a2 = 0, ulong a3 = 0, ulong a4 = 0, ulong a5 = 0) =>
        Quick(number, a0, a1, a2, a3, a4, a5);

    /// <summary>Returns the result of a call that cannot fail for a reason outside the hypervisor, or throws.</summary>
    internal static long Checked(long result, string call, string arguments) =>
        result is < 0 and >= -4095 ? throw new HostException(call, (int)-result, arguments) : result;
}
