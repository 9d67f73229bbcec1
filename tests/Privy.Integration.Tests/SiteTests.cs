using System.Globalization;
using System.Text.RegularExpressions;

namespace Privy.Integration.Tests;

/// <summary>System calls whose place in the program's code is changed so that they need no SYSCALL.</summary>
public sealed partial class SiteTests
{
    /// <summary>Elsewhere SYSCALL enters ring 0, and code stays as it is.</summary>
    private static readonly Lazy<bool> SyscallStaysInRing3 = new(() =>
    {
        using var folder = new TemporaryFolder();
        return ProcessRun.Run([.. Launcher.Cli(), "doctor"], folder).Text.Contains("SYSCALL stays in ring 3", StringComparison.Ordinal);
    });

    public static TheoryData<string, string> Cases()
    {
        var data = new TheoryData<string, string>();
        foreach (var name in TestPrograms.Cases("sites"))
            foreach (var syscalls in new[] { "auto", "ring" })
                data.Add(name, syscalls);
        return data;
    }

    [PrivyTheory(Needs.Compiler)]
    [MemberData(nameof(Cases))]
    public void Calls_from_places_that_are_rewritten(string name, string syscalls) => Run(name, Flavour.Dynamic, faults: null, "--syscalls", syscalls);

    /// <summary>Kicked out of the program at random instructions, some of them between a site and the stub.</summary>
    [PrivyTheory(Needs.Compiler | Needs.Privy)]
    [InlineData("registers_and_flags_survive")]
    [InlineData("signals_at_any_instruction")]
    [InlineData("single_steps")]
    [InlineData("children_on_the_same_sites")]
    [InlineData("threads_on_the_same_sites")]
    [InlineData("code_that_comes_and_goes")]
    public void Kicked_at_any_instruction(string name) => Run(name, Flavour.Dynamic, "kick=300");

    [PrivyTheory(Needs.Compiler | Needs.StaticLibrary)]
    [InlineData("registers_and_flags_survive", Flavour.StaticPie)]
    [InlineData("results_and_errors_of_the_library", Flavour.StaticPie)]
    [InlineData("children_on_the_same_sites", Flavour.StaticPie)]
    [InlineData("registers_and_flags_survive", Flavour.DynamicNonPie)]
    [InlineData("children_on_the_same_sites", Flavour.DynamicNonPie)]
    public void Other_ways_to_link(string name, Flavour flavour) => Run(name, flavour, faults: null);

    [PrivyTheory(Needs.Compiler | Needs.Privy)]
    [InlineData("--rewrite-syscalls", "off")]
    [InlineData("--syscalls", "exit")]
    [InlineData("--trace=/dev/null")]
    public void Not_where_nobody_wants_it(params string[] options)
    {
        using var folder = new TemporaryFolder();
        var result = ProcessRun.Run(Launcher.Command(TestPrograms.Build("sites"), ["results_and_errors_of_the_library"], [.. options, "--stats"]), folder);
        Assert.True(result.ExitCode == 0, result.ToString());
        Assert.Equal(0, Rewritten(result));
    }

    /// <summary>The program that main becomes by exec is run as main was.</summary>
    [PrivyTheory(Needs.Compiler | Needs.Privy)]
    [InlineData("on")]
    [InlineData("off")]
    public void After_exec(string word)
    {
        using var folder = new TemporaryFolder();
        var program = TestPrograms.Build("sites");
        var result = ProcessRun.Run(Launcher.Command("/bin/sh", ["-c", $"exec '{program}' results_and_errors_of_the_library"], "--rewrite-syscalls", word, "--stats"), folder);
        Assert.True(result.ExitCode == 0, result.ToString());
        Assert.Equal(word == "on" && SyscallStaysInRing3.Value, Rewritten(result) > 0);
    }

    [PrivyFact(Needs.Privy)]
    public void A_program_that_soon_ends_is_left_alone()
    {
        using var folder = new TemporaryFolder();
        Assert.Equal(0, Rewritten(ProcessRun.Run(Launcher.Command("/bin/true", [], "--stats"), folder)));
    }

    private static void Run(string name, Flavour flavour, string? faults, params string[] options)
    {
        using var folder = new TemporaryFolder();
        var environment = faults is null ? null : new Dictionary<string, string> { ["PRIVY_FAULTS"] = $"seed={Environment.TickCount},{faults}", ["TESTLIB_PATIENCE"] = "120" };
        var result = ProcessRun.Run(Launcher.Command(TestPrograms.Build("sites", flavour), [name], [.. options, "--stats"]), folder, environment: environment, limit: TimeSpan.FromSeconds(120));
        Assert.True(result.ExitCode == 0 && result.Text == $"OK {name}\n", result.ToString());
        // Without this the test would prove nothing.
        if (!Launcher.IsNative)
            Assert.Equal(SyscallStaysInRing3.Value, Rewritten(result) > 0);
    }

    private static int Rewritten(RunResult result)
    {
        var line = Line().Match(result.Errors);
        Assert.True(line.Success, $"--stats says nothing of sites.\n{result}");
        return int.Parse(line.Groups[1].ValueSpan, CultureInfo.InvariantCulture);
    }

    [GeneratedRegex(@"^privy: system-call sites rewritten: (\d+)$", RegexOptions.Multiline)]
    private static partial Regex Line();
}
