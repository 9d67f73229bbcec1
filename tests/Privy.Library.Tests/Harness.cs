using System.Diagnostics;

namespace Privy.Library.Tests;

/// <summary>Programs that tests start.</summary>
internal static class Harness
{
    /// <summary>The folder with the solution.</summary>
    internal static string Root { get; } = FindRoot();

    /// <summary>Starts a .NET program that lies beside the tests.</summary>
    internal static Process StartAssembly(string name, params string[] arguments) =>
        Start(Environment.ProcessPath!, AppContext.BaseDirectory, [Path.Combine(AppContext.BaseDirectory, name), .. arguments]);

    internal static Process Start(string program, string folder, params string[] arguments)
    {
        var start = new ProcessStartInfo(program) { WorkingDirectory = folder, RedirectStandardOutput = true, RedirectStandardError = true };
        foreach (string argument in arguments)
            start.ArgumentList.Add(argument);
        // What the test host runs with is not for others.
        foreach (string variable in start.Environment.Keys.Where(k => k.StartsWith("MSBUILD", StringComparison.OrdinalIgnoreCase) || k.StartsWith("VSTEST", StringComparison.Ordinal)).ToList())
            start.Environment.Remove(variable);
        return Process.Start(start)!;
    }

    /// <summary>Runs a program to its end.</summary>
    /// <returns>What it has printed.</returns>
    internal static string Run(string program, string folder, params string[] arguments)
    {
        using Process process = Start(program, folder, arguments);
        Task<string> output = process.StandardOutput.ReadToEndAsync();
        Task<string> errors = process.StandardError.ReadToEndAsync();
        if (!process.WaitForExit(TimeSpan.FromMinutes(10)))
        {
            process.Kill(entireProcessTree: true);
            Assert.Fail($"{program} {string.Join(' ', arguments)} did not end.");
        }
        Assert.True(process.ExitCode == 0, $"{program} {string.Join(' ', arguments)}: exit status {process.ExitCode}\n{output.Result}\n{errors.Result}");
        return output.Result;
    }

    private static string FindRoot()
    {
        string? folder = AppContext.BaseDirectory;
        while (folder is not null && !File.Exists(Path.Combine(folder, "Privy.slnx")))
            folder = Path.GetDirectoryName(folder);
        return folder ?? throw new InvalidOperationException($"{AppContext.BaseDirectory} does not lie in the repository.");
    }
}
