using System.Security.Cryptography;
using System.Text;
using System.Text.RegularExpressions;

namespace Privy.Integration.Tests;

/// <summary>How a test program is linked.</summary>
public enum Flavour
{
    Dynamic,
    StaticPie,
    Static,
    DynamicNonPie,
}

/// <summary>Builds the C programs of the folder Programs at first use, and knows the cases in them.</summary>
public static partial class TestPrograms
{
    private static readonly string Sources = Path.Combine(AppContext.BaseDirectory, "Programs");
    private static readonly Lock Building = new();

    /// <summary>The path of the built program. It is kept until its source or the flags change.</summary>
    public static string Build(string name, Flavour flavour = Flavour.Dynamic, params string[] more)
    {
        string[] flags = ["-O1", "-g", "-pthread", "-Wall", "-Wextra", "-fno-strict-aliasing", .. flavour switch
        {
            Flavour.StaticPie => new[] { "-static-pie", "-fPIE" },
            Flavour.Static => ["-static", "-no-pie", "-fno-pie"],
            Flavour.DynamicNonPie => ["-no-pie", "-fno-pie"],
            _ => ["-pie", "-fPIE"],
        }, .. more];
        var source = Path.Combine(Sources, $"{name}.c");
        var text = string.Join(' ', flags) + File.ReadAllText(source) + File.ReadAllText(Path.Combine(Sources, "testlib.h"));
        var hash = Convert.ToHexString(SHA256.HashData(Encoding.UTF8.GetBytes(text)))[..16];
        var folder = Path.Combine(Launcher.Artifacts, "test-programs", hash);
        var program = Path.Combine(folder, name);
        if (File.Exists(program))
            return program;
        // Of several tests that want it, one builds it.
        lock (Building)
            return File.Exists(program) ? program : Compile(source, flags, program);
    }

    private static string Compile(string source, string[] flags, string program)
    {
        var folder = Path.GetDirectoryName(program)!;
        Directory.CreateDirectory(folder);
        var unfinished = $"{program}.{Environment.ProcessId}";
        var result = ProcessRun.Run([Requirements.Require("cc"), .. flags, "-o", unfinished, source, "-lm"], folder, limit: TimeSpan.FromSeconds(120));
        if (result.ExitCode != 0)
            throw new InvalidOperationException($"{source} does not compile.\n{result}");
        File.Move(unfinished, program, overwrite: true);
        return program;
    }

    /// <summary>The names of a program's cases, as theory data, without those that end the process on purpose.</summary>
    public static TheoryData<string> Cases(string name)
    {
        var cases = new TheoryData<string>();
        foreach (var testCase in Names(name))
            cases.Add(testCase);
        return cases;
    }

    /// <summary>The same, as a list.</summary>
    public static IReadOnlyList<string> Names(string name)
    {
        var names = CaseName().Matches(File.ReadAllText(Path.Combine(Sources, $"{name}.c"))).Select(match => match.Groups[1].Value).Where(n => !n.StartsWith("die_", StringComparison.Ordinal)).ToList();
        return names.Count > 0 ? names : throw new InvalidOperationException($"{name}.c has no cases.");
    }

    /// <summary>Runs one case, or all when no name is given, natively and under Privy.</summary>
    public static RunResult Run(string name, string? testCase = null, Flavour flavour = Flavour.Dynamic, int seconds = 60, params string[] options)
    {
        var result = Both.Run(Build(name, flavour), testCase is null ? [] : [testCase], seconds: seconds, exitCode: 0, options: options);
        // A program that prints nothing natively and under Privy would be equal, too.
        Assert.Contains(testCase is null ? "OK " : $"OK {testCase}\n", result.Text, StringComparison.Ordinal);
        return result;
    }

    [GeneratedRegex(@"^(?:CASE|CALL)\((\w+)[,)]", RegexOptions.Multiline)]
    private static partial Regex CaseName();
}
