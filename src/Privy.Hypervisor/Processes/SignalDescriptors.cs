using System.Runtime.InteropServices;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Signals;
using Privy.Hypervisor.Syscalls;

namespace Privy.Hypervisor.Processes;

/// <summary>
/// signalfd(2). The descriptor is the reading end of a pipe that holds a byte while one of its signals is pending, so that poll, select and epoll work as they are; read takes the
/// signals from the queues. Copies of the descriptor are recognised by the pipe's inode.
/// </summary>
internal static unsafe class SignalDescriptors
{
    private const int SetLength = 8, RecordLength = 128;
    private const ulong NonBlocking = 0x800, CloseOnExec = 0x80000;

    private static readonly Lock s_lock = new();
    private static readonly Dictionary<ulong, Descriptor> s_byInode = [];
    private static bool s_inUse;
    private static StandIns s_helper = null!;

    private sealed class Descriptor(ProcessSignals owner)
    {
        internal ProcessSignals Owner { get; } = owner;

        internal SignalSet Mask { get; set; }

        /// <summary>The writing end, in the table of the main process.</summary>
        internal int Writer { get; set; }
    }

    /// <summary>True once the program has made one: then each read must be looked at.</summary>
    internal static bool InUse { get => Volatile.Read(ref s_inUse); private set => Volatile.Write(ref s_inUse, value); }

    /// <summary>Takes the calls over.</summary>
    /// <param name="helper">Whose thread has the descriptors of the main process.</param>
    internal static void Register(StandIns helper)
    {
        s_helper = helper;
        SyscallDispatcher.Register(SyscallNumber.signalfd, (ISyscallContext context, in SyscallArguments a) => Create((GuestThread)context, a.A0, a.A1, a.A2, 0));
        SyscallDispatcher.Register(SyscallNumber.signalfd4, (ISyscallContext context, in SyscallArguments a) => Create((GuestThread)context, a.A0, a.A1, a.A2, a.A3));
    }

    private static long Create(GuestThread thread, ulong descriptor, ulong set, ulong length, ulong flags)
    {
        if (length != SetLength || (flags & ~(NonBlocking | CloseOnExec)) != 0)
            return -Errno.EINVAL;
        ulong bits;
        if (!thread.TryRead(set, new Span<byte>(&bits, SetLength)))
            return -Errno.EFAULT;
        var mask = new SignalSet(bits) & ~SignalSet.Unblockable;
        if ((int)descriptor != -1)
        {
            if (thread.IsReservedDescriptor((int)descriptor))
                return -Errno.EBADF;
            var inode = InodeOf((int)descriptor);
            if (inode < 0)
                return inode;
            lock (s_lock)
            {
                if (!s_byInode.TryGetValue((ulong)inode, out var existing))
                    return -Errno.EINVAL;
                existing.Mask = mask;
                Update(existing);
            }

            return (int)descriptor;
        }

        Start();
        var ends = stackalloc int[2];
        // Both flags are the reading end's; the writing end is opened anew.
        var result = HostSyscall.Raw(SyscallNumber.pipe2, (ulong)ends, flags);
        if (result < 0)
            return result;
        var (reader, threadId) = (ends[0], thread.HostThreadId);
        var created = new Descriptor(thread.ProcessSignals) { Mask = mask };
        using var done = new ManualResetEventSlim();
        var path = $"/proc/self/task/{threadId}/fd/{reader}\0";
        // In the table of the main process: whichever thread sends a signal later, it is written there.
        Enqueue(() =>
        {
            const ulong writeOnly = 1;
            fixed (byte* name = System.Text.Encoding.ASCII.GetBytes(path))
                created.Writer = (int)HostSyscall.Raw(SyscallNumber.open, (ulong)name, writeOnly | NonBlocking | CloseOnExec);
            if (created.Writer >= 0)
                created.Writer = Kvm.OwnDescriptors.Adopt(created.Writer);
            done.Set();
        });
        done.Wait();
        _ = HostSyscall.Raw(SyscallNumber.close, (ulong)ends[1]);
        var number = InodeOf(reader);
        if (created.Writer < 0 || number < 0)
        {
            _ = HostSyscall.Raw(SyscallNumber.close, (ulong)reader);
            return created.Writer < 0 ? created.Writer : number;
        }

        lock (s_lock)
        {
            RemoveClosed();
            s_byInode[(ulong)number] = created;
            thread.ProcessSignals.Queued = SignalQueued;
            Update(created);
        }

        return reader;
    }

    /// <summary>read(2), once there is any such descriptor.</summary>
    private static long Read(ISyscallContext context, in SyscallArguments a)
    {
        var thread = (GuestThread)context;
        Descriptor? descriptor = null;
        if (!thread.IsReservedDescriptor((int)a.A0))
        {
            var inode = InodeOf((int)a.A0);
            lock (s_lock)
            {
                if (inode > 0)
                    _ = s_byInode.TryGetValue((ulong)inode, out descriptor);
            }
        }

        if (descriptor is null)
            return SyscallDispatcher.ExecuteOnHost(context, SyscallNumber.read, in a);
        if (a.A2 < RecordLength)
            return -Errno.EINVAL;
        var flags = HostSyscall.Raw(SyscallNumber.fcntl, a.A0, 3 /* F_GETFL */);
        Span<byte> record = stackalloc byte[RecordLength];
        var wait = stackalloc int[2];
        while (true)
        {
            var room = (int)Math.Min(a.A2 / RecordLength, 64);
            var done = 0;
            lock (s_lock)
            {
                // Emptied first: a signal that comes from now on leaves its byte behind this.
                Drain((int)a.A0);
                while (done < room && thread.ProcessSignals.TryTake(thread.ThreadSignals, descriptor.Mask, out var info))
                {
                    Fill(record, info);
                    if (!thread.TryWrite(a.A1 + (ulong)(done * RecordLength), record))
                        return done > 0 ? done * RecordLength : -Errno.EFAULT;
                    done++;
                }

                Update(descriptor);
            }

            if (done > 0)
                return done * RecordLength;
            if (((ulong)flags & NonBlocking) != 0)
                return -Errno.EAGAIN;
            (wait[0], wait[1]) = ((int)a.A0, 1 /* POLLIN */);
            var polled = thread.HostCall(SyscallNumber.poll, (ulong)wait, 1, ulong.MaxValue);
            if (polled < 0)
                return polled == -Errno.EINTR ? -Errno.ERESTARTSYS : polled;
        }
    }

    /// <summary>A signal was queued; under the lock of its process, so only noted here.</summary>
    private static void SignalQueued(ProcessSignals process, int signal) => Enqueue(() =>
    {
        lock (s_lock)
        {
            foreach (var descriptor in s_byInode.Values)
            {
                // It may have been read meanwhile.
                if (descriptor.Owner == process && descriptor.Mask.Contains(signal) && process.IsPending(descriptor.Mask))
                    Write(descriptor);
            }
        }
    });

    /// <summary>Makes a descriptor readable if one of its signals is pending.</summary>
    private static void Update(Descriptor descriptor)
    {
        if (!descriptor.Owner.IsPending(descriptor.Mask))
            return;
        Enqueue(() =>
        {
            lock (s_lock)
            {
                if (descriptor.Owner.IsPending(descriptor.Mask))
                    Write(descriptor);
            }
        });
    }

    private static void Write(Descriptor descriptor)
    {
        byte one = 1;
        _ = HostSyscall.Raw(SyscallNumber.write, (ulong)descriptor.Writer, (ulong)(&one), 1);
    }

    /// <summary>Takes what lies in the pipe, without ever waiting: whoever reads holds the lock, so what is there stays.</summary>
    private static void Drain(int reader)
    {
        const ulong available = 0x541b;
        const int most = 4096;
        var buffer = stackalloc byte[most];
        int count;
        while (HostSyscall.Raw(SyscallNumber.ioctl, (ulong)reader, available, (ulong)(&count)) == 0 && count > 0)
            _ = HostSyscall.Raw(SyscallNumber.read, (ulong)reader, (ulong)buffer, (ulong)Math.Min(count, most));
    }

    /// <summary>Forgets descriptors of which the program has no copy any more.</summary>
    private static void RemoveClosed()
    {
        foreach (var (inode, descriptor) in s_byInode.ToArray())
        {
            var writer = descriptor.Writer;
            Enqueue(() =>
            {
                const int error = 8;
                var poll = stackalloc int[2];
                (poll[0], poll[1]) = (writer, 0);
                if (HostSyscall.Raw(SyscallNumber.poll, (ulong)poll, 1, 0) <= 0 || (poll[1] >> 16 & error) == 0)
                    return;
                lock (s_lock)
                    _ = s_byInode.Remove(inode);
                Kvm.OwnDescriptors.Close(writer);
            });
        }
    }

    /// <summary><c>struct signalfd_siginfo</c> (linux/signalfd.h).</summary>
    private static void Fill(Span<byte> record, in SignalInfo info)
    {
        const int error = 4, code = 8, process = 12, user = 16, timer = 24, overrun = 32, status = 40, number = 44, pointer = 48, userTime = 56, systemTime = 64, address = 72;
        record.Clear();
        MemoryMarshal.Write(record, info.Number);
        MemoryMarshal.Write(record[error..], info.Error);
        MemoryMarshal.Write(record[code..], info.Code);
        if (info.Code == SignalInfo.SI_TIMER)
        {
            MemoryMarshal.Write(record[timer..], info.ProcessId);
            MemoryMarshal.Write(record[overrun..], info.Overrun);
            MemoryMarshal.Write(record[pointer..], info.Value);
            MemoryMarshal.Write(record[number..], (int)info.Value);
        }
        else if (info.Code > 0 && info.Code != SignalInfo.SI_KERNEL && info.Number is Signal.SIGSEGV or Signal.SIGBUS or Signal.SIGILL or Signal.SIGFPE or Signal.SIGTRAP)
        {
            MemoryMarshal.Write(record[address..], info.Address);
        }
        else
        {
            MemoryMarshal.Write(record[process..], info.ProcessId);
            MemoryMarshal.Write(record[user..], info.UserId);
            if (info.Number == Signal.SIGCHLD && info.Code > 0)
            {
                MemoryMarshal.Write(record[status..], info.Status);
                MemoryMarshal.Write(record[userTime..], info.UserTime);
                MemoryMarshal.Write(record[systemTime..], info.SystemTime);
            }
            else if (info.Code < 0 && info.Code != SignalInfo.SI_TKILL)
            {
                MemoryMarshal.Write(record[pointer..], info.Value);
                MemoryMarshal.Write(record[number..], (int)info.Value);
            }
        }
    }

    private static long InodeOf(int descriptor)
    {
        // struct stat: st_ino is the second word, st_mode the fourth.
        const uint typeMask = 0xF000, pipe = 0x1000;
        var status = stackalloc ulong[18];
        var result = HostSyscall.Raw(SyscallNumber.fstat, (ulong)descriptor, (ulong)status);
        return result < 0 ? result : ((uint)status[3] & typeMask) == pipe ? (long)status[1] : 0;
    }

    private static void Start()
    {
        lock (s_lock)
        {
            if (InUse)
                return;
            InUse = true;
            // Only now, so that no program without such a descriptor pays for the look at each read.
            SyscallDispatcher.Register(SyscallNumber.read, Read);
        }
    }

    private static void Enqueue(Action action) => s_helper.Post(action);
}
