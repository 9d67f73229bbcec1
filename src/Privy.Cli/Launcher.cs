namespace Privy.Cli;

/// <summary>How this program starts itself for another program.</summary>
internal static class Launcher
{
    /// <summary>The command line <c>privy run …options --</c> of this very build.</summary>
    public static IReadOnlyList<string> Run(params string[] options) => [.. Self(), "run", .. options, "--"];

    /// <summary>The command line of this program itself.</summary>
    public static IReadOnlyList<string> Self()
    {
        var self = Environment.ProcessPath ?? throw new InvalidOperationException("The path of this program is unknown.");
        // Started as `dotnet privy.dll`, the process is the host and the program is its first argument.
        var isHost = Path.GetFileNameWithoutExtension(self) == "dotnet";
        return isHost ? [self, Path.Combine(AppContext.BaseDirectory, "privy.dll")] : [self];
    }
}
