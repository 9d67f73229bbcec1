using System.Diagnostics;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Signals;
using Privy.Hypervisor.Syscalls;

namespace Privy.Hypervisor.Tests.Signals;

public class SignalCallTests
{
    private const ulong A = FakeContext.MemoryBase + 0x100, B = A + 0x100, C = A + 0x200;

    private static SyscallArguments Args(ulong a0 = 0, ulong a1 = 0, ulong a2 = 0, ulong a3 = 0) => new(a0, a1, a2, a3, 0, 0);

    [Fact]
    public void Sigaction_sets_and_reports()
    {
        using var context = new FakeContext();
        context.WriteWords(A, 0x1234, SignalAction.SA_RESTORER | SignalAction.SA_RESTART | 0x400, 0x5678, ulong.MaxValue);
        Assert.Equal(0, SignalCalls.RtSigaction(context, Args(Signal.SIGUSR1, A, B, 8)));
        Assert.Equal(0ul, context.ReadWord(B));
        Assert.Equal(0, SignalCalls.RtSigaction(context, Args(Signal.SIGUSR1, 0, B, 8)));
        Assert.Equal((0x1234ul, SignalAction.SA_RESTORER | SignalAction.SA_RESTART, 0x5678ul, (~SignalSet.Unblockable).Bits),
            (context.ReadWord(B), context.ReadWord(B + 8), context.ReadWord(B + 16), context.ReadWord(B + 24)));
        Assert.Equal(-Errno.EINVAL, SignalCalls.RtSigaction(context, Args(Signal.SIGKILL, A, 0, 8)));
        Assert.Equal(0, SignalCalls.RtSigaction(context, Args(Signal.SIGKILL, 0, B, 8)));
        Assert.Equal(-Errno.EINVAL, SignalCalls.RtSigaction(context, Args(Signal.SIGUSR1, A, 0, 4)));
        Assert.Equal(-Errno.EINVAL, SignalCalls.RtSigaction(context, Args(65, A, 0, 8)));
        Assert.Equal(-Errno.EFAULT, SignalCalls.RtSigaction(context, Args(Signal.SIGUSR1, 8, 0, 8)));
    }

    [Fact]
    public void Masks_block_and_pending_shows()
    {
        using var context = new FakeContext();
        context.Handle(Signal.SIGUSR1);
        context.WriteWords(A, SignalSet.Of(Signal.SIGUSR1, Signal.SIGKILL).Bits);
        Assert.Equal(0, SignalCalls.RtSigprocmask(context, Args(0, A, B, 8)));
        Assert.Equal(SignalSet.Of(Signal.SIGUSR1), context.ThreadSignals.Mask);
        Assert.Equal(0, SignalCalls.Kill(context, Args((ulong)context.ProcessId, Signal.SIGUSR1)));
        Assert.Equal(0, SignalCalls.RtSigpending(context, Args(B, 8)));
        Assert.Equal(SignalSet.Of(Signal.SIGUSR1).Bits, context.ReadWord(B));
        Assert.Equal(0, context.Wakes);
        Assert.Equal(0, SignalCalls.RtSigprocmask(context, Args(1, A, 0, 8)));
        Assert.Equal(1, context.Wakes);
        Assert.Equal(-Errno.EINVAL, SignalCalls.RtSigprocmask(context, Args(3, A, 0, 8)));
    }

    [Fact]
    public void Sigaltstack_checks_what_the_kernel_checks()
    {
        using var context = new FakeContext();
        Assert.Equal(0, SignalCalls.Sigaltstack(context, Args(0, B)));
        Assert.Equal(AlternateStack.SS_DISABLE, (uint)context.ReadWord(B + 8));
        context.WriteWords(A, FakeContext.MemoryBase, 0, 1000);
        Assert.Equal(-Errno.ENOMEM, SignalCalls.Sigaltstack(context, Args(A)));
        context.WriteWords(A, FakeContext.MemoryBase, 8, 8192);
        Assert.Equal(-Errno.EINVAL, SignalCalls.Sigaltstack(context, Args(A)));
        context.WriteWords(A, FakeContext.MemoryBase, 0, 8192);
        Assert.Equal(0, SignalCalls.Sigaltstack(context, Args(A)));
        context.Registers.Rsp = FakeContext.MemoryBase + 4096;
        Assert.Equal(-Errno.EPERM, SignalCalls.Sigaltstack(context, Args(A, B)));
        Assert.Equal(0, SignalCalls.Sigaltstack(context, Args(0, B)));
        Assert.Equal((FakeContext.MemoryBase, AlternateStack.SS_ONSTACK, 8192ul), (context.ReadWord(B), (uint)context.ReadWord(B + 8), context.ReadWord(B + 16)));
    }

    [Fact]
    public void Default_actions_end_stop_or_do_nothing()
    {
        using var context = new FakeContext();
        context.ProcessSignals.Send(FakeContext.User(Signal.SIGWINCH));
        Assert.Equal(new DeliveryResult(DeliveryOutcome.Resume), SignalDelivery.BeforeReturn(context));
        context.ProcessSignals.Send(FakeContext.User(Signal.SIGTSTP));
        Assert.Equal(new DeliveryResult(DeliveryOutcome.Resume), SignalDelivery.BeforeReturn(context));
        Assert.Equal([Signal.SIGTSTP], context.Stops);
        context.ProcessSignals.Send(FakeContext.User(Signal.SIGTERM));
        Assert.Equal(new DeliveryResult(DeliveryOutcome.Terminate, Signal.SIGTERM), SignalDelivery.BeforeReturn(context));
        context.ProcessSignals.Send(FakeContext.User(Signal.SIGQUIT));
        Assert.Equal(new DeliveryResult(DeliveryOutcome.TerminateWithCore, Signal.SIGQUIT), SignalDelivery.BeforeReturn(context));
        context.ThreadSignals.Mask = ~default(SignalSet);
        context.ProcessSignals.Send(FakeContext.User(Signal.SIGKILL));
        Assert.Equal(new DeliveryResult(DeliveryOutcome.Terminate, Signal.SIGKILL), SignalDelivery.BeforeReturn(context));
    }

    [Fact]
    public void A_blocked_fault_ends_the_process()
    {
        using var context = new FakeContext();
        context.Handle(Signal.SIGSEGV);
        context.ThreadSignals.Mask = SignalSet.Of(Signal.SIGSEGV);
        context.ProcessSignals.Force(SignalInfo.FromFault(Signal.SIGSEGV, SignalInfo.SEGV_MAPERR, 1), context.ThreadSignals);
        Assert.Equal(new DeliveryResult(DeliveryOutcome.TerminateWithCore, Signal.SIGSEGV), SignalDelivery.BeforeReturn(context));
    }

    [Fact]
    public void Several_handlers_nest_and_one_shot_actions_reset()
    {
        using var context = new FakeContext();
        context.Handle(Signal.SIGUSR1, SignalAction.SA_RESETHAND, handler: 0x11000);
        context.Handle(Signal.SIGUSR2, handler: 0x12000);
        context.Registers.Rip = 0x10000;
        context.ProcessSignals.Send(FakeContext.User(Signal.SIGUSR1));
        context.ProcessSignals.Send(FakeContext.User(Signal.SIGUSR2));
        SignalDelivery.BeforeReturn(context);
        Assert.Equal(0x12000ul, context.Registers.Rip); // runs first, on top
        RestartTests.Return(context);
        Assert.Equal(0x11000ul, context.Registers.Rip);
        RestartTests.Return(context);
        Assert.Equal(0x10000ul, context.Registers.Rip);
        Assert.Equal(SignalAction.SIG_DFL, context.ProcessSignals[Signal.SIGUSR1].Handler);
    }

    [Fact]
    public void Sigsuspend_waits_with_its_mask_and_the_frame_keeps_the_old_one()
    {
        using var context = new FakeContext(host: true);
        context.Handle(Signal.SIGUSR1);
        SignalSet old = SignalSet.Of(Signal.SIGUSR1, Signal.SIGHUP);
        context.ThreadSignals.Mask = old;
        context.WriteWords(A, SignalSet.Of(Signal.SIGTERM).Bits);

        // Pending before: sigsuspend must not sleep.
        context.ProcessSignals.Send(FakeContext.User(Signal.SIGUSR1));
        Suspend();

        // Sent while it sleeps.
        var sender = new Thread(() =>
        {
            Thread.Sleep(50);
            context.ProcessSignals.Send(FakeContext.User(Signal.SIGUSR1));
        });
        sender.Start();
        Suspend();
        sender.Join();

        // A stray kick is never seen.
        context.Host!.Interrupt();
        context.Registers.Rip = 0x1002;
        context.Finish(130, SignalCalls.RtSigsuspend(context, Args(A, 8)));
        Assert.Equal((0x1000ul, 130ul, old), (context.Registers.Rip, context.Registers.Rax, context.ThreadSignals.Mask));

        void Suspend()
        {
            context.Registers.Rip = 0x1002;
            long result = SignalCalls.RtSigsuspend(context, Args(A, 8));
            context.Finish(130, result);
            Assert.Equal(0x401000ul, context.Registers.Rip);
            Assert.Equal(SignalSet.Of(Signal.SIGTERM, Signal.SIGUSR1), context.ThreadSignals.Mask);
            RestartTests.Return(context);
            Assert.Equal((0x1002ul, unchecked((ulong)-Errno.EINTR), old), (context.Registers.Rip, context.Registers.Rax, context.ThreadSignals.Mask));
        }
    }

    [Fact]
    public void Sigtimedwait_takes_blocked_signals_and_times_out()
    {
        using var context = new FakeContext(host: true);
        context.ThreadSignals.Mask = SignalSet.Of(40, Signal.SIGTERM);
        context.WriteWords(A, SignalSet.Of(40, Signal.SIGTERM).Bits);
        context.WriteWords(B, 0, 30_000_000);
        long start = Stopwatch.GetTimestamp();
        Assert.Equal(-Errno.EAGAIN, SignalCalls.RtSigtimedwait(context, Args(A, C, B, 8)));
        Assert.InRange(Stopwatch.GetElapsedTime(start).TotalMilliseconds, 29, 10_000);

        context.WriteWords(B, 20, 0);
        var sender = new Thread(() =>
        {
            Thread.Sleep(30);
            context.ProcessSignals.Send(FakeContext.User(40, 99));
        });
        sender.Start();
        Assert.Equal(40, SignalCalls.RtSigtimedwait(context, Args(A, C, B, 8)));
        sender.Join();
        Assert.Equal(99ul, context.ReadWord(C + 24));
        context.Host!.ClearInterrupt();

        context.ProcessSignals.Send(FakeContext.User(Signal.SIGTERM));
        Assert.Equal(Signal.SIGTERM, SignalCalls.RtSigtimedwait(context, Args(A, 0, 0, 8)));
        context.WriteWords(B, 0, 1_000_000_000);
        Assert.Equal(-Errno.EINVAL, SignalCalls.RtSigtimedwait(context, Args(A, 0, B, 8)));
    }

    [Fact]
    public void Signals_are_sent_to_threads_and_processes()
    {
        using var context = new FakeContext();
        context.ThreadSignals.Mask = ~default(SignalSet);
        Assert.Equal(0, SignalCalls.Tgkill(context, Args((ulong)context.ProcessId, (ulong)context.ThreadId, Signal.SIGUSR1)));
        Assert.True(context.ProcessSignals.TryTake(context.ThreadSignals, SignalSet.Of(Signal.SIGUSR1), out SignalInfo info));
        Assert.Equal((SignalInfo.SI_TKILL, 1000, context.ProcessId), (info.Code, info.UserId, info.ProcessId));
        Assert.Equal(0, SignalCalls.Tkill(context, Args((ulong)context.ThreadId, Signal.SIGUSR1)));
        Assert.Equal(-Errno.ESRCH, SignalCalls.Tgkill(context, Args((ulong)context.ProcessId, 1, Signal.SIGUSR1)));
        Assert.Equal(-Errno.EINVAL, SignalCalls.Kill(context, Args((ulong)context.ProcessId, 65)));
        Assert.Equal(0, SignalCalls.Kill(context, Args((ulong)context.ProcessId, 0)));
        using var own = new HostThread();
        Assert.Equal(-Errno.ESRCH, SignalCalls.Kill(context, Args((ulong)own.ThreadId, 0))); // the hypervisor's

        context.WriteWords(A, 0, unchecked((uint)SignalInfo.SI_QUEUE), 0, 777);
        Assert.Equal(0, SignalCalls.RtSigqueueinfo(context, Args((ulong)context.ProcessId, 41, A)));
        Assert.True(context.ProcessSignals.TryTake(context.ThreadSignals, SignalSet.Of(41), out info));
        Assert.Equal((41, 777ul), (info.Number, info.Value));
        context.WriteWords(A, 0, SignalInfo.SI_USER, 0, 777);
        Assert.Equal(-Errno.EPERM, SignalCalls.RtSigqueueinfo(context, Args(1, 41, A)));

        // A native process.
        long pid = NativeSpawn.Spawn("/bin/sleep"u8, Host.NativeProcess.List("sleep", "100"), [], default, default);
        Assert.Equal(0, SignalCalls.Kill(context, Args((ulong)pid, Signal.SIGTERM)));
        Assert.Equal(-Signal.SIGTERM, Host.NativeProcess.ExitOf(Host.NativeProcess.Wait(pid)));
    }
}
