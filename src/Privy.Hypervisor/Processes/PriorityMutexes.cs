using System.Runtime.InteropServices;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Signals;
using Privy.Hypervisor.Syscalls;

namespace Privy.Hypervisor.Processes;

/// <summary>
/// Mutexes with priority inheritance (FUTEX_LOCK_PI and so on) in a forked child's memory, and those that processes share. The host's kernel looks for their owners by the word's thread id and
/// writes such ids there, and that of a child's first thread is another to the program than in the host. So they are taken and waited for here, without inheritance.
/// </summary>
internal static unsafe class PriorityMutexes
{
    private const uint Waiters = 0x8000_0000, Ids = 0x3FFF_FFFF;

    /// <summary>In nanoseconds: a native process may give a mutex back without our hearing of it.</summary>
    private const long LongestWait = 10_000_000;

    // Changes with each mutex that is given back.
    private static readonly int* s_events = (int*)NativeMemory.AllocZeroed(sizeof(int));
    private static int s_waiting;

    /// <summary>FUTEX_LOCK_PI, FUTEX_TRYLOCK_PI.</summary>
    /// <param name="thread">Who wants it.</param>
    /// <param name="address">The word.</param>
    /// <param name="wait">Whether to wait.</param>
    /// <param name="clock">The clock of the deadline.</param>
    /// <param name="deadline">In nanoseconds; negative: none.</param>
    internal static long Lock(GuestThread thread, ulong address, bool wait, int clock, long deadline)
    {
        var own = (uint)thread.ThreadId;
        var limit = stackalloc long[2];
        Interlocked.Increment(ref s_waiting);
        try
        {
            while (true)
            {
                var events = Volatile.Read(ref *s_events);
                // Under the lock that a fork takes: the page stays this space's until the word is written.
                lock (thread.Space.Changes)
                {
                    var place = address;
                    if (!MemoryCalls.TranslateFutex(thread, ref place, written: true))
                        return -Errno.EFAULT;
                    var word = (uint*)place;
                    var value = Volatile.Read(ref *word);
                    var owner = value & Ids;
                    if (owner == own)
                        return -Errno.EDEADLK;
                    if (owner == 0)
                    {
                        if (Interlocked.CompareExchange(ref *word, value | own, value) == value)
                            return 0;
                        continue;
                    }

                    if (!wait)
                        return -Errno.EAGAIN;
                    // So that its owner must make a call to give it back.
                    if ((value & Waiters) == 0 && Interlocked.CompareExchange(ref *word, value | Waiters, value) != value)
                        continue;
                }

                var left = deadline < 0 ? LongestWait : Math.Min(LongestWait, deadline - HostClock.Read(clock));
                if (left <= 0)
                    return -Errno.ETIMEDOUT;
                const ulong waitPrivate = 128;
                (limit[0], limit[1]) = (0, left);
                var result = thread.HostCall(SyscallNumber.futex, (ulong)s_events, waitPrivate, (ulong)events, (ulong)limit);
                if (result < 0 && result is not (-Errno.EAGAIN or -Errno.ETIMEDOUT))
                    return result;
            }
        }
        finally
        {
            Interlocked.Decrement(ref s_waiting);
        }
    }

    /// <summary>FUTEX_UNLOCK_PI.</summary>
    /// <returns>Null when the host's kernel knows the thread by the id in the word, and so can do it: a native process may wait in it. <see cref="Tell"/> follows then.</returns>
    internal static long? Unlock(GuestThread thread, ulong address)
    {
        if (thread.ThreadId == thread.HostThreadId)
            return null;
        lock (thread.Space.Changes)
        {
            if (!MemoryCalls.TranslateFutex(thread, ref address, written: true))
                return -Errno.EFAULT;
            var word = (uint*)address;
            uint value;
            do
            {
                value = Volatile.Read(ref *word);
                if ((value & Ids) != (uint)thread.ThreadId)
                    return -Errno.EPERM;
            }
            while (Interlocked.CompareExchange(ref *word, 0, value) != value);
        }

        Tell();
        return 0;
    }

    /// <summary>A mutex was given back: those that wait here look.</summary>
    internal static void Tell()
    {
        Interlocked.Increment(ref *s_events);
        const ulong wakePrivate = 1 | 128;
        if (Volatile.Read(ref s_waiting) != 0)
            _ = HostSyscall.RawQuick(SyscallNumber.futex, (ulong)s_events, wakePrivate, int.MaxValue);
    }
}
