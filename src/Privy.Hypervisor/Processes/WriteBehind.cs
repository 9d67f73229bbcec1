using Privy.Hypervisor.Boot;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Syscalls;
using Privy.Kernel;

namespace Privy.Hypervisor.Processes;

/// <summary>
/// Collects the small writes of a forked child to a file that it has opened itself, so that not each of them costs an exit: a BGSAVE writes 4 KB at a time.
/// The system-call stub appends them to a buffer (<see cref="SyscallRing"/>); any call that leaves the guest writes the buffer out first.
/// </summary>
/// <remarks>
/// What others can see stays in order: the child has one thread and shares no memory that others could watch while it writes, every other call of it comes
/// after the bytes before it, so does its end, and a pause of <see cref="LongestDelay"/> ends in a write. An error is reported by the next call on the
/// descriptor, as after any write that the kernel has buffered. Calls that could tie the descriptor to something else end the collecting for good.
/// </remarks>
internal sealed unsafe class WriteBehind
{
    /// <summary>In nanoseconds: how long bytes may lie in the buffer while the child computes.</summary>
    private const long LongestDelay = 20_000_000;

    private readonly GuestThread _thread;
    private readonly ulong _buffer;
    private int _descriptor = -1;
    private int _smallWrites;
    private bool _collecting;
    private int _error;

    private WriteBehind(GuestThread thread, ulong buffer)
    {
        _thread = thread;
        _buffer = buffer;
    }

    private SyscallRing* Ring => _thread.Vcpu.Ring;

    /// <summary>For the only thread of a snapshot; null where there is no buffer for its vCPU, or where the stub must not touch the program's memory.</summary>
    internal static WriteBehind? For(GuestThread thread)
    {
        var buffer = thread.Vcpu.WriteBuffer;
        return buffer == 0 ? null : new WriteBehind(thread, buffer);
    }

    /// <summary>Writes out what is in the buffer. Whenever the thread is out of the guest and something else may look.</summary>
    internal void Flush()
    {
        if (!_collecting)
            return;
        var from = _buffer;
        var end = Ring->BufferNext;
        if (from == end)
            return;
        while (from < end && _error == 0)
        {
            var result = HostSyscall.Raw(SyscallNumber.write, (ulong)_descriptor, from, end - from);
            if (result > 0)
                from += (ulong)result;
            else if (result != -Errno.EINTR)
                _error = result == 0 ? Errno.EIO : (int)-result;
        }

        Ring->BufferNext = _buffer;
        _thread.Host.ArmTick(LongestDelay);
    }

    /// <summary>Before a call is carried out: everything written before is in the file. False: the call has a result already, an error that an earlier write met.</summary>
    internal bool Before(long number, in SyscallArguments arguments, out long result)
    {
        result = 0;
        if (_descriptor < 0)
            return true;
        Flush();
        if (!KeepsCollecting(number, arguments))
        {
            Stop();
            if (number != SyscallNumber.close || (int)arguments.A0 != _descriptor)
                _descriptor = -1;
        }

        if (_error == 0 || (int)arguments.A0 != _descriptor
            || number is not (SyscallNumber.write or SyscallNumber.fsync or SyscallNumber.fdatasync or SyscallNumber.sync_file_range or SyscallNumber.close or SyscallNumber.lseek))
            return true;
        result = -_error;
        _error = 0;
        if (number == SyscallNumber.close)
            _ = HostSyscall.Raw(SyscallNumber.close, arguments.A0);
        return false;
    }

    /// <summary>After a call: learns of files opened, and begins when one of them is written in small pieces.</summary>
    internal void After(long number, in SyscallArguments arguments, long result)
    {
        switch (number)
        {
            case SyscallNumber.open or SyscallNumber.openat when result >= 0:
                Consider((int)result);
                break;
            case SyscallNumber.close when (int)arguments.A0 == _descriptor:
                _descriptor = -1;
                break;
            case SyscallNumber.write when (int)arguments.A0 == _descriptor && !_collecting:
                const int enough = 4;
                _smallWrites = result == (long)arguments.A2 && result <= SyscallRing.LongestBufferedWrite ? _smallWrites + 1 : 0;
                if (_smallWrites >= enough)
                    Start();
                break;
        }
    }

    /// <summary>A regular file that the child may write to and that nobody waits on for each write.</summary>
    private void Consider(int descriptor)
    {
        const long accessMode = 3, readOnly = 0, notThese = 0x101000 | 0x4000 | 0x800; // O_SYNC O_DSYNC, O_DIRECT, O_NONBLOCK
        const int typeMask = 0xF000, regular = 0x8000;
        var flags = HostSyscall.Raw(SyscallNumber.fcntl, (ulong)descriptor, 3);
        var stat = stackalloc byte[144];
        if (flags < 0 || (flags & accessMode) == readOnly || (flags & notThese) != 0
            || HostSyscall.Raw(SyscallNumber.fstat, (ulong)descriptor, (ulong)stat) != 0 || (*(uint*)(stat + 24) & typeMask) != regular)
            return;
        Stop();
        (_descriptor, _smallWrites, _error) = (descriptor, 0, 0);
    }

    private void Start()
    {
        if (_thread.Process.Threads.Length != 1 || MustWriteAtOnce())
            return;
        _collecting = true;
        Ring->BufferNext = _buffer;
        Ring->BufferEnd = _buffer + Layout.WriteBufferSize;
        Ring->BufferedDescriptor = _descriptor;
        _thread.Host.ArmTick(LongestDelay);
    }

    private void Stop()
    {
        _collecting = false;
        _smallWrites = 0;
        Ring->BufferedDescriptor = -1;
    }

    /// <summary>Whether somebody could see that a write is late: by memory shared with the child, or by the signal of a size limit.</summary>
    private bool MustWriteAtOnce()
    {
        lock (_thread.Space.Changes)
        {
            foreach (var vma in _thread.Space.Mappings.All)
            {
                if ((vma.Flags & (Vma.Shared | Vma.Write)) == (Vma.Shared | Vma.Write))
                    return true;
            }
        }

        // A file size limit ends a write with a signal, which must come at the write itself.
        var limit = stackalloc ulong[2];
        const ulong fileSize = 1;
        return HostSyscall.Raw(SyscallNumber.getrlimit, fileSize, (ulong)limit) != 0 || limit[0] != ulong.MaxValue;
    }

    private bool KeepsCollecting(long number, in SyscallArguments arguments) => number switch
    {
        SyscallNumber.open or SyscallNumber.openat or SyscallNumber.write or SyscallNumber.read or SyscallNumber.lseek or SyscallNumber.fsync or SyscallNumber.fdatasync or SyscallNumber.sync_file_range
            or SyscallNumber.fadvise64 or SyscallNumber.fstat or SyscallNumber.newfstatat or SyscallNumber.brk or SyscallNumber.munmap or SyscallNumber.mprotect
            or SyscallNumber.mremap or SyscallNumber.madvise or SyscallNumber.futex or SyscallNumber.clock_gettime or SyscallNumber.gettimeofday
            or SyscallNumber.nanosleep or SyscallNumber.clock_nanosleep or SyscallNumber.getrusage or SyscallNumber.times or SyscallNumber.rt_sigaction
            or SyscallNumber.rt_sigprocmask or SyscallNumber.rt_sigreturn or SyscallNumber.getppid or SyscallNumber.kill or SyscallNumber.getrandom => true,
        SyscallNumber.mmap => (int)arguments.A4 < 0,
        SyscallNumber.close => (int)arguments.A0 != _descriptor,
        _ => false,
    };
}
