namespace Privy.Integration.Tests;

/// <summary>The seven rules that keep snapshots true (design, section 5), one program for each.</summary>
public sealed class SnapshotRuleTests
{
    public static TheoryData<string> Cases(string program) => TestPrograms.Cases(program);

    [PrivyTheory(Needs.Compiler)]
    [MemberData(nameof(Cases), "rule1")]
    public void Rule_1_output_of_system_calls(string name) => TestPrograms.Run("rule1", name);

    [PrivyTheory(Needs.Compiler)]
    [MemberData(nameof(Cases), "rule2")]
    public void Rule_2_calls_in_flight(string name) => TestPrograms.Run("rule2", name);

    [PrivyTheory(Needs.Compiler)]
    [MemberData(nameof(Cases), "rule3")]
    public void Rule_3_asynchronous_writers(string name) => TestPrograms.Run("rule3", name);

    [PrivyTheory(Needs.Compiler)]
    [MemberData(nameof(Cases), "rule4")]
    public void Rule_4_memory_taken_away(string name) => TestPrograms.Run("rule4", name);

    [PrivyTheory(Needs.Compiler)]
    [MemberData(nameof(Cases), "rule5")]
    public void Rule_5_shared_memory(string name) => TestPrograms.Run("rule5", name);

    [PrivyTheory(Needs.Compiler)]
    [MemberData(nameof(Cases), "rule6")]
    public void Rule_6_pointers_and_mappings_of_the_child(string name) => TestPrograms.Run("rule6", name);

    [PrivyTheory(Needs.Compiler)]
    [MemberData(nameof(Cases), "rule7")]
    public void Rule_7_the_clock_goes_on(string name) => TestPrograms.Run("rule7", name);

    /// <summary>Some hundred snapshots one after the other in one process, with all that the cases before left behind.</summary>
    [PrivyTheory(Needs.Compiler)]
    [InlineData("rule1")]
    [InlineData("rule2")]
    [InlineData("rule3")]
    [InlineData("rule4")]
    [InlineData("rule5")]
    [InlineData("rule6")]
    [InlineData("rule7")]
    public void All_cases_in_one_process(string program) => TestPrograms.Run(program, seconds: 120);

    /// <summary>The programs must notice a snapshot that is none: with memory shared instead of copied each of these fails.</summary>
    [PrivyTheory(Needs.Compiler)]
    [InlineData("rule1", "read")]
    [InlineData("rule1", "fstat")]
    [InlineData("rule1", "signal_frame")]
    [InlineData("rule2", "read")]
    [InlineData("rule2", "many_in_flight")]
    [InlineData("rule3", "clear_tid_at_exit")]
    [InlineData("rule4", "dontneed_part")]
    [InlineData("rule4", "random_changes")]
    [InlineData("rule5", "anonymous")]
    [InlineData("rule6", "read")]
    [InlineData("stress", "concurrent")]
    public void The_checks_can_fail(string program, string name)
    {
        using var folder = new TemporaryFolder();
        var result = ProcessRun.Run([TestPrograms.Build(program, Flavour.Dynamic, "-DTESTLIB_BROKEN_SNAPSHOTS"), name], folder, limit: TimeSpan.FromSeconds(100));
        Assert.True(result.ExitCode == 1 && result.Errors.Contains("FAILED", StringComparison.Ordinal), result.ToString());
    }
}
