namespace Privy.Hypervisor.Signals;

/// <summary>What the thread does after its signals have been looked at.</summary>
public enum DeliveryOutcome
{
    /// <summary>It goes on with the registers as they are now.</summary>
    Resume,

    /// <summary>Its process ends by the signal.</summary>
    Terminate,

    /// <summary>Its process ends by the signal, with a core where the limits allow one.</summary>
    TerminateWithCore,
}

/// <summary>Outcome and, where the process ends, the signal.</summary>
public readonly record struct DeliveryResult(DeliveryOutcome Outcome, int Signal = 0);

/// <summary>What is done with one signal.</summary>
public enum SignalDecision
{
    /// <summary>Nothing.</summary>
    Ignore,

    /// <summary>Its handler runs.</summary>
    Handle,

    /// <summary>The process ends.</summary>
    Terminate,

    /// <summary>The process ends with a core.</summary>
    Core,

    /// <summary>The process stops.</summary>
    Stop,

    /// <summary>The process goes on; it does already when this is seen.</summary>
    Continue,
}

/// <summary>The way from a pending signal to its handler, at the point where a thread returns to the program.</summary>
public static class SignalDelivery
{
    /// <summary>What an action means for a signal.</summary>
    public static SignalDecision Decide(int signal, in SignalAction action) => action.Handler switch
    {
        SignalAction.SIG_IGN when !SignalSet.Unblockable.Contains(signal) => SignalDecision.Ignore,
        > SignalAction.SIG_IGN when !SignalSet.Unblockable.Contains(signal) => SignalDecision.Handle,
        _ => Signal.Default(signal) switch
        {
            DefaultAction.Ignore => SignalDecision.Ignore,
            DefaultAction.Continue => SignalDecision.Continue,
            DefaultAction.Stop => SignalDecision.Stop,
            DefaultAction.Core => SignalDecision.Core,
            _ => SignalDecision.Terminate,
        },
    };

    /// <summary>
    /// Delivers what is pending: a frame for each handler, the last one to run first. Decides about the restart of an interrupted call. Called by the thread,
    /// after it has cleared its interrupt word, before it returns to the program whenever signals may be pending, the last call was interrupted
    /// (<see cref="SyscallRestart.IsInterrupted"/>), or it set a temporary mask.
    /// </summary>
    public static DeliveryResult BeforeReturn(ISignalContext context)
    {
        ArgumentNullException.ThrowIfNull(context);
        ThreadSignals thread = context.ThreadSignals;
        ProcessSignals process = context.ProcessSignals;
        while (true)
        {
            if (!process.TryDequeue(thread, out SignalInfo info, out SignalAction action))
            {
                SyscallRestart.WithoutHandler(context);
                if (thread.SavedMask is not { } saved)
                    return new DeliveryResult(DeliveryOutcome.Resume);
                // No handler ran under the temporary mask. The old one may let others through.
                thread.ClearSavedMask();
                process.SetMask(thread, saved, wake: false);
                continue;
            }
            switch (Decide(info.Number, action))
            {
                case SignalDecision.Terminate:
                    return new DeliveryResult(DeliveryOutcome.Terminate, info.Number);
                case SignalDecision.Core:
                    return new DeliveryResult(DeliveryOutcome.TerminateWithCore, info.Number);
                case SignalDecision.Stop:
                    context.StopProcess(info.Number);
                    break;
                case SignalDecision.Handle:
                    SyscallRestart.WithHandler(context, action);
                    SignalSet mask = thread.Mask;
                    if (!SignalFrame.TryBuild(context, info, action, thread.SavedMask ?? mask))
                    {
                        // A SIGSEGV whose own frame cannot be written has nothing left to be told to.
                        if (info.Number == Signal.SIGSEGV)
                            return new DeliveryResult(DeliveryOutcome.TerminateWithCore, Signal.SIGSEGV);
                        process.Force(SignalInfo.FromKernel(Signal.SIGSEGV), thread);
                        break;
                    }
                    thread.ClearSavedMask();
                    SignalSet blocked = mask | new SignalSet(action.Mask);
                    if (!action.Has(SignalAction.SA_NODEFER))
                        blocked = blocked.With(info.Number);
                    process.SetMask(thread, blocked, wake: false);
                    break;
            }
        }
    }
}
