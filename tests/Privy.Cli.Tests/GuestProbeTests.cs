using Privy.Cli.Doctor;
using Privy.Hypervisor.Diagnostics;
using Privy.Kvm;

namespace Privy.Cli.Tests;

/// <summary>What <c>privy doctor</c> makes of a guest that runs or does not.</summary>
public class GuestProbeTests
{
    private sealed class Probe(Func<MachineCosts> measure) : ICostProbe
    {
        public MachineCosts Measure() => measure();
    }

    [Fact]
    public void A_guest_that_fails_is_a_problem_with_advice()
    {
        foreach (var failure in (Exception[])[new KvmException("KVM_CREATE_VM", 12), new KvmException("mmap(window)", 17), new KvmException("KVM_SET_SREGS", 22), new InvalidOperationException("exception 13\nvCPU 0")])
        {
            List<Check> checks = [new(Verdict.Good, "before", ""), new(Verdict.Good, "after", "")];
            Assert.Null(GuestProbe.Examine(checks, 1, new Probe(() => throw failure)));
            Assert.Equal(3, checks.Count);
            Assert.Equal(Verdict.Problem, checks[1].Verdict);
            Assert.StartsWith(checks[1].Value, failure.Message, StringComparison.Ordinal);
            Assert.DoesNotContain('\n', checks[1].Value);
            Assert.False(string.IsNullOrEmpty(checks[1].Advice));
        }
    }

    [Theory]
    [InlineData(false, 600, "paravirtual")]
    [InlineData(true, 0.3, "hardware: 0.3 ns")]
    [InlineData(true, 900, "emulated")]
    public void The_kind_of_KVM_is_told_by_what_the_guest_showed(bool syscallEntersRing0, double ring0, string expected)
    {
        List<Check> checks = [];
        Assert.NotNull(GuestProbe.Examine(checks, 0, new Probe(() => new MachineCosts(syscallEntersRing0, ring0, []))));
        Assert.Equal(3, checks.Count);
        Assert.DoesNotContain(checks, c => c.Verdict == Verdict.Problem);
        Assert.Contains(expected, checks[1].Value, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(1_400, "by exits")]
    [InlineData(27_000, "posted to a polling thread")]
    public void Calls_are_posted_where_exits_are_expensive(double exit, string expected)
    {
        List<Check> checks = [];
        Assert.NotNull(GuestProbe.Examine(checks, 0, new Probe(() => new MachineCosts(false, 600, []) { ExitNanoseconds = exit })));
        Assert.StartsWith(Environment.ProcessorCount > 1 ? expected : "by exits", checks[2].Value, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(0.34, "0.3 ns")]
    [InlineData(583.2, "583 ns")]
    [InlineData(2710, "2.7 µs")]
    [InlineData(26_400, "26 µs")]
    public void Durations_have_two_or_three_digits(double nanoseconds, string expected) => Assert.Equal(expected, DoctorReport.Duration(nanoseconds));
}
