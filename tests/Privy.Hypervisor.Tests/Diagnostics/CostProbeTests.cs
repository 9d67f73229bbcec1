using Privy.Hypervisor.Diagnostics;

namespace Privy.Hypervisor.Tests.Diagnostics;

/// <summary>A test that is reported as skipped, by name, where <c>/dev/kvm</c> cannot be opened.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class KvmFactAttribute : FactAttribute
{
    public KvmFactAttribute()
    {
        try
        {
            using var device = File.Open("/dev/kvm", FileMode.Open, FileAccess.ReadWrite);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            Skip = $"No KVM: {e.Message}";
        }
    }
}

public class CostProbeTests
{
    /// <summary>The probe checks itself what its guest does: stores that arrive, a fault and a copy where there must be one, a snapshot that keeps its bytes.</summary>
    [KvmFact]
    public void The_guest_of_the_probe_runs_and_leaves_nothing_behind()
    {
        var first = CostProbe.Default.Measure();
        var descriptors = KvmDescriptors();
        // A second one needs the addresses of the first.
        var second = CostProbe.Default.Measure();
        Assert.InRange(KvmDescriptors(), 0, descriptors);

        Assert.Equal(first.SyscallEntersRing0, second.SyscallEntersRing0);
        Assert.Equal(first.Ring0IsNative, second.Ring0IsNative);
        // Faults come straight to ring 3 where SYSCALL stays there: that is measured besides.
        var count = second.SyscallEntersRing0 ? 11 : 12;
        Assert.Equal(count, second.Costs.Count);
        Assert.Equal(count, second.Costs.Select(c => c.Name).Distinct().Count());
        Assert.All(second.Costs, c => Assert.InRange(c.Median, 0, c.P99));
        Assert.Equal(second.ExitNanoseconds, second.Costs[0].Median);
        // Something was measured.
        Assert.All(second.Costs.Where(c => !c.Name.StartsWith("instruction", StringComparison.Ordinal)), c => Assert.True(c.Median > 1, c.ToString()));
    }

    // Not all descriptors: other tests open some at the same time.
    private static int KvmDescriptors() =>
        Directory.GetFileSystemEntries("/proc/self/fd").Count(path => new FileInfo(path).LinkTarget?.Contains("kvm", StringComparison.Ordinal) == true);
}
