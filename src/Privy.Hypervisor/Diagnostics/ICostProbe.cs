namespace Privy.Hypervisor.Diagnostics;

/// <summary>What one event costs on this machine, in nanoseconds (a TimeSpan counts in hundreds of them).</summary>
/// <param name="Name">The event, as a user reads it: "exit to user space and back".</param>
/// <param name="Median">The median.</param>
/// <param name="P99">The 99th percentile; of few samples, the highest.</param>
public readonly record struct MeasuredCost(string Name, double Median, double P99);

/// <summary>What a guest has shown about this machine.</summary>
/// <param name="SyscallEntersRing0">Whether SYSCALL enters ring 0, as it does on hardware; paravirtual KVM leaves the guest in ring 3.</param>
/// <param name="Ring0Nanoseconds">Cost of one instruction in the guest's ring 0.</param>
/// <param name="Costs">The measured costs.</param>
public sealed record MachineCosts(bool SyscallEntersRing0, double Ring0Nanoseconds, IReadOnlyList<MeasuredCost> Costs)
{
    // Hundreds of cycles; the slowest processor takes a few for a no-op, the fastest emulation a thousand.
    private const double Emulated = 100;

    /// <summary>What an exit to user space and back costs, in nanoseconds.</summary>
    public double ExitNanoseconds { get; init; }

    /// <summary>Whether system calls posted to a polling thread are cheaper than calls that leave the guest; it needs a second processor as well.</summary>
    public bool PollingPays => ExitNanoseconds >= Polling.SyscallPoller.WorthwhileExit;

    /// <summary>Whether ring 0 of the guest is executed by the processor and not by the host's kernel.</summary>
    public bool Ring0IsNative => Ring0Nanoseconds < Emulated;
}

/// <summary>Starts a tiny guest in the way programs are started, and measures what events cost; takes well under a second.</summary>
public interface ICostProbe
{
    /// <summary>Runs the measurements.</summary>
    /// <exception cref="Exception">The guest does not run: a call of the host failed, or the guest does not do what it should.</exception>
    MachineCosts Measure();
}

/// <summary>The cost probe of this build.</summary>
public static class CostProbe
{
    /// <summary>The probe that measures with a guest. It holds the addresses that a program under Privy holds, so one at a time in a process.</summary>
    public static ICostProbe Default { get; } = new GuestCostProbe();
}
