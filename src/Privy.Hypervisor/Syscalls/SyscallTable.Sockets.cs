using static Privy.Hypervisor.Syscalls.SyscallNumber;

namespace Privy.Hypervisor.Syscalls;

public static partial class SyscallTable
{
    /// <summary>No option is longer (SO_PEERGROUPS: 65536 groups).</summary>
    private const int OptionMax = 1 << 18;

    private static ArgumentDescription Family => Value(ValueFormat.SocketFamily);

    private static ArgumentDescription SocketType => Value(ValueFormat.SocketType);

    private static ArgumentDescription MessageFlags => Value(ValueFormat.MessageFlags);

    private static void DescribeSockets(SyscallDescription?[] c)
    {
        Host(c, socket, Family, SocketType, Int);
        Creates(c, socketpair, Family, SocketType, Int, Out(8, MemoryFormat.IntPair));
        Host(c, connect, Fd, SocketAddressIn(2), Int);
        Creates(c, accept, Fd, SocketAddressOut(2), IntInOut);
        Creates(c, accept4, Fd, SocketAddressOut(2), IntInOut, SocketType);
        Host(c, bind, Fd, SocketAddressIn(2), Int);
        Host(c, listen, Fd, Int);
        Sends(c, sendto, 3, Fd, DataIn(2), Size, MessageFlags, SocketAddressIn(5), Int);
        Host(c, recvfrom, Fd, DataOut(2), Size, MessageFlags, SocketAddressOut(5), IntInOut);
        Sends(c, sendmsg, 2, Fd, new ArgumentDescription(ArgumentKind.MessageIn), MessageFlags);
        Host(c, recvmsg, Fd, new ArgumentDescription(ArgumentKind.MessageOut), MessageFlags);
        Sends(c, sendmmsg, 3, Fd, new ArgumentDescription(ArgumentKind.MessagesIn) { LengthArgument = 2 }, Int, MessageFlags);
        Host(c, recvmmsg, Fd, new ArgumentDescription(ArgumentKind.MessagesOut) { LengthArgument = 2 }, Int, MessageFlags, InOut(KernelStructSize.Timespec, MemoryFormat.Timespec));
        Host(c, shutdown, Fd, Value(ValueFormat.Shutdown));
        Host(c, getsockname, Fd, SocketAddressOut(2), IntInOut);
        Host(c, getpeername, Fd, SocketAddressOut(2), IntInOut);
        Host(c, setsockopt, Fd, Value(ValueFormat.SocketLevel), Value(ValueFormat.SocketOption), BufferIn(4, LengthSource.IntArgument, OptionMax, memory: MemoryFormat.IntArray), Int);
        Host(c, getsockopt, Fd, Value(ValueFormat.SocketLevel), Value(ValueFormat.SocketOption), SizedOut(4, OptionMax, MemoryFormat.IntArray), IntInOut);
    }

    private static void DescribePolling(SyscallDescription?[] c)
    {
        var descriptors = new ArgumentDescription(ArgumentKind.InOut)
        {
            Size = KernelStructSize.Pollfd, Length = LengthSource.IntArgument, LengthArgument = 1, Limit = 8 << 20, Memory = MemoryFormat.PollDescriptors,
        };
        var events = ElementsOut(2, KernelStructSize.EpollEvent, ArgumentDescription.MaxTransfer, MemoryFormat.EpollEvents) with { Partial = true };
        var timeLeft = InOut(KernelStructSize.Timespec, MemoryFormat.Timespec) with { OnInterrupt = true };
        var timevalLeft = InOut(KernelStructSize.Timeval, MemoryFormat.Timeval) with { OnInterrupt = true };

        Waits(c, poll, descriptors, Int, Int);
        Waits(c, ppoll, descriptors, Int, timeLeft, new ArgumentDescription(ArgumentKind.SignalMask) { LengthArgument = 4, Memory = MemoryFormat.SignalSet }, Size);
        Waits(c, select, Int, DescriptorSet(0), DescriptorSet(0), DescriptorSet(0), timevalLeft);
        Waits(c, pselect6, Int, DescriptorSet(0), DescriptorSet(0), DescriptorSet(0), timeLeft, new ArgumentDescription(ArgumentKind.SignalMaskPair));
        Host(c, epoll_create, Int);
        Host(c, epoll_create1, Value(ValueFormat.CreateFlags));
        Host(c, epoll_ctl, Fd, Value(ValueFormat.EpollOperation), Fd, In(KernelStructSize.EpollEvent, MemoryFormat.EpollEvents));
        Waits(c, epoll_wait, Fd, events, Int, Int);
        Waits(c, epoll_pwait, Fd, events, Int, Int, new ArgumentDescription(ArgumentKind.SignalMask) { LengthArgument = 5, Memory = MemoryFormat.SignalSet }, Size);
        Waits(c, epoll_pwait2, Fd, events, Int, TimespecIn, new ArgumentDescription(ArgumentKind.SignalMask) { LengthArgument = 5, Memory = MemoryFormat.SignalSet }, Size);
        Host(c, eventfd, Int);
        Host(c, eventfd2, Int, CreateFlags);
        Host(c, timerfd_create, Value(ValueFormat.Clock), CreateFlags);
        Host(c, timerfd_settime, Fd, Hex, In(KernelStructSize.Itimerspec), Out(KernelStructSize.Itimerspec));
        Host(c, timerfd_gettime, Fd, Out(KernelStructSize.Itimerspec));
        Creates(c, pipe, Out(8, MemoryFormat.IntPair));
        Creates(c, pipe2, Out(8, MemoryFormat.IntPair), CreateFlags);
    }
}
