using System.Runtime.InteropServices;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Syscalls;

namespace Privy.Hypervisor.Signals;

/// <summary>The system calls about signals. Each takes the arguments as the program gave them and returns what goes to rax.</summary>
public static unsafe class SignalCalls
{
    private const ulong SetLength = 8;

    /// <summary>rt_sigaction(signal, action, old, set length).</summary>
    public static long RtSigaction(ISignalContext context, in SyscallArguments a)
    {
        int signal = (int)a.A0;
        if (a.A3 != SetLength || !Signal.IsValid(signal))
            return -Errno.EINVAL;
        SignalAction action = default;
        if (a.A1 != 0)
        {
            if (SignalSet.Unblockable.Contains(signal))
                return -Errno.EINVAL;
            if (!TryRead(context, a.A1, out action))
                return -Errno.EFAULT;
        }
        SignalAction old = a.A1 != 0 ? context.ProcessSignals.SetAction(signal, action) : context.ProcessSignals[signal];
        return a.A2 == 0 || TryWrite(context, a.A2, old) ? 0 : -Errno.EFAULT;
    }

    /// <summary>rt_sigprocmask(how, set, old, set length).</summary>
    public static long RtSigprocmask(ISignalContext context, in SyscallArguments a)
    {
        if (a.A3 != SetLength)
            return -Errno.EINVAL;
        ThreadSignals thread = context.ThreadSignals;
        SignalSet old = thread.Mask;
        if (a.A1 != 0)
        {
            if (!TryRead(context, a.A1, out ulong bits))
                return -Errno.EFAULT;
            var set = new SignalSet(bits);
            switch ((int)a.A0)
            {
                case 0: // SIG_BLOCK
                    thread.Mask = old | set;
                    break;
                case 1: // SIG_UNBLOCK
                    thread.Mask = old & ~set;
                    break;
                case 2: // SIG_SETMASK
                    thread.Mask = set;
                    break;
                default:
                    return -Errno.EINVAL;
            }
        }
        return a.A2 == 0 || TryWrite(context, a.A2, old.Bits) ? 0 : -Errno.EFAULT;
    }

    /// <summary>rt_sigpending(set, set length).</summary>
    public static long RtSigpending(ISignalContext context, in SyscallArguments a)
    {
        if (a.A1 > SetLength)
            return -Errno.EINVAL;
        ulong pending = (context.ProcessSignals.Pending(context.ThreadSignals) & context.ThreadSignals.Mask).Bits;
        return context.TryWrite(a.A0, new ReadOnlySpan<byte>(&pending, (int)a.A1)) ? 0 : -Errno.EFAULT;
    }

    /// <summary>rt_sigsuspend(set, set length).</summary>
    public static long RtSigsuspend(ISignalContext context, in SyscallArguments a)
    {
        if (a.A1 != SetLength)
            return -Errno.EINVAL;
        if (!TryRead(context, a.A0, out ulong mask))
            return -Errno.EFAULT;
        context.ThreadSignals.BeginTemporaryMask(new SignalSet(mask));
        return Pause(context, a);
    }

    /// <summary>pause().</summary>
    public static long Pause(ISignalContext context, in SyscallArguments a)
    {
        context.HostCall(34);
        return -Errno.ERESTARTNOHAND;
    }

    /// <summary>rt_sigtimedwait(set, info, timeout, set length).</summary>
    public static long RtSigtimedwait(ISignalContext context, in SyscallArguments a)
    {
        if (a.A3 != SetLength)
            return -Errno.EINVAL;
        if (!TryRead(context, a.A0, out ulong bits))
            return -Errno.EFAULT;
        long timeout = -1;
        if (a.A2 != 0)
        {
            if (!TryRead(context, a.A2, out Timespec limit))
                return -Errno.EFAULT;
            if (!limit.TryNanoseconds(out timeout))
                return -Errno.EINVAL;
        }
        SignalSet set = new SignalSet(bits) & ~SignalSet.Unblockable;
        ThreadSignals thread = context.ThreadSignals;
        ProcessSignals process = context.ProcessSignals;

        // From now on one of these signals interrupts the thread. One that came before is there already.
        process.SetAwaited(thread, set);
        long waited = 0;
        bool taken = process.TryTake(thread, set, out SignalInfo info);
        if (!taken && timeout != 0)
        {
            Timespec left = default;
            if (timeout > 0)
                left = new Timespec(thread.RemainingTimeout(context.Registers.Rip, 128, timeout));
            waited = context.HostCall(271, 0, 0, timeout > 0 ? (ulong)&left : 0); // ppoll without descriptors
            taken = process.TryTake(thread, set, out info);
        }
        process.SetAwaited(thread, default);
        if (!taken)
            return SyscallRestart.IsInterrupted(waited) ? -Errno.ERESTARTNOHAND : -Errno.EAGAIN;
        return a.A1 == 0 || TryWrite(context, a.A1, info) ? info.Number : -Errno.EFAULT;
    }

    /// <summary>rt_sigreturn(). The result is the program's own rax.</summary>
    public static long RtSigreturn(ISignalContext context, in SyscallArguments a)
    {
        if (!SignalFrame.TryRestore(context))
        {
            context.ProcessSignals.Force(SignalInfo.FromKernel(Signal.SIGSEGV), context.ThreadSignals);
            context.CallNumber = -1;
        }
        return (long)context.Registers.Rax;
    }

    /// <summary>sigaltstack(new, old).</summary>
    public static long Sigaltstack(ISignalContext context, in SyscallArguments a)
    {
        ThreadSignals thread = context.ThreadSignals;
        AlternateStack current = thread.AlternateStack;
        ulong stackPointer = context.Registers.Rsp;
        if (a.A0 != 0)
        {
            if (!TryRead(context, a.A0, out Stack wanted))
                return -Errno.EFAULT;
            long result = SetAlternateStack(thread, new AlternateStack(wanted.Address, wanted.Flags, wanted.Length), stackPointer);
            if (result != 0)
                return result;
        }
        if (a.A1 == 0)
            return 0;
        uint state = current.Length == 0 ? AlternateStack.SS_DISABLE : current.IsActive(stackPointer) ? AlternateStack.SS_ONSTACK : 0;
        var old = new Stack { Address = current.Address, Flags = state | (current.Flags & AlternateStack.SS_AUTODISARM), Length = current.Length };
        return TryWrite(context, a.A1, old) ? 0 : -Errno.EFAULT;
    }

    /// <summary>kill(pid, signal).</summary>
    public static long Kill(ISignalContext context, in SyscallArguments a)
    {
        int target = (int)a.A0, signal = (int)a.A1;
        if (signal != 0 && !Signal.IsValid(signal))
            return -Errno.EINVAL;
        SignalInfo info = FromSelf(context, signal, SignalInfo.SI_USER);
        if (target > 0)
        {
            // Linux takes the id of any thread for its process.
            if ((context.Processes.FindProcess(target) ?? context.Processes.FindThread(target)?.Process) is { } process)
                return signal == 0 ? 0 : process.Send(info);
            if (context.Processes.NativeIdOf(target) is var native and > 0)
                return Native(HostCallNumber.Kill, (ulong)native, (ulong)signal);
            if (context.Processes.IsZombie(target))
                return 0;
            // Threads of the hypervisor are nobody's business.
            return IsHostThread(target) || context.Processes.IsLeaving(target) ? -Errno.ESRCH : Native(HostCallNumber.Kill, (ulong)(long)target, (ulong)signal);
        }
        if (target == int.MinValue || (target < -1 && context.Processes.HidesGroup(-target)))
            return -Errno.ESRCH;

        // The host kernel reaches the native members of the group, and the main process: as a signal from outside, which comes back here. The snapshots in
        // the group it does not know.
        int group = target == 0 ? context.Processes.GroupOf(context.ProcessId) : target == -1 ? 0 : -target;
        long sent = 0;
        foreach (ProcessSignals member in context.Processes.SnapshotsOfGroup(group))
        {
            // kill(-1) spares its caller.
            if (target == -1 && member == context.ProcessSignals)
                continue;
            if (signal != 0)
                member.Send(info);
            sent++;
        }
        long reached = Native(HostCallNumber.Kill, target == -1 ? ulong.MaxValue : (ulong)-(long)group, (ulong)signal);
        return sent > 0 ? 0 : reached;
    }

    /// <summary>tgkill(process, thread, signal).</summary>
    public static long Tgkill(ISignalContext context, in SyscallArguments a)
    {
        int processId = (int)a.A0, threadId = (int)a.A1;
        return processId <= 0 || threadId <= 0 ? -Errno.EINVAL : ToThread(context, processId, threadId, (int)a.A2);
    }

    /// <summary>tkill(thread, signal).</summary>
    public static long Tkill(ISignalContext context, in SyscallArguments a)
    {
        int threadId = (int)a.A0;
        return threadId <= 0 ? -Errno.EINVAL : ToThread(context, 0, threadId, (int)a.A1);
    }

    /// <summary>rt_sigqueueinfo(process, signal, info).</summary>
    public static long RtSigqueueinfo(ISignalContext context, in SyscallArguments a)
    {
        int target = (int)a.A0, signal = (int)a.A1;
        if (!TryRead(context, a.A2, out SignalInfo info))
            return -Errno.EFAULT;
        if (target <= 0)
            return -Errno.ESRCH;
        // Nobody may pretend to be the kernel or kill(2) towards others (kernel/signal.c, do_rt_sigqueueinfo).
        if (info.Code is >= 0 or SignalInfo.SI_TKILL && target != context.ProcessId)
            return -Errno.EPERM;
        if (signal != 0 && !Signal.IsValid(signal))
            return -Errno.EINVAL;
        info.Number = signal;
        if ((context.Processes.FindProcess(target) ?? context.Processes.FindThread(target)?.Process) is { } process)
            return signal == 0 ? 0 : process.Send(info);
        if (context.Processes.NativeIdOf(target) is var native and > 0)
            target = native;
        else if (context.Processes.IsZombie(target))
            return 0;
        return IsHostThread(target) || context.Processes.IsLeaving(target) ? -Errno.ESRCH : Native(HostCallNumber.RtSigqueueinfo, (ulong)target, (ulong)signal, (ulong)&info);
    }

    /// <summary>rt_tgsigqueueinfo(process, thread, signal, info).</summary>
    public static long RtTgsigqueueinfo(ISignalContext context, in SyscallArguments a)
    {
        int processId = (int)a.A0, threadId = (int)a.A1, signal = (int)a.A2;
        if (!TryRead(context, a.A3, out SignalInfo info))
            return -Errno.EFAULT;
        if (processId <= 0 || threadId <= 0 || (signal != 0 && !Signal.IsValid(signal)))
            return -Errno.EINVAL;
        if (info.Code is >= 0 or SignalInfo.SI_TKILL && processId != context.ProcessId)
            return -Errno.EPERM;
        info.Number = signal;
        if (context.Processes.FindThread(threadId) is { } thread && thread.Process.ProcessId == processId)
            return signal == 0 ? 0 : thread.Process.Send(info, thread);
        if (context.Processes.FindProcess(processId) is not null || IsHostThread(threadId))
            return -Errno.ESRCH;
        return Native(HostCallNumber.RtTgsigqueueinfo, (ulong)processId, (ulong)threadId, (ulong)signal, (ulong)&info);
    }

    internal static long SetAlternateStack(ThreadSignals thread, AlternateStack wanted, ulong stackPointer)
    {
        AlternateStack current = thread.AlternateStack;
        if (current.IsActive(stackPointer))
            return -Errno.EPERM;
        uint mode = wanted.Flags & ~AlternateStack.SS_AUTODISARM;
        if (mode is not (0 or AlternateStack.SS_ONSTACK or AlternateStack.SS_DISABLE))
            return -Errno.EINVAL;
        if (mode == AlternateStack.SS_DISABLE)
            wanted = new AlternateStack(0, wanted.Flags, 0);
        else if (wanted.Length < AlternateStack.MINSIGSTKSZ)
            return -Errno.ENOMEM;
        thread.AlternateStack = wanted;
        return 0;
    }

    internal static SignalInfo FromSelf(ISignalContext context, int signal, int code) => SignalInfo.FromProcess(signal, code, context.ProcessId, context.UserId);

    internal static bool TryRead<T>(ISignalContext context, ulong address, out T value) where T : unmanaged
    {
        value = default;
        return context.TryRead(address, MemoryMarshal.AsBytes(new Span<T>(ref value)));
    }

    internal static bool TryWrite<T>(ISignalContext context, ulong address, T value) where T : unmanaged =>
        context.TryWrite(address, MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in value)));

    private static long ToThread(ISignalContext context, int processId, int threadId, int signal)
    {
        if (signal != 0 && !Signal.IsValid(signal))
            return -Errno.EINVAL;
        if (context.Processes.FindThread(threadId) is { } thread && (processId == 0 || thread.Process.ProcessId == processId))
            return signal == 0 ? 0 : thread.Process.Send(FromSelf(context, signal, SignalInfo.SI_TKILL), thread);
        if (IsHostThread(threadId) || (processId != 0 && context.Processes.FindProcess(processId) is not null))
            return -Errno.ESRCH;
        return processId == 0
            ? Native(HostCallNumber.Tkill, (ulong)threadId, (ulong)signal)
            : Native(HostCallNumber.Tgkill, (ulong)processId, (ulong)threadId, (ulong)signal);
    }

    private static bool IsHostThread(int threadId) => HostSyscall.RawQuick(HostCallNumber.Tgkill, (ulong)Environment.ProcessId, (ulong)threadId, 0) == 0;

    // On the host thread, so that the host kernel checks what it may. It does not wait, so no interrupt has to end it.
    private static long Native(long number, ulong a0, ulong a1, ulong a2 = 0, ulong a3 = 0) => HostSyscall.Raw(number, a0, a1, a2, a3);

    [StructLayout(LayoutKind.Sequential)]
    private struct Stack
    {
        internal ulong Address;
        internal uint Flags;
        internal ulong Length;
    }
}
