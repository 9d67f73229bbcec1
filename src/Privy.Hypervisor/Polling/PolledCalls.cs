using System.Runtime.InteropServices;
using Privy.Hypervisor.Boot;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Memory;
using Privy.Hypervisor.Processes;
using Privy.Hypervisor.Syscalls;
using Privy.Kernel;
using Privy.Kvm;

namespace Privy.Hypervisor.Polling;

/// <summary>
/// The system calls that the polling thread makes for the main process: those on open descriptors that end without waiting. Each either has the
/// result that the program's own thread would get, or is declined with nothing done, and then leaves the guest like any other.
/// </summary>
/// <remarks>
/// A snapshot cannot come between the look at the pages of an output and the call that writes there: a fork first takes all vCPUs out of the
/// guest, and this one's thread waits in <see cref="Vcpu"/> for a claimed call. So nothing is in flight at that instant (rule 2).
/// </remarks>
internal static unsafe class PolledCalls
{
    /// <summary>The call was not made.</summary>
    internal const long Declined = long.MinValue;

    private const ulong DontWait = 0x40, NoSignal = 0x4000, WaitAll = 0x100; // MSG_*
    private const ulong NoWait = 8; // RWF_NOWAIT
    private const ulong CurrentOffset = ulong.MaxValue;
    private const ulong MaxEvents = 128;
    private const ulong MaxVectors = 16;
    private const ulong MaxOutput = 256 * 1024;
    private const ulong EventSize = 12;

    private static readonly int[] s_numbers =
    [
        SyscallNumber.read, SyscallNumber.write, SyscallNumber.pread64, SyscallNumber.pwrite64, SyscallNumber.readv, SyscallNumber.writev,
        SyscallNumber.sendto, SyscallNumber.recvfrom, SyscallNumber.epoll_wait, SyscallNumber.epoll_pwait, SyscallNumber.epoll_ctl,
    ];

    /// <summary>Sets the bits of the calls known here.</summary>
    internal static void SetNumbers(SyscallRing* ring)
    {
        foreach (var number in s_numbers)
            ring->Numbers[number / 64] |= 1UL << (number % 64);
    }

    /// <summary>Makes the posted call.</summary>
    internal static long Execute(MainSpace space, SyscallRing* ring)
    {
        if (OwnDescriptors.Contains((int)ring->A0))
            return Declined;
        return (int)ring->Number switch
        {
            // One of them may be a signalfd, which takes its bytes from elsewhere.
            SyscallNumber.read or SyscallNumber.readv when SignalDescriptors.InUse => Declined,
            SyscallNumber.read => Read(space, ring->A0, ring->A1, ring->A2),
            SyscallNumber.write => Write(space, ring->A0, ring->A1, ring->A2),
            SyscallNumber.readv => ReadVector(space, ring->A0, ring->A1, ring->A2),
            SyscallNumber.writev => WriteVector(space, ring->A0, ring->A1, ring->A2),
            SyscallNumber.recvfrom => Receive(space, ring),
            SyscallNumber.sendto => Send(space, ring),
            SyscallNumber.pread64 => ReadAt(space, ring->A0, ring->A1, ring->A2, ring->A3),
            SyscallNumber.pwrite64 => WriteAt(space, ring->A0, ring->A1, ring->A2, ring->A3),
            SyscallNumber.epoll_wait => Events(space, ring),
            SyscallNumber.epoll_pwait => ring->A4 == 0 ? Events(space, ring) : Declined,
            SyscallNumber.epoll_ctl => OwnDescriptors.Contains((int)ring->A2) || (ring->A3 != 0 && !space.Machine.IsProgramAddress(ring->A3)) ? Declined : HostSyscall.RawQuick(SyscallNumber.epoll_ctl, ring->A0, ring->A1, ring->A2, ring->A3),
            _ => Declined,
        };
    }

    private static long Read(MainSpace space, ulong descriptor, ulong address, ulong length)
    {
        if (length > MaxOutput || !space.TryPrepareWrite(address, length))
            return Declined;
        var result = HostSyscall.RawQuick(SyscallNumber.recvfrom, descriptor, address, length, DontWait);
        if (result != -Errno.ENOTSOCK)
            return Received(descriptor, result);
        // A file's position must not move by less than the program asked for, which RWF_NOWAIT does where part of it is not in memory.
        if (!IsStream(descriptor))
            return Declined;
        var vector = stackalloc ulong[] { address, length };
        result = HostSyscall.RawQuick(SyscallNumber.preadv2, descriptor, (ulong)vector, 1, CurrentOffset, CurrentOffset, NoWait);
        return result == -Errno.ENOTSUP ? Declined : Received(descriptor, result);
    }

    private static long ReadVector(MainSpace space, ulong descriptor, ulong address, ulong count)
    {
        var vectors = stackalloc ulong[2 * (int)MaxVectors];
        if (!TakeVectors(space, address, count, vectors))
            return Declined;
        ulong total = 0;
        for (ulong i = 0; i < count; i++)
        {
            total += vectors[(2 * i) + 1];
            if (total > MaxOutput || !space.TryPrepareWrite(vectors[2 * i], vectors[(2 * i) + 1]))
                return Declined;
        }

        var message = new Message { Vectors = vectors, Count = count };
        var result = HostSyscall.RawQuick(SyscallNumber.recvmsg, descriptor, (ulong)&message, DontWait);
        return result == -Errno.ENOTSOCK ? Declined : Received(descriptor, result);
    }

    private static long Write(MainSpace space, ulong descriptor, ulong address, ulong length)
    {
        // On a descriptor that waits, a write that is cut short could not be made whole.
        if (!space.Machine.IsProgramAddress(address) || !NeverWaits(descriptor))
            return Declined;
        var result = HostSyscall.RawQuick(SyscallNumber.sendto, descriptor, address, length, DontWait | NoSignal);
        if (result == -Errno.ENOTSOCK)
            result = IsStream(descriptor) ? HostSyscall.RawQuick(SyscallNumber.write, descriptor, address, length) : Declined;
        return Sent(result);
    }

    private static long WriteVector(MainSpace space, ulong descriptor, ulong address, ulong count)
    {
        var vectors = stackalloc ulong[2 * (int)MaxVectors];
        if (!NeverWaits(descriptor) || !TakeVectors(space, address, count, vectors))
            return Declined;
        for (ulong i = 0; i < count; i++)
        {
            if (!space.Machine.IsProgramAddress(vectors[2 * i]))
                return Declined;
        }

        var message = new Message { Vectors = vectors, Count = count };
        var result = HostSyscall.RawQuick(SyscallNumber.sendmsg, descriptor, (ulong)&message, DontWait | NoSignal);
        return result == -Errno.ENOTSOCK ? Declined : Sent(result);
    }

    private static long Receive(MainSpace space, SyscallRing* ring)
    {
        if (ring->A4 != 0 || (ring->A3 & WaitAll) != 0 || ring->A2 > MaxOutput || !space.TryPrepareWrite(ring->A1, ring->A2))
            return Declined;
        var result = HostSyscall.RawQuick(SyscallNumber.recvfrom, ring->A0, ring->A1, ring->A2, ring->A3 | DontWait);
        return result == -Errno.EAGAIN && (ring->A3 & DontWait) != 0 ? result : Received(ring->A0, result);
    }

    private static long Send(MainSpace space, SyscallRing* ring)
    {
        if (ring->A4 != 0 || !space.Machine.IsProgramAddress(ring->A1) || ((ring->A3 & DontWait) == 0 && !NeverWaits(ring->A0)))
            return Declined;
        var result = HostSyscall.RawQuick(SyscallNumber.sendto, ring->A0, ring->A1, ring->A2, ring->A3 | DontWait | NoSignal);
        return result == -Errno.EPIPE && (ring->A3 & NoSignal) != 0 ? result : Sent(result);
    }

    private static long ReadAt(MainSpace space, ulong descriptor, ulong address, ulong length, ulong offset)
    {
        if ((long)offset < 0 || length > MaxOutput || !space.TryPrepareWrite(address, length))
            return Declined;
        var vector = stackalloc ulong[] { address, length };
        var result = HostSyscall.RawQuick(SyscallNumber.preadv2, descriptor, (ulong)vector, 1, offset, 0, NoWait);
        // Less than asked for: the end of the file, or of what is in memory. The program's own thread will know.
        return result == (long)length || result == 0 ? result : Declined;
    }

    private static long WriteAt(MainSpace space, ulong descriptor, ulong address, ulong length, ulong offset)
    {
        if ((long)offset < 0 || !space.Machine.IsProgramAddress(address))
            return Declined;
        var vector = stackalloc ulong[] { address, length };
        var result = HostSyscall.RawQuick(SyscallNumber.pwritev2, descriptor, (ulong)vector, 1, offset, 0, NoWait);
        // What was written in part is written again, to the same place.
        return result == (long)length ? result : Declined;
    }

    private static long Events(MainSpace space, SyscallRing* ring)
    {
        var room = Math.Min(ring->A2, MaxEvents);
        if ((int)ring->A2 <= 0 || !space.TryPrepareWrite(ring->A1, room * EventSize))
            return Declined;
        var result = HostSyscall.RawQuick(SyscallNumber.epoll_wait, ring->A0, ring->A1, room, 0);
        return result == 0 && (int)ring->A3 != 0 ? Declined : result;
    }

    /// <summary>A receive's result, unless the program's thread would wait now.</summary>
    private static long Received(ulong descriptor, long result) => result == -Errno.EAGAIN && !NeverWaits(descriptor) ? Declined : result;

    /// <summary>A send's result; a broken pipe is the program's thread's, which gets the signal as well, and so is what lies in a view.</summary>
    private static long Sent(long result) => result is -Errno.EPIPE or -Errno.EFAULT ? Declined : result;

    private static bool NeverWaits(ulong descriptor)
    {
        const long nonBlocking = 0x800;
        var flags = HostSyscall.RawQuick(SyscallNumber.fcntl, descriptor, 3);
        return flags >= 0 && (flags & nonBlocking) != 0;
    }

    /// <summary>A pipe, or what has no file behind it (eventfd, timerfd): without a position, and never waiting for a disk.</summary>
    private static bool IsStream(ulong descriptor)
    {
        const int statLength = 144, modeOffset = 24, typeMask = 0xF000, pipe = 0x1000, none = 0;
        var stat = stackalloc byte[statLength];
        return HostSyscall.RawQuick(SyscallNumber.fstat, descriptor, (ulong)stat) == 0 && (*(uint*)(stat + modeOffset) & typeMask) is pipe or none;
    }

    /// <summary>Copies an iovec: another thread may change the program's own at any time.</summary>
    private static bool TakeVectors(MainSpace space, ulong address, ulong count, ulong* vectors)
    {
        if (count is 0 or > MaxVectors)
            return false;
        var lockTaken = space.Changes.TryEnter();
        if (!lockTaken)
            return false;
        try
        {
            var bytes = new Span<byte>(vectors, (int)count * 16);
            if (!space.Mappings.Allows(address, address + (ulong)bytes.Length, Vma.Read))
                return false;
            return space.Mappings.AnyTag(address, address + (ulong)bytes.Length, VmaTag.File)
                ? ProgramCopy.TryRead(address, bytes)
                : ProgramCopy.Read(address, bytes);
        }
        finally
        {
            space.Changes.Exit();
        }
    }

    /// <summary>struct msghdr (bits/socket.h) with an iovec and nothing else.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 56)]
    private struct Message
    {
        [FieldOffset(16)] internal ulong* Vectors;
        [FieldOffset(24)] internal ulong Count;
    }
}
