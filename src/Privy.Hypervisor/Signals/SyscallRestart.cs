using Privy.Hypervisor.Host;
using Privy.Hypervisor.Syscalls;
using Privy.Kvm;

namespace Privy.Hypervisor.Signals;

/// <summary>
/// What becomes of a system call that a signal interrupted (signal(7), "Interruption of system calls and library functions by signal handlers").
/// Without a handler every call is made again, so a kick that was not for the program is never seen by it; a relative timeout must then be what is left of it
/// (<see cref="ThreadSignals.RemainingTimeout"/>).
/// </summary>
public static class SyscallRestart
{
    private enum Kind : byte
    {
        /// <summary>Not interruptible: a call that was not made is made, whatever the handler's flags; a call the kernel did interrupt fails.</summary>
        Other,

        /// <summary>
        /// As <see cref="Restarts"/> once it waits; but programs do not expect EINTR of it on a regular file, so a call that was not made is made after any handler.
        /// </summary>
        File,

        /// <summary>Made again after a handler with SA_RESTART.</summary>
        Restarts,

        /// <summary>EINTR after any handler.</summary>
        Fails,
    }

    private static readonly Kind[] Kinds = BuildKinds();

    /// <summary>True for a result that says "interrupted".</summary>
    public static bool IsInterrupted(long result) => result is -Errno.EINTR or -Errno.ERESTARTSYS or -Errno.ERESTARTNOHAND;

    /// <summary>No handler runs: makes an interrupted call again.</summary>
    public static void WithoutHandler(ISignalContext context)
    {
        ArgumentNullException.ThrowIfNull(context);
        ref GuestRegisters registers = ref context.Registers;
        long number = context.CallNumber;
        context.CallNumber = -1;
        if (number < 0 || !IsInterrupted((long)registers.Rax))
            return;
        // A descriptor is gone even if its close was interrupted: a second close might hit another thread's new one.
        if (number == 3 && (long)registers.Rax == -Errno.EINTR)
            return;
        context.ThreadSignals.NoteRestart(registers.Rip, number);
        Restart(ref registers, number);
    }

    /// <summary>A handler is about to run: makes the registers that its frame saves either repeat the call or say EINTR.</summary>
    public static void WithHandler(ISignalContext context, in SignalAction action)
    {
        ArgumentNullException.ThrowIfNull(context);
        ref GuestRegisters registers = ref context.Registers;
        long number = context.CallNumber;
        context.CallNumber = -1;
        long result = (long)registers.Rax;
        if (number < 0 || !IsInterrupted(result))
            return;
        context.ThreadSignals.ForgetRestart();
        var arguments = new SyscallArguments(registers.Rdi, registers.Rsi, registers.Rdx, registers.R10, registers.R8, registers.R9);
        if (RestartsAfterHandler(number, result, arguments, action.Flags))
        {
            Restart(ref registers, number);
            return;
        }

        if (result == -Errno.ERESTARTSYS)
            StoreWholeRemainder(context, number, arguments);
        registers.Rax = unchecked((ulong)-Errno.EINTR);
    }

    /// <summary>The rule alone.</summary>
    public static bool RestartsAfterHandler(long number, long result, in SyscallArguments arguments, ulong flags)
    {
        bool wanted = (flags & SignalAction.SA_RESTART) != 0;
        Kind kind = KindOf(number, arguments);
        return result switch
        {
            -Errno.ERESTARTNOHAND => false,
            // Not made at all. To the program the signal came just before the call, or during it where that is what such calls are known for.
            -Errno.ERESTARTSYS => kind switch { Kind.Fails => false, Kind.Restarts => wanted, _ => true },
            _ => kind is Kind.File or Kind.Restarts && wanted,
        };
    }

    /// <summary>A sleep that was interrupted before it began has all of its time left, and has to say so.</summary>
    private static void StoreWholeRemainder(ISignalContext context, long number, in SyscallArguments arguments)
    {
        const long nanosleep = 35, clockNanosleep = 230;
        var (request, remainder) = number switch
        {
            nanosleep => (arguments.A0, arguments.A1),
            clockNanosleep when (arguments.A1 & 1) == 0 => (arguments.A2, arguments.A3),
            _ => (0UL, 0UL),
        };
        Span<byte> time = stackalloc byte[16];
        if (remainder != 0 && context.TryRead(request, time))
            context.TryWrite(remainder, time);
    }

    private static void Restart(ref GuestRegisters registers, long number)
    {
        registers.Rip -= 2; // The length of `syscall`.
        registers.Rax = (ulong)number;
    }

    private static Kind KindOf(long number, in SyscallArguments arguments)
    {
        if (number < 0 || number >= Kinds.Length)
            return Kind.Other;
        switch (number)
        {
            case 202: // futex: a wait with a timeout fails (kernel/futex/waitwake.c), one without restarts; others do not wait, or restart by themselves.
                int operation = (int)arguments.A1 & 0x7f;
                return operation is 0 or 9 ? (arguments.A3 != 0 ? Kind.Fails : Kind.Restarts) : Kind.Other;
            case 72: // fcntl: F_SETLKW and F_OFD_SETLKW wait.
                return (int)arguments.A1 is 7 or 38 ? Kind.Restarts : Kind.Other;
            case 232 or 281 when (int)arguments.A3 == 0: // epoll_wait, epoll_pwait: one that does not wait looks at its events, and at no signal (fs/eventpoll.c).
                return Kind.Other;
            default:
                return Kinds[number];
        }
    }

    private static Kind[] BuildKinds()
    {
        var kinds = new Kind[464];
        // read write ioctl pread64 pwrite64 readv writev sendfile open creat openat preadv pwritev splice tee vmsplice getrandom copy_file_range preadv2 pwritev2 openat2
        foreach (int number in (ReadOnlySpan<int>)[0, 1, 16, 17, 18, 19, 20, 40, 2, 85, 257, 295, 296, 275, 276, 278, 318, 326, 327, 328, 437])
            kinds[number] = Kind.File;
        // connect accept sendto recvfrom sendmsg recvmsg wait4 flock accept4 recvmmsg sendmmsg waitid mq_timedsend mq_timedreceive futex_waitv
        foreach (int number in (ReadOnlySpan<int>)[42, 43, 44, 45, 46, 47, 61, 73, 288, 299, 307, 247, 242, 243, 449])
            kinds[number] = Kind.Restarts;
        // poll select pause nanosleep semop msgsnd msgrcv rt_sigtimedwait rt_sigsuspend io_getevents semtimedop clock_nanosleep epoll_wait pselect6 ppoll
        // epoll_pwait io_pgetevents io_uring_enter epoll_pwait2
        foreach (int number in (ReadOnlySpan<int>)[7, 23, 34, 35, 65, 69, 70, 128, 130, 208, 220, 230, 232, 270, 271, 281, 333, 426, 441])
            kinds[number] = Kind.Fails;
        return kinds;
    }
}
