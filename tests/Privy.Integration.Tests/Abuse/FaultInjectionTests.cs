namespace Privy.Integration.Tests;

/// <summary>
/// Failures on purpose in the hypervisor (PRIVY_FAULTS). What a real machine may do at any time, signals at every entry and at every instruction, must change nothing.
/// What Linux answers by an error or a signal the program sees as such: it may stop there, but never reads a wrong byte.
/// </summary>
public sealed class FaultInjectionTests
{
    /// <summary>Every other entry into the guest ends as if by a signal, and kicks come at random instructions.</summary>
    [PrivyTheory(Needs.Compiler | Needs.Privy)]
    [InlineData("rule1")]
    [InlineData("rule2")]
    [InlineData("rule3")]
    [InlineData("rule4")]
    [InlineData("rule5")]
    [InlineData("rule6")]
    [InlineData("rule7")]
    [InlineData("signals")]
    public void Interruptions_change_nothing(string program)
    {
        var result = Run(program, $"seed={Long.Seed},entry=2,kick=300");
        Assert.True(result.ExitCode == 0, $"seed {Long.Seed}\n{result}");
    }

    /// <summary>Memory, frames for copies, slots and vCPUs run out: an error or SIGBUS, and the program's own checks of bytes hold.</summary>
    [PrivyTheory(Needs.Compiler | Needs.Privy)]
    [InlineData("rule1", "mapping=15")]
    [InlineData("rule4", "mapping=15")]
    [InlineData("threads", "vcpu=3")]
    [InlineData("rule2", "vcpu=3")]
    [InlineData("rule1", "frames=300")]
    [InlineData("rule4", "frames=300")]
    [InlineData("rule6", "frames=300")]
    [InlineData("rule4", "slot=2")]
    public void Shortages_are_errors_and_never_wrong_bytes(string program, string faults)
    {
        // One case after the other in processes of their own: after a failed check there are none. Many end early, as the program's own start may be what fails.
        var cases = TestPrograms.Names(program);
        var random = new Random(Long.Seed);
        foreach (var name in cases.OrderBy(_ => random.Next()).Take(4))
        {
            var result = Run(program, $"seed={Long.Seed},{faults}", name);
            Assert.False(IsWrong(result), $"seed {Long.Seed}, {name}\n{result}");
        }
    }

    /// <summary>The variable is refused when it says nothing.</summary>
    [PrivyFact(Needs.Privy)]
    public void A_fault_that_is_none_is_refused()
    {
        using var folder = new TemporaryFolder();
        var result = ProcessRun.Run(Launcher.Command("/bin/true", []), folder, environment: new Dictionary<string, string> { ["PRIVY_FAULTS"] = "etnry=2" });
        Assert.Equal(1, result.ExitCode);
        Assert.StartsWith("privy: PRIVY_FAULTS: 'etnry=2' is none of", result.Errors, StringComparison.Ordinal);
    }

    /// <summary>A defect, a crash without a signal's status, or a byte that is not what it should be (the checks of testlib.h say "byte N of ... is ..").</summary>
    internal static bool IsWrong(RunResult result) =>
        Long.IsDefect(result.Errors) || result.Errors.Contains("FAILED", StringComparison.Ordinal) && result.Errors.Contains(": byte ", StringComparison.Ordinal);

    private static RunResult Run(string program, string faults, params string[] arguments)
    {
        using var folder = new TemporaryFolder();
        return ProcessRun.Run(Launcher.Command(TestPrograms.Build(program), arguments), folder, environment: new Dictionary<string, string> { ["PRIVY_FAULTS"] = faults, ["TESTLIB_PATIENCE"] = faults.Contains("entry", StringComparison.Ordinal) ? "100" : "5" }, limit: TimeSpan.FromSeconds(240));
    }
}
