namespace Privy.Integration.Tests;

/// <summary>Programs on .NET, compiled just in time and ahead of time.</summary>
public sealed class ManagedProgramTests
{
    private static string Program
    {
        get
        {
            // .../bin/Privy.Integration.Tests/CONFIGURATION/
            var here = new DirectoryInfo(Path.TrimEndingDirectorySeparator(AppContext.BaseDirectory));
            return Path.Combine(here.Parent!.Parent!.FullName, "Privy.ManagedProgram", here.Name, "Privy.ManagedProgram.dll");
        }
    }

    [PrivyTheory(Needs.DotNet)]
    [InlineData("memory")]
    [InlineData("exceptions")]
    [InlineData("processes")]
    [InlineData("timers")]
    [InlineData("sockets")]
    [InlineData("files")]
    [InlineData("threads")]
    [InlineData("signals")]
    [InlineData("code")]
    public void Just_in_time(string name)
    {
        var result = Both.Run(Requirements.Require("dotnet"), ["exec", Program, name], seconds: 120, exitCode: 0);
        Assert.Contains($"OK {name}\n", result.Text, StringComparison.Ordinal);
    }

    /// <summary>A heap and collector threads for each processor, and collections all the time.</summary>
    [PrivyFact(Needs.DotNet)]
    public void Server_garbage_collector() =>
        Both.Run(Requirements.Require("dotnet"), ["exec", Program, "memory", "threads", "exceptions"], seconds: 180, exitCode: 0,
            environment: new Dictionary<string, string> { ["DOTNET_gcServer"] = "1", ["DOTNET_GCgen0size"] = "40000" });

    [PrivyFact(Needs.DotNet)]
    public void An_exception_that_nobody_catches_ends_the_program() => Both.Run(Requirements.Require("dotnet"), ["exec", Program, "no such case"], exitCode: 134);

    /// <summary>A program compiled ahead of time: Privy's own command line.</summary>
    [PrivyFact(Needs.Privy)]
    public void Ahead_of_time()
    {
        var cli = Launcher.Cli()[0];
        Both.Run(cli, ["version"], exitCode: 0);
        Both.Run(cli, ["run", "--help"], exitCode: 0);
        Both.Run(cli, ["run", "--engine", "native", "--", "/bin/sh", "-c", "echo to the output; echo to the errors >&2; exit 7"], exitCode: 7);
    }
}
