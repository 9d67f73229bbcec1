namespace Privy.Kernel;

/// <summary>Gets from the host what an operation lacked. Called without the lock.</summary>
internal static unsafe class Retry
{
    /// <summary>Done when the operation should be tried again, else how it ends.</summary>
    internal static Outcome Help(VcpuArea* v, Outcome outcome)
    {
        long result;
        switch (outcome)
        {
            case Outcome.NeedSlot:
                result = HostCall.Request(v, HostRequest.NeedSlot, v->PendingSlot, 0);
                break;
            case Outcome.NeedFrames:
                result = HostCall.Request(v, HostRequest.NeedFrames, 0, 0);
                break;
            case Outcome.NeedReadyFrames:
                // A copy ahead can be done without.
                if (HostCall.Request(v, HostRequest.NeedReadyFrames, 0, 0) < 0)
                    v->NoReadyFrames = 1;
                return Outcome.Done;
            case Outcome.NeedTables:
                result = HostCall.Request(v, HostRequest.NeedTables, 0, 0);
                break;
            default:
                return outcome;
        }
        return result < 0 ? Outcome.NoMemory : Outcome.Done;
    }
}
