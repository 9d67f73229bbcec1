namespace Privy.Integration.Tests;

/// <summary>The options of <c>privy run</c>.</summary>
public sealed class CommandLineTests
{
    private static RunResult Run(string[] options, string program, params string[] arguments)
    {
        using var folder = new TemporaryFolder();
        return ProcessRun.Run([.. Launcher.Cli(), "run", .. options, "--", program, .. arguments], folder);
    }

    [PrivyFact(Needs.Privy | Needs.NoKvm)]
    public void Native_engine_needs_no_kvm()
    {
        var result = Run(["--engine", "native"], "/bin/sh", "-c", "echo out; echo err >&2; exit 7");
        Assert.Equal(7, result.ExitCode);
        Assert.Equal("out\n", result.Text);
        Assert.Equal("err\n", Both.WithoutWarnings(result.Errors));
        Assert.Equal(143, Run(["--engine", "native"], "/bin/sh", "-c", "kill -TERM $$").ExitCode);
        Assert.Equal(127, Run(["--engine", "native"], "/does/not/exist").ExitCode);
    }

    [PrivyFact(Needs.Privy)]
    public void Everything_after_the_dashes_is_the_programs()
    {
        var result = Run([], "/bin/echo", "--stats", "--", "--engine", "native", "-x", "");
        Assert.Equal("--stats -- --engine native -x \n", result.Text);
        Assert.Equal("", result.Errors);
    }

    [PrivyFact(Needs.Privy)]
    public void Program_is_looked_up_in_path() => Assert.Equal("found\n", Run([], "echo", "found").Text);

    /// <summary>What ps shows of a program, and what the program finds about itself, is not Privy's own command line.</summary>
    [PrivyFact(Needs.Privy)]
    public void Program_finds_its_own_command_line()
    {
        var result = Run([], "/bin/cat", "/proc/self/cmdline");
        Assert.Equal("/bin/cat\0/proc/self/cmdline\0", result.Text);
    }

    [PrivyFact(Needs.Privy)]
    public void Trace_goes_to_the_error_output()
    {
        var result = Run(["--trace"], "/bin/echo", "traced");
        Assert.Equal("traced\n", result.Text);
        Assert.Contains("write(1", result.Errors, StringComparison.Ordinal);
        Assert.Contains("exit_group(0", result.Errors, StringComparison.Ordinal);
    }

    [PrivyFact(Needs.Privy)]
    public void Trace_goes_to_a_file()
    {
        using var folder = new TemporaryFolder();
        var file = Path.Combine(folder, "trace");
        var result = Run([$"--trace={file}"], "/bin/sh", "-c", "x=$(echo inner); echo $x");
        Assert.Equal("inner\n", result.Text);
        Assert.Equal("", result.Errors);
        var trace = File.ReadAllText(file);
        Assert.Contains("write(1", trace, StringComparison.Ordinal);
        Assert.Contains("exit_group(0", trace, StringComparison.Ordinal);
    }

    [PrivyFact(Needs.Privy)]
    public void Stats_are_printed_at_exit()
    {
        var result = Run(["--stats"], "/bin/sh", "-c", "(echo child); exit 3");
        Assert.Equal(3, result.ExitCode);
        Assert.Equal("child\n", result.Text);
        foreach (var word in new[] { "exits", "faults", "copied", "frames in use", "frames at peak", "snapshot latency" })
            Assert.Contains(word, result.Errors, StringComparison.OrdinalIgnoreCase);
    }

    [PrivyTheory(Needs.Privy | Needs.NoKvm)]
    [InlineData("run")]
    [InlineData("run", "--no-such-option", "--", "/bin/true")]
    [InlineData("run", "--memory", "nonsense", "--", "/bin/true")]
    [InlineData("run", "--engine", "nonsense", "--", "/bin/true")]
    [InlineData("no-such-command")]
    public void Wrong_usage_fails_without_a_stack_trace(params string[] arguments)
    {
        using var folder = new TemporaryFolder();
        var result = ProcessRun.Run([.. Launcher.Cli(), .. arguments], folder);
        Assert.NotEqual(0, result.ExitCode);
        Assert.NotEqual("", result.Errors + result.Text);
        Assert.DoesNotContain("   at ", result.Errors + result.Text, StringComparison.Ordinal);
    }

    /// <summary>A program that wants more memory than it may have gets ENOMEM from mmap, not a crash.</summary>
    [PrivyFact(Needs.Privy | Needs.Perl)]
    public void Memory_limit()
    {
        var result = Run(["--memory", "256M"], "/usr/bin/perl", "-e", "my $x = 'a' x (1 << 30); print length $x");
        Assert.NotEqual(0, result.ExitCode);
        Assert.DoesNotContain("   at Privy", result.Errors, StringComparison.Ordinal);
        Assert.Equal("50000000", Run(["--memory", "1G"], "/usr/bin/perl", "-e", "my $x = 'a' x 50000000; print length $x").Text);
    }
}
