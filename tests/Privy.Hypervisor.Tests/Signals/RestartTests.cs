using Privy.Hypervisor.Host;
using Privy.Hypervisor.Signals;
using Privy.Hypervisor.Syscalls;

namespace Privy.Hypervisor.Tests.Signals;

public class RestartTests
{
    private const int Read = 0, Poll = 7, Lseek = 8, Accept = 43, Close = 3, EpollWait = 232, Futex = 202, Fcntl = 72, Nanosleep = 35, Wait4 = 61;

    [Theory]
    // While it waited.
    [InlineData(Read, -Errno.EINTR, true, true)]
    [InlineData(Read, -Errno.EINTR, false, false)]
    [InlineData(Accept, -Errno.EINTR, true, true)]
    [InlineData(Accept, -Errno.EINTR, false, false)]
    [InlineData(Wait4, -Errno.EINTR, true, true)]
    [InlineData(Poll, -Errno.EINTR, true, false)]
    [InlineData(EpollWait, -Errno.EINTR, true, false)]
    [InlineData(Nanosleep, -Errno.EINTR, true, false)]
    [InlineData(Close, -Errno.EINTR, true, false)]
    // Not made at all.
    [InlineData(Read, -Errno.ERESTARTSYS, false, true)]
    [InlineData(Lseek, -Errno.ERESTARTSYS, false, true)]
    [InlineData(Close, -Errno.ERESTARTSYS, false, true)]
    [InlineData(Accept, -Errno.ERESTARTSYS, false, false)]
    [InlineData(Accept, -Errno.ERESTARTSYS, true, true)]
    [InlineData(EpollWait, -Errno.ERESTARTSYS, true, false)]
    [InlineData(34, -Errno.ERESTARTNOHAND, true, false)]
    [InlineData(9999, -Errno.ERESTARTSYS, false, true)]
    public void After_a_handler(long number, long result, bool restartFlag, bool restarts) =>
        Assert.Equal(restarts, SyscallRestart.RestartsAfterHandler(number, result, new SyscallArguments(0, 0, 0, number == EpollWait ? ulong.MaxValue : 0, 0, 0), restartFlag ? SignalAction.SA_RESTART : 0));

    [Fact]
    public void Some_calls_depend_on_their_arguments()
    {
        bool Restarts(long number, ulong a1, ulong a3) => SyscallRestart.RestartsAfterHandler(number, -Errno.EINTR, new SyscallArguments(0, a1, 0, a3, 0, 0), SignalAction.SA_RESTART);
        Assert.True(Restarts(Futex, 0x80, 0));
        Assert.False(Restarts(Futex, 0x80, 0x1000));
        Assert.False(Restarts(Futex, 0x189, 0x1000)); // FUTEX_WAIT_BITSET | PRIVATE | CLOCK_REALTIME
        Assert.False(Restarts(EpollWait, 0, 10));
        Assert.True(SyscallRestart.RestartsAfterHandler(EpollWait, -Errno.ERESTARTSYS, default, 0)); // does not wait, so no signal can have interrupted it
        Assert.True(Restarts(Fcntl, 7, 0));
        Assert.False(Restarts(Fcntl, 3, 0));
    }

    [Theory]
    [InlineData(Read, -Errno.EINTR, true)]
    [InlineData(EpollWait, -Errno.EINTR, true)]
    [InlineData(Nanosleep, -Errno.ERESTARTNOHAND, true)]
    [InlineData(Lseek, -Errno.ERESTARTSYS, true)]
    [InlineData(Close, -Errno.EINTR, false)]
    [InlineData(Close, -Errno.ERESTARTSYS, true)]
    [InlineData(Read, -Errno.EAGAIN, false)]
    [InlineData(Read, 5, false)]
    public void Without_a_handler_an_interruption_is_never_seen(long number, long result, bool restarts)
    {
        using var context = new FakeContext();
        context.Registers.Rip = 0x1002;
        Assert.Equal(new DeliveryResult(DeliveryOutcome.Resume), context.Finish(number, result));
        Assert.Equal(restarts ? (0x1000ul, (ulong)number) : (0x1002ul, (ulong)result), (context.Registers.Rip, context.Registers.Rax));
        // Only once.
        SignalDelivery.BeforeReturn(context);
        Assert.Equal(restarts ? 0x1000ul : 0x1002ul, context.Registers.Rip);
    }

    [Fact]
    public void A_handlers_frame_holds_the_restarted_or_failed_call()
    {
        using var context = new FakeContext();
        context.Handle(Signal.SIGUSR1, SignalAction.SA_RESTART);
        context.Registers.Rip = 0x1002;
        context.ProcessSignals.Send(FakeContext.User(Signal.SIGUSR1));
        context.Finish(Read, -Errno.EINTR);
        Assert.Equal(0x401000ul, context.Registers.Rip);
        Return(context);
        Assert.Equal((0x1000ul, (ulong)Read), (context.Registers.Rip, context.Registers.Rax));

        context.Registers.Rip = 0x1002;
        context.ProcessSignals.Send(FakeContext.User(Signal.SIGUSR1));
        context.Finish(Poll, -Errno.ERESTARTSYS);
        Return(context);
        Assert.Equal((0x1002ul, unchecked((ulong)-Errno.EINTR)), (context.Registers.Rip, context.Registers.Rax));
    }

    internal static void Return(FakeContext context)
    {
        context.Registers.Rsp += 8; // ret
        context.Registers.Rax = 15;
        long result = SignalCalls.RtSigreturn(context, default);
        Assert.Equal(result, (long)context.Registers.Rax);
    }

    [Fact]
    public void A_timeout_that_is_restarted_goes_on_where_it_was()
    {
        using var context = new FakeContext();
        ThreadSignals thread = context.ThreadSignals;
        const long Second = 1_000_000_000;
        context.Registers.Rip = 0x1002;
        Assert.Equal(Second, thread.RemainingTimeout(0x1002, Poll, Second));
        Thread.Sleep(20);
        context.Finish(Poll, -Errno.EINTR);
        context.Registers.Rip += 2;
        Assert.InRange(thread.RemainingTimeout(0x1002, Poll, Second), 0, Second - 15_000_000);
        Thread.Sleep(20);
        context.Finish(Poll, -Errno.EINTR);
        context.Registers.Rip += 2;
        Assert.InRange(thread.RemainingTimeout(0x1002, Poll, Second), 0, Second - 30_000_000);
        // The call has ended; the next one has all of its time.
        context.Finish(Poll, 0);
        Assert.Equal(Second, thread.RemainingTimeout(0x1002, Poll, Second));
    }
}
