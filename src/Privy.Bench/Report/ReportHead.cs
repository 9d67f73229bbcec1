using System.Diagnostics;
using System.Globalization;
using System.Reflection;

namespace Privy.Bench.Report;

/// <summary>Where, when and with what a run was made.</summary>
/// <param name="Machine">Processor, memory, kernel.</param>
/// <param name="Kvm">The kind of KVM and what it costs.</param>
/// <param name="Commit">The commit of the sources.</param>
/// <param name="Command">The command line that makes such a report again.</param>
public sealed record ReportHead(string Machine, string Kvm, string Commit, string Command)
{
    /// <summary>When the run began.</summary>
    public string Date { get; } = DateTime.UtcNow.ToString("yyyy-MM-dd HH:mm", CultureInfo.InvariantCulture) + " UTC";

    /// <summary>The commit of the folder that this program lies in, with a mark if files have been changed since; else the one it was built from.</summary>
    public static string FindCommit()
    {
        if (Git("rev-parse", "--short=12", "HEAD") is { } commit)
            return commit + (Git("status", "--porcelain", "--untracked-files=no") is { Length: > 0 } ? ", with changes" : "");
        var version = typeof(ReportHead).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion ?? "";
        return version.IndexOf('+', StringComparison.Ordinal) is > 0 and var plus ? version[(plus + 1)..][..Math.Min(12, version.Length - plus - 1)] : "unknown";
    }

    private static string? Git(params string[] arguments)
    {
        try
        {
            using var process = Process.Start(new ProcessStartInfo("git", ["-C", AppContext.BaseDirectory, .. arguments]) { RedirectStandardOutput = true, RedirectStandardError = true })!;
            process.ErrorDataReceived += (_, _) => { };
            process.BeginErrorReadLine();
            var text = process.StandardOutput.ReadToEnd().Trim();
            process.WaitForExit();
            return process.ExitCode == 0 ? text : null;
        }
        catch (System.ComponentModel.Win32Exception)
        {
            return null;
        }
    }
}
