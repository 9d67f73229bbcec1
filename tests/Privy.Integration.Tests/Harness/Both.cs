using System.Text;
using System.Text.RegularExpressions;

namespace Privy.Integration.Tests;

/// <summary>Runs a program natively and under Privy and compares everything it says.</summary>
public static partial class Both
{
    /// <summary>
    /// Runs the program twice, each time in a new folder that <paramref name="prepare"/> fills, and fails unless output, error output and exit
    /// status are equal. The result of the run under Privy comes back for further checks.
    /// </summary>
    public static RunResult Run(string program, IEnumerable<string> arguments, byte[]? input = null, IReadOnlyDictionary<string, string>? environment = null,
        int seconds = 60, Action<string>? prepare = null, int? exitCode = null, params string[] options)
    {
        var list = arguments.ToList();
        var native = One([program, .. list], input, environment, seconds, prepare);
        if (exitCode is { } expected && native.ExitCode != expected)
            Assert.Fail($"Natively the exit status should be {expected}: the test itself is wrong here.\n{native}");
        var privy = One(Launcher.Command(program, list, options), input, environment, seconds, prepare);
        var nativeErrors = WithoutWarnings(native.Errors);
        var errors = WithoutWarnings(privy.Errors);

        var difference = new StringBuilder();
        if (native.ExitCode != privy.ExitCode)
            difference.AppendLine($"Exit status {privy.ExitCode} instead of {native.ExitCode}.");
        if (!native.Output.AsSpan().SequenceEqual(privy.Output))
            difference.AppendLine($"Standard output differs: {FirstDifference(native.Output, privy.Output)}");
        if (nativeErrors != errors)
            difference.AppendLine($"Error output differs: {FirstDifference(Encoding.UTF8.GetBytes(nativeErrors), Encoding.UTF8.GetBytes(errors))}");
        if (privy.LeftOver.Count > native.LeftOver.Count)
            difference.AppendLine($"Processes were left behind: {string.Join("; ", privy.LeftOver)}");
        if (difference.Length > 0)
            Assert.Fail($"{program} {string.Join(' ', list)}\n{difference}==== natively: {native}\n==== under Privy: {privy}");
        return privy;
    }

    /// <summary>Runs a script with bash natively and under Privy.</summary>
    public static RunResult Bash(string script, int seconds = 60, Action<string>? prepare = null, int? exitCode = 0) =>
        Run("/bin/bash", ["-c", script], seconds: seconds, prepare: prepare, exitCode: exitCode);

    /// <summary>Error output without Privy's own warnings (one line each: "privy: warning...", or "...; the program gets ENOSYS" for something unsupported) and without notes of a test program.</summary>
    public static string WithoutWarnings(string errors) => Warning().Replace(errors, "");

    [GeneratedRegex("^(privy: warning|privy: .*; the program gets E|note:).*\n?", RegexOptions.Multiline)]
    private static partial Regex Warning();

    private static RunResult One(IReadOnlyList<string> command, byte[]? input, IReadOnlyDictionary<string, string>? environment, int seconds, Action<string>? prepare)
    {
        using var folder = new TemporaryFolder();
        prepare?.Invoke(folder);
        return ProcessRun.Run(command, folder, input, environment, TimeSpan.FromSeconds(seconds));
    }

    private static string FirstDifference(byte[] expected, byte[] actual)
    {
        var same = expected.AsSpan().CommonPrefixLength(actual);
        return $"byte {same} (of {expected.Length} natively, {actual.Length} under Privy): \"{Near(expected, same)}\" became \"{Near(actual, same)}\"";
    }

    private static string Near(byte[] bytes, int at) => Encoding.Latin1.GetString(bytes.AsSpan(Math.Max(0, at - 20), Math.Min(80, bytes.Length - Math.Max(0, at - 20)))).Replace("\n", "\\n", StringComparison.Ordinal);
}
