using Privy.Hypervisor.Host;
using Privy.Hypervisor.Memory;
using Privy.Hypervisor.Syscalls;

namespace Privy.Hypervisor.Processes;

/// <summary>
/// Robust mutexes: what a thread holds when it ends is marked, and a waiter woken (kernel/futex/core.c, exit_robust_list). The host
/// kernel cannot do it: it would write without asking, into pages that snapshots share or that a child has elsewhere.
/// </summary>
internal sealed unsafe partial class GuestThread
{
    private const ulong RobustHeadBytes = 24;
    private const int RobustLimit = 2048; // ROBUST_LIST_LIMIT: a list may be a circle

    private ulong _robustHead;

    /// <summary>set_robust_list(2).</summary>
    internal long SetRobustList(ulong head, ulong length)
    {
        if (length != RobustHeadBytes)
            return -Errno.EINVAL;
        _robustHead = head;
        return 0;
    }

    /// <summary>get_robust_list(2), of a thread of this process.</summary>
    internal long GetRobustList(int threadId, ulong head, ulong length)
    {
        var thread = threadId == 0 ? this : Array.Find(Process.Threads, t => t.ThreadId == threadId);
        if (thread is null)
            return -Errno.ESRCH;
        var (value, bytes) = (thread._robustHead, RobustHeadBytes);
        return TryWrite(length, new ReadOnlySpan<byte>(&bytes, sizeof(ulong))) && TryWrite(head, new ReadOnlySpan<byte>(&value, sizeof(ulong))) ? 0 : -Errno.EFAULT;
    }

    private void LeaveRobustMutexes()
    {
        const ulong isPriority = 1;
        if (_robustHead == 0 || !TryReadWord(_robustHead, out var entry) || !TryReadWord(_robustHead + 8, out var offset) || !TryReadWord(_robustHead + 16, out var pending))
            return;
        for (var i = 0; i < RobustLimit && (entry & ~isPriority) != _robustHead; i++)
        {
            // Read before the mutex is given up: its next owner may take it off the list.
            var more = TryReadWord(entry & ~isPriority, out var next);
            if ((entry & ~isPriority) != (pending & ~isPriority) && !LeaveRobustMutex((entry & ~isPriority) + offset, (entry & isPriority) != 0, wasPending: false))
                return;
            if (!more)
                return;
            entry = next;
        }

        if ((pending & ~isPriority) != 0)
            _ = LeaveRobustMutex((pending & ~isPriority) + offset, (pending & isPriority) != 0, wasPending: true);
    }

    private bool LeaveRobustMutex(ulong address, bool priority, bool wasPending)
    {
        const uint ownerDied = 0x4000_0000, waiters = 0x8000_0000, owner = 0x3FFF_FFFF;
        if ((address & 3) != 0)
            return false;
        lock (Space.Changes)
        {
            if (Space is SnapshotSpace snapshot ? !snapshot.TryTranslateForFutex(Vcpu, ref address) : !Space.PrepareWrite(Vcpu, address, sizeof(uint)))
                return false;
            var word = (uint*)address;
            uint value;
            do
            {
                value = Volatile.Read(ref *word);
                // Between unlocking and taking the entry off the list: a waiter may need the wake-up that the thread no longer makes.
                if (wasPending && !priority && value == 0)
                    break;
                if ((value & owner) != (uint)ThreadId && (value & owner) != (uint)HostThreadId)
                    return true;
            }
            while (Interlocked.CompareExchange(ref *word, (value & waiters) | ownerDied, value) != value);

            // Of priority-inheritance mutexes the kernel itself wakes the next owner.
            if (!priority && (value == 0 || (value & waiters) != 0))
            {
                const ulong wakeShared = 1;
                _ = HostSyscall.Raw(SyscallNumber.futex, address, wakeShared, 1);
            }

            return true;
        }
    }
}
