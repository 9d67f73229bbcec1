namespace Privy.Integration.Tests;

/// <summary>Knows how a program is started under Privy.</summary>
/// <remarks>
/// <c>PRIVY_CLI</c> names another command-line program than the one built with these tests; <c>PRIVY_CLI_MODE=native</c> starts every
/// program directly, which checks the tests themselves.
/// </remarks>
public static class Launcher
{
    /// <summary>Nothing goes through Privy; programs are started directly.</summary>
    public static bool IsNative { get; } = Environment.GetEnvironmentVariable("PRIVY_CLI_MODE") == "native";

    /// <summary>The root of the repository: the folder with the solution.</summary>
    public static string Root { get; } = FindRoot();

    /// <summary>The build output folder.</summary>
    public static string Artifacts => Path.Combine(Root, "artifacts");

    /// <summary>The command line that starts <paramref name="program"/> under Privy, with options for <c>privy run</c>.</summary>
    public static string[] Command(string program, IEnumerable<string> arguments, params string[] options) =>
        IsNative ? [program, .. arguments] : [.. Cli(), "run", .. options, "--", program, .. arguments];

    /// <summary>The command line of the CLI itself.</summary>
    public static string[] Cli()
    {
        var path = Environment.GetEnvironmentVariable("PRIVY_CLI");
        if (string.IsNullOrEmpty(path))
            path = Candidates().FirstOrDefault(File.Exists)
                ?? throw new InvalidOperationException("The command-line program is not built: build src/Privy.Cli, or set PRIVY_CLI to its path.");
        return path.EndsWith(".dll", StringComparison.Ordinal) ? ["dotnet", path] : [path];
    }

    private static IEnumerable<string> Candidates() => [Path.Combine(Artifacts, "privy", "privy")];

    private static string FindRoot()
    {
        for (var folder = new DirectoryInfo(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
            if (File.Exists(Path.Combine(folder.FullName, "Privy.slnx")))
                return folder.FullName;
        return Directory.GetCurrentDirectory();
    }
}
