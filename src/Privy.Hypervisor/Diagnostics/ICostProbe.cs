namespace Privy.Hypervisor.Diagnostics;

/// <summary>What one event costs on this machine.</summary>
/// <param name="Name">The event, as a user reads it: "exit to user space and back".</param>
/// <param name="Median">The median.</param>
/// <param name="P99">The 99th percentile.</param>
public readonly record struct MeasuredCost(string Name, TimeSpan Median, TimeSpan P99);

/// <summary>Measures what events of a virtual machine cost here; takes well under a second.</summary>
public interface ICostProbe
{
    /// <summary>Runs the measurements.</summary>
    IReadOnlyList<MeasuredCost> Measure();
}

/// <summary>The cost probe of this build.</summary>
public static class CostProbe
{
    /// <summary>Null when this build has none.</summary>
    public static ICostProbe? Default => null;
}
