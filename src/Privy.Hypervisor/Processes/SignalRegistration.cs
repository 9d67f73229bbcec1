using Privy.Hypervisor.Signals;
using Privy.Hypervisor.Syscalls;

namespace Privy.Hypervisor.Processes;

/// <summary>Hangs the signal and timer calls into the system-call table.</summary>
internal static class SignalRegistration
{
    private delegate long Handler(ISignalContext context, in SyscallArguments arguments);

    internal static void Register()
    {
        On(SyscallNumber.rt_sigaction, SignalCalls.RtSigaction);
        On(SyscallNumber.rt_sigprocmask, SignalCalls.RtSigprocmask);
        On(SyscallNumber.rt_sigpending, SignalCalls.RtSigpending);
        On(SyscallNumber.rt_sigsuspend, SignalCalls.RtSigsuspend);
        On(SyscallNumber.rt_sigtimedwait, SignalCalls.RtSigtimedwait);
        On(SyscallNumber.rt_sigreturn, SignalCalls.RtSigreturn);
        On(SyscallNumber.rt_sigqueueinfo, SignalCalls.RtSigqueueinfo);
        On(SyscallNumber.rt_tgsigqueueinfo, SignalCalls.RtTgsigqueueinfo);
        On(SyscallNumber.sigaltstack, SignalCalls.Sigaltstack);
        On(SyscallNumber.pause, SignalCalls.Pause);
        On(SyscallNumber.kill, SignalCalls.Kill);
        On(SyscallNumber.tgkill, SignalCalls.Tgkill);
        On(SyscallNumber.tkill, SignalCalls.Tkill);
        On(SyscallNumber.setitimer, TimerCalls.Setitimer);
        On(SyscallNumber.getitimer, TimerCalls.Getitimer);
        On(SyscallNumber.alarm, TimerCalls.Alarm);
        On(SyscallNumber.timer_create, TimerCalls.TimerCreate);
        On(SyscallNumber.timer_settime, TimerCalls.TimerSettime);
        On(SyscallNumber.timer_gettime, TimerCalls.TimerGettime);
        On(SyscallNumber.timer_getoverrun, TimerCalls.TimerGetoverrun);
        On(SyscallNumber.timer_delete, TimerCalls.TimerDelete);
    }

    private static void On(int number, Handler handler) =>
        SyscallDispatcher.Register(number, (ISyscallContext context, in SyscallArguments arguments) =>
        {
            // These calls may block on, and must be followed by, a look at the queues.
            var thread = (GuestThread)context;
            var result = handler(thread, arguments);
            thread.LookAtSignals();
            return result;
        });
}
