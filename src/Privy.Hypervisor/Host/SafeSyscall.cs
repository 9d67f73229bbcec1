using System.Runtime.InteropServices;
using Iced.Intel;
using Privy.Hypervisor.Signals;
using static Iced.Intel.AssemblerRegisters;

namespace Privy.Hypervisor.Host;

/// <summary>What a host thread shares with its kickers and with the kick handler. Native memory; the machine code knows the offsets.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct HostThreadBlock
{
    /// <summary>Nonzero: the next <see cref="SafeSyscall.Invoke"/> returns at once without making its call. Set by kickers, cleared by the thread when it has looked at what is pending.</summary>
    public int InterruptPending;

    /// <summary>Nonzero from before the check until after the call.</summary>
    public int InCall;

    /// <summary>Kernel id of the timer by which a kick that hit another signal's handler is repeated.</summary>
    public int RepeatTimer;

    /// <summary>Thread id.</summary>
    public int ThreadId;

    /// <summary><c>struct itimerspec</c> for <see cref="RepeatTimer"/>: once, after <see cref="RepeatNanoseconds"/>.</summary>
    public long RepeatIntervalSeconds, RepeatIntervalNanoseconds, RepeatSeconds, RepeatNanoseconds;
}

/// <summary>
/// A system call that a kick interrupts even if it arrives just before the call. Between the check of
/// <see cref="HostThreadBlock.InterruptPending"/> and the <c>syscall</c> instruction a signal would be lost on a call that then blocks for ever;
/// so the kick's handler looks where it interrupted and moves the program counter from that range to the abort path.
/// </summary>
public static unsafe class SafeSyscall
{
    /// <summary>
    /// The kick: SIGRTMIN+6 in glibc's counting. The runtime uses 34 (SIGRTMIN) to suspend threads; 32 and 33 are libc's own.
    /// </summary>
    public const int KickSignal = 40;

    /// <summary>
    /// The kick where there is no room for a real-time signal: each waits in a queue that all processes of the user share (RLIMIT_SIGPENDING), while a standard
    /// signal is a bit that is never refused. Linux raises this one for nothing on x86; <see cref="HostSignals"/> tells kicks from what another process sends.
    /// </summary>
    public const int SpareKickSignal = Signal.SIGSTKFLT;

    /// <summary>Both.</summary>
    internal static SignalSet Kicks => SignalSet.Of(KickSignal, SpareKickSignal);

    // Offsets: siginfo_t si_code and si_value (the same place for SI_QUEUE and SI_TIMER); ucontext_t uc_mcontext.gregs[REG_RIP].
    private const int SiCode = 8, SiValue = 24, UcRip = 168;
    private const int SiQueue = -1, SiTimer = -2;

    private static readonly delegate* unmanaged<HostThreadBlock*, long, ulong, ulong, ulong, ulong, ulong, ulong, long> Stub;

    // For tests: the handler is called like any function, the window is where a kick must lead to the abort path.
    internal static readonly delegate* unmanaged<int, byte*, byte*, void> Handler;
    internal static readonly ulong Check, Call, Abort;

    static SafeSyscall()
    {
        var c = new Assembler(64);
        Label entry = c.CreateLabel(), check = c.CreateLabel(), call = c.CreateLabel(), abort = c.CreateLabel(), leave = c.CreateLabel(), end = c.CreateLabel();
        Label handler = c.CreateLabel(), elsewhere = c.CreateLabel(), done = c.CreateLabel(), ours = c.CreateLabel(), repeat = c.CreateLabel(), restorer = c.CreateLabel();

        c.Label(ref entry);
        c.push(rbx); // The block stays in a register that `syscall` does not clobber: a restarted call comes back to the instruction with rcx and r11 lost.
        c.mov(rbx, rdi);
        c.mov(rax, rsi);
        c.mov(rdi, rdx);
        c.mov(rsi, rcx);
        c.mov(rdx, r8);
        c.mov(r10, r9);
        c.mov(r8, __qword_ptr[rsp + 16]);
        c.mov(r9, __qword_ptr[rsp + 24]);
        c.mov(__dword_ptr[rbx + 4], 1);
        c.Label(ref check);
        c.cmp(__dword_ptr[rbx], 0);
        c.jne(abort);
        c.Label(ref call);
        c.syscall();
        c.Label(ref leave);
        c.mov(__dword_ptr[rbx + 4], 0);
        c.pop(rbx);
        c.ret();
        c.Label(ref abort);
        c.mov(rax, -Errno.ERESTARTSYS);
        c.jmp(leave);
        c.Label(ref end);
        c.nop();

        // void handler(int signal, siginfo_t* info, ucontext_t* context)
        c.Label(ref handler);
        c.mov(rax, __qword_ptr[rdx + UcRip]);
        c.lea(rcx, __[check]);
        c.cmp(rax, rcx);
        c.jb(elsewhere);
        c.lea(rcx, __[call]);
        c.cmp(rax, rcx);
        c.ja(elsewhere);
        c.lea(rcx, __[abort]);
        c.mov(__qword_ptr[rdx + UcRip], rcx);
        c.ret();

        // Outside the range. If the thread is nevertheless inside a call, the kick hit the handler of another signal (the runtime's thread suspension),
        // which may return to the range, or to a call the kernel restarts: nothing here can reach that outer context, so the kick is repeated a little later.
        c.Label(ref elsewhere);
        c.mov(ecx, __dword_ptr[rsi + SiCode]);
        c.cmp(ecx, SiQueue);
        c.je(ours);
        c.cmp(ecx, SiTimer);
        c.jne(done);
        c.Label(ref ours);
        c.mov(r8, __qword_ptr[rsi + SiValue]);
        c.test(r8, r8);
        c.je(done);
        c.cmp(__dword_ptr[r8 + 4], 0);
        c.je(done);
        c.lea(rcx, __[entry]);
        c.cmp(rax, rcx);
        c.jb(repeat);
        c.lea(rcx, __[end]);
        c.cmp(rax, rcx);
        c.jb(done);
        c.Label(ref repeat);
        c.movsxd(rdi, __dword_ptr[r8 + 8]);
        c.xor(esi, esi);
        c.lea(rdx, __[r8 + 16]);
        c.xor(r10d, r10d);
        c.mov(eax, (int)HostCallNumber.TimerSettime);
        c.syscall();
        c.Label(ref done);
        c.ret();
        c.Label(ref restorer);
        c.mov(eax, (int)HostCallNumber.RtSigreturn);
        c.syscall();

        AssemblerResult result = HostCode.Assemble(c);
        Stub = (delegate* unmanaged<HostThreadBlock*, long, ulong, ulong, ulong, ulong, ulong, ulong, long>)result.GetLabelRIP(entry);
        Handler = (delegate* unmanaged<int, byte*, byte*, void>)result.GetLabelRIP(handler);
        (Check, Call, Abort) = (result.GetLabelRIP(check), result.GetLabelRIP(call), result.GetLabelRIP(abort));
        // No SA_RESTART: a kick must end a blocking call.
        foreach (int signal in (ReadOnlySpan<int>)[KickSignal, SpareKickSignal])
            KernelSigaction.Set(signal, new KernelSigaction
            {
                Handler = (ulong)Handler,
                Flags = KernelSigaction.SaSiginfo | KernelSigaction.SaOnstack | KernelSigaction.SaRestorer,
                Restorer = result.GetLabelRIP(restorer),
                Mask = ulong.MaxValue,
            });
    }

    /// <summary>Installs the kick handler, if that has not happened yet.</summary>
    public static void Install() => System.Runtime.CompilerServices.RuntimeHelpers.RunClassConstructor(typeof(SafeSyscall).TypeHandle);

    /// <summary>
    /// Makes the call on the calling thread. Returns -<see cref="Errno.ERESTARTSYS"/> when an interrupt was pending or came just before: the call was
    /// then certainly not made. An interrupted call ends as the kernel has it: -<see cref="Errno.EINTR"/>, or the part that was done.
    /// </summary>
    public static long Invoke(HostThreadBlock* block, long number, ulong a0 = 0, ulong a1 = 0, ulong a2 = 0, ulong a3 = 0, ulong a4 = 0, ulong a5 = 0) =>
        Stub(block, number, a0, a1, a2, a3, a4, a5);
}
