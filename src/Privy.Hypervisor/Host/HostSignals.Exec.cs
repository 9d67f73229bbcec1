using Privy.Hypervisor.Signals;

namespace Privy.Hypervisor.Host;

/// <summary>
/// Signals while main calls execve, which replaces the host process by a new Privy: none is lost, none takes effect on either that is not meant for it, the kick of a
/// vCPU above all. Everything is blocked from before the call until the new process has set itself up; what comes meanwhile is pending there.
/// </summary>
public static unsafe partial class HostSignals
{
    // libc's own signals and the runtime's.
    private static readonly SignalSet Internal = SignalSet.Of(32, 33, 34);

    // On its way across execve a signal has this as the upper half of its si_errno, which is otherwise 0, and its si_code below: only a thread itself may
    // send itself one that seems to come from elsewhere (rt_tgsigqueueinfo(2)).
    private const int InTransit = 0x5072;

    // Those that have arrived and have the number of a kick.
    private static readonly List<SignalInfo> Kept = [];

    private static ulong s_maskBeforeExec;

    /// <summary>
    /// Takes the signals that are pending and blocked on the calling thread: natively they were so from before the program's start. Those of faults are blocked no more
    /// afterwards: by now the hypervisor tells its own from what others have sent.
    /// </summary>
    internal static void TakePending(Action<SignalInfo> send)
    {
        foreach (SignalInfo kept in Kept)
            send(kept);
        Kept.Clear();
        ulong set = (~(Internal | SafeSyscall.Kicks)).Bits;
        while (TryTakePending(set, out SignalInfo info))
            send(Arrived(info));
        ulong faults = SignalSet.Synchronous.Bits;
        HostSyscall.RawQuick(HostCallNumber.RtSigprocmask, 1, (ulong)&faults, 0, 8);
    }

    /// <summary>
    /// Before the calling thread replaces the whole process: from now on it blocks everything, and whatever signal arrives waits for it and stays pending in what comes
    /// after execve. Returns when none is on its way to the dispatcher any more. Without this, what came between the last look at the queues and the kernel's
    /// end of the old program was lost, and a kick ended the process, as its handler was gone.
    /// </summary>
    internal static void BeginExec(int threadId)
    {
        ulong set = (~Internal).Bits, old;
        HostSyscall.RawQuick(HostCallNumber.RtSigprocmask, 2, (ulong)&set, (ulong)&old, 8);
        s_maskBeforeExec = old;
        if (s_ring == null)
            return;
        Interlocked.Exchange(ref *(int*)(s_ring + RedirectOffset), threadId);
        const int Patience = 100;
        for (int attempt = 0; attempt < Patience; attempt++)
        {
            if (Volatile.Read(ref *(int*)(s_ring + InsideOffset)) == 0
                && Volatile.Read(ref s_dispatched) == Volatile.Read(ref *(ulong*)(s_ring + HeadOffset)))
                return;
            Thread.Sleep(1);
        }
    }

    /// <summary>After <see cref="BeginExec"/>: lets a signal wait for what comes after execve. Returns 0, or -EAGAIN if a real-time signal finds no room.</summary>
    internal static int KeepForSuccessor(SignalInfo info)
    {
        if (Internal.Contains(info.Number))
            return 0;
        info.Error = InTransit << 16 | (ushort)info.Code;
        info.Code = SignalInfo.SI_QUEUE;
        ulong thread = (ulong)Volatile.Read(ref *(int*)(s_ring + RedirectOffset));
        return (int)HostSyscall.RawQuick(HostCallNumber.RtTgsigqueueinfo, (ulong)Environment.ProcessId, thread, (ulong)info.Number, (ulong)(&info));
    }

    /// <summary>After execve has failed: everything is as before <see cref="BeginExec"/>, and what has come meanwhile goes to <paramref name="send"/>.</summary>
    internal static void EndExec(Action<SignalInfo> send)
    {
        if (s_ring != null)
            Interlocked.Exchange(ref *(int*)(s_ring + RedirectOffset), 0);
        DropKicks();
        TakePending(send);
        ulong old = s_maskBeforeExec;
        HostSyscall.RawQuick(HostCallNumber.RtSigprocmask, 2, (ulong)&old, 0, 8);
    }

    /// <summary>
    /// Kicks that came after <see cref="BeginExec"/>: the vCPU that they are for has left the guest, or is no more. After execve their default action would end the process.
    /// </summary>
    private static void DropKicks()
    {
        while (TryTakePending(SafeSyscall.Kicks.Bits, out SignalInfo info))
        {
            bool foreign = info.Number == SafeSyscall.SpareKickSignal && info.ProcessId != Environment.ProcessId && info.ProcessId != 0;
            if (info.Error >> 16 == InTransit || foreign)
                Kept.Add(Arrived(info));
        }
    }

    private static SignalInfo Arrived(SignalInfo info)
    {
        if (info.Error >> 16 == InTransit)
            (info.Code, info.Error) = ((short)info.Error, 0);
        return info;
    }

    private static bool TryTakePending(ulong set, out SignalInfo info)
    {
        ulong* now = stackalloc ulong[2];
        (now[0], now[1]) = (0, 0);
        SignalInfo taken;
        long result = HostSyscall.RawQuick(HostCallNumber.RtSigtimedwait, (ulong)&set, (ulong)&taken, (ulong)now, 8);
        info = taken;
        return result > 0;
    }
}
