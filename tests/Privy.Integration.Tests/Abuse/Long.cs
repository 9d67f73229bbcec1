using System.Globalization;

namespace Privy.Integration.Tests;

/// <summary>
/// Tests that a command of the project (<c>./privy fuzz</c>, <c>./privy stress</c>) runs for long: among the others they are short. What they did is also
/// written to a file, which the command prints.
/// </summary>
internal static class Long
{
    /// <summary>How many inputs to try.</summary>
    public static int Count(int otherwise) => Number("PRIVY_FUZZ_COUNT") ?? otherwise;

    /// <summary>Seed of what is random.</summary>
    public static int Seed { get; } = Number("PRIVY_TEST_SEED") ?? Environment.TickCount & 0xffffff;

    /// <summary>How long to run.</summary>
    public static TimeSpan Duration(TimeSpan otherwise) =>
        double.TryParse(Environment.GetEnvironmentVariable("PRIVY_STRESS_MINUTES"), CultureInfo.InvariantCulture, out var minutes) ? TimeSpan.FromMinutes(minutes) : otherwise;

    /// <summary>Says what a run did.</summary>
    public static void Report(string name, string text)
    {
        var folder = Path.Combine(Launcher.Artifacts, "abuse");
        Directory.CreateDirectory(folder);
        File.WriteAllText(Path.Combine(folder, name + ".txt"), text + "\n");
    }

    /// <summary>What tells Privy's own failure from the program's in an error output.</summary>
    public static bool IsDefect(string errors) =>
        errors.Contains("defect in Privy", StringComparison.Ordinal) || errors.Contains("Unhandled exception", StringComparison.OrdinalIgnoreCase)
        || errors.Contains("Process terminated", StringComparison.Ordinal) || errors.Contains("   at Privy.", StringComparison.Ordinal);

    private static int? Number(string variable) =>
        int.TryParse(Environment.GetEnvironmentVariable(variable), CultureInfo.InvariantCulture, out var value) ? value : null;
}
