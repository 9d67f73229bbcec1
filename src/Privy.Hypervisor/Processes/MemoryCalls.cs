using Privy.Hypervisor.Host;
using Privy.Hypervisor.Memory;
using Privy.Hypervisor.Syscalls;
using Privy.Kernel;

namespace Privy.Hypervisor.Processes;

/// <summary>System calls about memory and threads' registers.</summary>
internal static unsafe class MemoryCalls
{
    internal static void Register()
    {
        On(SyscallNumber.mmap, (t, a) => t.Space.Map(t.Vcpu, a.A0, a.A1, (int)a.A2, (int)a.A3, (int)a.A4, a.A5));
        On(SyscallNumber.munmap, (t, a) => t.Space.Unmap(t.Vcpu, a.A0, a.A1));
        On(SyscallNumber.mprotect, (t, a) => t.Space.Protect(t.Vcpu, a.A0, a.A1, (int)a.A2));
        On(SyscallNumber.mremap, (t, a) => t.Space.Remap(t.Vcpu, a.A0, a.A1, a.A2, (int)a.A3, a.A4));
        On(SyscallNumber.madvise, (t, a) => t.Space.Advise(t.Vcpu, a.A0, a.A1, (int)a.A2));
        On(SyscallNumber.brk, (t, a) => (long)t.Space.SetBreak(t.Vcpu, a.A0));
        On(SyscallNumber.msync, (t, a) => OnMapped(t, SyscallNumber.msync, a));
        On(SyscallNumber.mlock, (t, a) => OnMapped(t, SyscallNumber.mlock, a));
        On(SyscallNumber.mlock2, (t, a) => OnMapped(t, SyscallNumber.mlock2, a));
        On(SyscallNumber.munlock, (t, a) => OnMapped(t, SyscallNumber.munlock, a));
        On(SyscallNumber.mincore, Mincore);
        // Locking everything would lock the window's reservations and the hypervisor's own memory.
        On(SyscallNumber.mlockall, (_, _) => -Errno.EPERM);
        On(SyscallNumber.munlockall, (_, _) => 0);
        On(SyscallNumber.futex, Futex);
        On(SyscallNumber.membarrier, Membarrier);
        On(SyscallNumber.arch_prctl, ArchPrctl);
    }

    private delegate long Handler(GuestThread thread, SyscallArguments arguments);

    private static void On(int number, Handler handler) =>
        SyscallDispatcher.Register(number, (ISyscallContext context, in SyscallArguments arguments) => handler((GuestThread)context, arguments));

    /// <summary>A call on a range that must be the program's: the host makes it on main's memory; a snapshot's memory needs none of it.</summary>
    private static long OnMapped(GuestThread thread, int number, SyscallArguments a)
    {
        lock (thread.Space.Changes)
        {
            var end = AddressSpace.PageUp(a.A0 + a.A1);
            if (end < a.A0 || (a.A1 != 0 && !thread.Space.Mappings.Covers(a.A0 & ~(Layout.PageSize - 1), end)))
                return -Errno.ENOMEM;
        }

        return thread.Space.IsMain ? thread.HostCall(number, a.A0, a.A1, a.A2) : 0;
    }

    private static long Mincore(GuestThread thread, SyscallArguments a)
    {
        if ((a.A0 & (Layout.PageSize - 1)) != 0)
            return -Errno.EINVAL;
        var pages = AddressSpace.PageUp(a.A1) / Layout.PageSize;
        lock (thread.Space.Changes)
        {
            if (!thread.Space.Mappings.Covers(a.A0, a.A0 + (pages * Layout.PageSize)))
                return -Errno.ENOMEM;
        }

        // The kernel fills a buffer of ours, so that the program's is written under rule 1 like any other.
        var buffer = new byte[pages];
        fixed (byte* vector = buffer)
        {
            var result = HostSyscall.Raw(SyscallNumber.mincore, a.A0, a.A1, (ulong)vector);
            if (result < 0)
                return result;
        }

        return thread.TryWrite(a.A2, buffer) ? 0 : -Errno.EFAULT;
    }

    private static long Futex(GuestThread thread, SyscallArguments a)
    {
        const int wait = 0, wake = 1, requeue = 3, compareRequeue = 4, wakeOperation = 5, lockPi = 6, unlockPi = 7, tryLockPi = 8, waitBitset = 9, wakeBitset = 10,
            waitRequeuePi = 11, compareRequeuePi = 12, lockPi2 = 13;
        var operation = (int)a.A1 & 127;
        var usesSecond = operation is requeue or compareRequeue or wakeOperation or waitRequeuePi or compareRequeuePi;
        var first = a.A0;
        var second = a.A4;
        lock (thread.Space.Changes)
        {
            // The kernel reads the word, and some operations write it: priority inheritance stores the owner, WAKE_OP computes.
            var writesFirst = operation is lockPi or unlockPi or tryLockPi or lockPi2 or waitRequeuePi;
            var writesSecond = operation is wakeOperation or waitRequeuePi or compareRequeuePi;
            if (!TranslateFutex(thread, ref first, writesFirst) || (usesSecond && !TranslateFutex(thread, ref second, writesSecond)))
                return -Errno.EFAULT;
        }

        var timeout = stackalloc ulong[2];
        var timeoutArgument = a.A3;
        if (operation is wait or waitBitset or lockPi or lockPi2 or waitRequeuePi && a.A3 != 0)
        {
            if (!thread.TryRead(a.A3, new Span<byte>(timeout, 16)))
                return -Errno.EFAULT;
            timeoutArgument = (ulong)timeout;
        }

        if (operation is not (wait or wake or requeue or compareRequeue or wakeOperation or lockPi or unlockPi or tryLockPi or waitBitset or wakeBitset or waitRequeuePi or compareRequeuePi or lockPi2))
            return -Errno.ENOSYS;
        const ulong isPrivate = 128, realTime = 256;
        var aligned = (a.A0 & 3) == 0;
        var lockedHere = aligned && ((a.A1 & isPrivate) == 0 || !thread.Space.IsMain);
        var clock = operation == lockPi2 && (a.A1 & realTime) == 0 ? Signals.HostClock.MonotonicId : Signals.HostClock.Realtime;
        var result = operation switch
        {
            lockPi or lockPi2 when lockedHere => PriorityMutexes.Lock(thread, a.A0, wait: true, clock, a.A3 == 0 ? -1 : ((long)timeout[0] * Signals.HostClock.Second) + (long)timeout[1]),
            tryLockPi when lockedHere => PriorityMutexes.Lock(thread, a.A0, wait: false, clock, -1),
            unlockPi when aligned => PriorityMutexes.Unlock(thread, a.A0),
            _ => (long?)null,
        } ?? thread.HostCall(SyscallNumber.futex, first, a.A1, a.A2, timeoutArgument, second, a.A5);
        if (operation == unlockPi && result == 0)
            PriorityMutexes.Tell();
        thread.EndOutputs();
        if (result != -Errno.EINTR)
            return result;
        // A wait without a timeout is made again as if nothing had been; a relative one has lost time, so only a handler's return ends it.
        return timeoutArgument == 0 ? -Errno.ERESTARTSYS : -Errno.ERESTARTNOHAND;
    }

    /// <summary>Host address of a futex word: in main its own, in a snapshot that of the child's private page.</summary>
    internal static bool TranslateFutex(GuestThread thread, ref ulong address, bool written)
    {
        if ((address & 3) != 0)
            return true; // the kernel says EINVAL
        var space = thread.Space;
        if (space is SnapshotSpace snapshot)
            return snapshot.TryTranslateForFutex(thread.Vcpu, ref address);
        return written ? thread.PrepareOutput(address, sizeof(int)) : space.Mappings.Allows(address, address + sizeof(int), Vma.Read);
    }

    private static long Membarrier(GuestThread thread, SyscallArguments a) =>
        // Works on vCPUs as on threads: the kernel interrupts every CPU that runs this process' memory, which ends guest mode.
        thread.HostCall(SyscallNumber.membarrier, a.A0, a.A1, a.A2);

    private static long ArchPrctl(GuestThread thread, SyscallArguments a)
    {
        const ulong setGs = 0x1001, setFs = 0x1002, getFs = 0x1003, getGs = 0x1004;
        const ulong userEnd = 0x7FFF_FFFF_F000;
        switch (a.A0)
        {
            case setFs or setGs when a.A1 >= userEnd:
                return -Errno.EPERM;
            case setFs:
                thread.Vcpu.SetFsBase(a.A1);
                return 0;
            case setGs:
                thread.Vcpu.SetGsBase(a.A1);
                return 0;
            case getFs or getGs:
                var (fs, gs) = thread.Vcpu.Bases;
                var value = a.A0 == getFs ? fs : gs;
                return thread.TryWrite(a.A1, new ReadOnlySpan<byte>(&value, sizeof(ulong))) ? 0 : -Errno.EFAULT;
            default:
                return -Errno.EINVAL; // shadow stacks and the like are not there
        }
    }
}
