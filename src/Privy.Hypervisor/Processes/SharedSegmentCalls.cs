using Privy.Hypervisor.Host;
using Privy.Hypervisor.Memory;
using Privy.Hypervisor.Syscalls;

namespace Privy.Hypervisor.Processes;

/// <summary>System V shared memory. The segments are the host's; attaching one is a mapping of shared memory in the window.</summary>
internal static unsafe class SharedSegmentCalls
{
    private const int StatusLength = 112, StatusSizeOffset = 48;

    internal static void Register()
    {
        On(SyscallNumber.shmget, (t, a) => t.HostCall(SyscallNumber.shmget, a.A0, a.A1, a.A2));
        On(SyscallNumber.shmat, Attach);
        On(SyscallNumber.shmdt, (t, a) => t.Space is MainSpace main ? main.DetachSegment(t.Vcpu, a.A0) : -Errno.ENOSYS);
        On(SyscallNumber.shmctl, Control);
    }

    private delegate long Handler(GuestThread thread, SyscallArguments arguments);

    private static void On(int number, Handler handler) =>
        SyscallDispatcher.Register(number, (ISyscallContext context, in SyscallArguments arguments) => handler((GuestThread)context, arguments));

    private static long Attach(GuestThread thread, SyscallArguments a)
    {
        const ulong status = 2;
        if (thread.Space is not MainSpace main)
        {
            SyscallWarnings.Once("a forked child cannot attach System V shared memory itself; the program gets ENOSYS");
            return -Errno.ENOSYS;
        }

        var buffer = stackalloc byte[StatusLength];
        var result = HostSyscall.Raw(SyscallNumber.shmctl, a.A0, status, (ulong)buffer);
        return result < 0 ? result : main.AttachSegment(thread.Vcpu, (int)a.A0, *(ulong*)(buffer + StatusSizeOffset), a.A1, (int)a.A2);
    }

    private static long Control(GuestThread thread, SyscallArguments a)
    {
        const int set = 1, status = 2, limits = 3, segmentStatus = 13, usage = 14, anySegmentStatus = 15, limitsLength = 72, usageLength = 48;
        var command = (int)a.A1;
        var (input, output) = command switch
        {
            set => (StatusLength, 0),
            status or segmentStatus or anySegmentStatus => (0, StatusLength),
            limits => (0, limitsLength),
            usage => (0, usageLength),
            _ => (0, 0),
        };
        // Through a buffer of ours, so that the program's is written under rule 1 like any other.
        var buffer = stackalloc byte[StatusLength];
        new Span<byte>(buffer, StatusLength).Clear();
        if (input != 0 && !thread.TryRead(a.A2, new Span<byte>(buffer, input)))
            return -Errno.EFAULT;
        var result = HostSyscall.Raw(SyscallNumber.shmctl, a.A0, a.A1, (ulong)buffer);
        return result >= 0 && output != 0 && !thread.TryWrite(a.A2, new ReadOnlySpan<byte>(buffer, output)) ? -Errno.EFAULT : result;
    }
}
