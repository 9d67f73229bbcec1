namespace Privy.Cli.Tests;

public class RunArgumentsTests
{
    [Fact]
    public void A_program_alone()
    {
        var parsed = RunArguments.Parse(["true"]);
        Assert.Null(parsed.Error);
        Assert.Equal(Engine.Kvm, parsed.Engine);
        Assert.Equal("true", parsed.Options!.Program);
        Assert.Empty(parsed.Options.Arguments);
        Assert.Null(parsed.Options.MemoryBytes);
        Assert.Null(parsed.Options.TraceFile);
        Assert.False(parsed.Options.Stats);
    }

    [Fact]
    public void Options_before_the_program_are_ours_and_those_after_it_its_own()
    {
        var parsed = RunArguments.Parse(["--memory", "8G", "--stats", "redis-server", "--port", "7777", "--stats", "--save", ""]);
        Assert.Equal("redis-server", parsed.Options!.Program);
        Assert.Equal(["--port", "7777", "--stats", "--save", ""], parsed.Options.Arguments);
        Assert.Equal(8L << 30, parsed.Options.MemoryBytes);
        Assert.True(parsed.Options.Stats);
    }

    [Theory]
    [InlineData("off", 0L)]
    [InlineData("auto", null)]
    [InlineData("2G", 2L << 30)]
    public void Memory_for_copies_ahead(string value, long? bytes)
    {
        var parsed = RunArguments.Parse(["--precopy", value, "ls"]);
        Assert.Null(parsed.Error);
        Assert.Equal(bytes, parsed.Options!.PrecopyBytes);
    }

    [Fact]
    public void Two_dashes_end_our_options()
    {
        var parsed = RunArguments.Parse(["--engine=native", "--", "--odd-name", "--", "x"]);
        Assert.Equal(Engine.Native, parsed.Engine);
        Assert.Equal("--odd-name", parsed.Options!.Program);
        Assert.Equal(["--", "x"], parsed.Options.Arguments);
    }

    [Fact]
    public void Trace_never_takes_the_next_word()
    {
        var parsed = RunArguments.Parse(["--trace", "ls"]);
        Assert.Equal("-", parsed.Options!.TraceFile);
        Assert.Equal("ls", parsed.Options.Program);
        Assert.Equal("/tmp/a=b", RunArguments.Parse(["--trace=/tmp/a=b", "ls"]).Options!.TraceFile);
    }

    [Theory]
    [InlineData("--help")]
    [InlineData("-h")]
    public void Help(string option) => Assert.True(RunArguments.Parse([option]).ShowHelp);

    [Fact]
    public void System_calls_are_rewritten_unless_somebody_says_no()
    {
        Assert.True(RunArguments.Parse(["ls"]).Options!.RewriteSyscalls);
        Assert.True(RunArguments.Parse(["--rewrite-syscalls", "on", "ls"]).Options!.RewriteSyscalls);
        Assert.False(RunArguments.Parse(["--rewrite-syscalls=off", "ls"]).Options!.RewriteSyscalls);
    }

    [Fact]
    public void Help_after_the_program_is_the_programs()
    {
        var parsed = RunArguments.Parse(["redis-server", "--help"]);
        Assert.False(parsed.ShowHelp);
        Assert.Equal(["--help"], parsed.Options!.Arguments);
    }

    [Theory]
    [InlineData("no program")]
    [InlineData("no program", "--stats")]
    [InlineData("no program", "--")]
    [InlineData("empty", "")]
    [InlineData("--memory needs", "--memory")]
    [InlineData("not a size", "--memory", "much", "ls")]
    [InlineData("not a size", "--memory=", "ls")]
    [InlineData("--precopy needs", "--precopy")]
    [InlineData("not a size", "--precopy=on", "ls")]
    [InlineData("not an engine", "--engine", "qemu", "ls")]
    [InlineData("--engine needs", "--engine")]
    [InlineData("file name", "--trace=", "ls")]
    [InlineData("unknown option '--stat'", "--stat", "ls")]
    [InlineData("unknown option '-m'", "-m", "1G", "ls")]
    [InlineData("takes no value", "--stats=yes", "ls")]
    [InlineData("--rewrite-syscalls needs", "--rewrite-syscalls")]
    [InlineData("'maybe' is not known", "--rewrite-syscalls=maybe", "ls")]
    public void Wrong_command_lines(string reason, params string[] arguments)
    {
        var parsed = RunArguments.Parse(arguments);
        Assert.Null(parsed.Options);
        Assert.Contains(reason, parsed.Error, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', parsed.Error!);
    }
}
