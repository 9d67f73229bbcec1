using System.Diagnostics;
using System.Globalization;
using System.Text;

namespace Privy.Library.Tests;

/// <summary>A process that writes checkpoints is killed again and again; what it leaves must be a state that it had committed.</summary>
internal static class Kills
{
    /// <summary>How often, if the user says so.</summary>
    internal static int? Count => int.TryParse(Environment.GetEnvironmentVariable("PRIVY_TEST_KILLS"), out int kills) ? kills : null;

    /// <summary>The test host is dotnet, and so is the process that is killed: the first argument is this assembly. Compiled ahead of time it is the program itself.</summary>
    internal static string[] Program => typeof(Program).Assembly.Location is { Length: > 0 } path ? [path] : [];

    /// <param name="folder">For the checkpoints.</param>
    /// <param name="kills">How often.</param>
    /// <param name="engine">Which engine the process must have; null: whichever.</param>
    /// <param name="program">What is started, and killed.</param>
    /// <param name="arguments">Its arguments before the folder.</param>
    internal static void Run(string folder, int kills, SnapshotEngine? engine, string program, params string[] arguments)
    {
        ulong seed = ulong.TryParse(Environment.GetEnvironmentVariable("PRIVY_TEST_SEED"), out ulong given) ? given : (ulong)Random.Shared.NextInt64();
        var random = new Random64(seed);
        long committed = 0;
        long leftovers = 0;
        for (int kill = 0; kill < kills; kill++)
        {
            var output = new StringBuilder();
            // Most of the time it is killed at work, sometimes while it starts or restores.
            bool early = kill % 10 == 9;
            int status = StartAndKill(folder, program, arguments, early, ref random, output);
            Assert.True(status == 137, $"seed {seed}, kill {kill}: exit status {status}: {output}");
            Assert.True(early || engine is null || output.ToString().Split('\n')[0].EndsWith($"{engine} engine", StringComparison.Ordinal), output.ToString());
            foreach (string said in output.ToString().Split('\n'))
            {
                // The last line may be cut.
                if (said.StartsWith("committed ", StringComparison.Ordinal) && output.ToString().Contains(said + "\n", StringComparison.Ordinal))
                    committed = Math.Max(committed, long.Parse(said.AsSpan(10), CultureInfo.InvariantCulture));
            }
            leftovers += Directory.GetFiles(folder, "*.tmp").Length;
            if (Directory.GetFiles(folder, "*" + Checkpoints.CheckpointFormat.Extension).Length == 0)
            {
                Assert.Equal(0, committed);
                continue;
            }
            using SnapshotRegion region = SnapshotRegion.Create(Tests.Program.Length, new() { AllowCopying = true });
            using var checkpointer = new Checkpointer(region, folder);
            RestoredCheckpoint restored = checkpointer.Restore();
            Assert.True(restored.Problems.Count == 0, $"seed {seed}, kill {kill}: {string.Join(' ', restored.Problems)}");
            // It may have been killed between the commit and saying so.
            Assert.True(restored.Number == committed || restored.Number == committed + 1, $"seed {seed}, kill {kill}: restored {restored.Number}, committed {committed}");
            Tests.Program.Check(region, restored.Number);
            committed = restored.Number;
        }
        string result = $"{kills} kills of {Path.GetFileName(program)} {string.Join(' ', arguments.Select(Path.GetFileName))}, seed {seed}: {committed} checkpoints committed, {leftovers} kills hit a file that was being written";
        Console.WriteLine(result);
        if (Environment.GetEnvironmentVariable("PRIVY_TEST_KILLS_REPORT") is { Length: > 0 } report)
            File.AppendAllText(report, result + "\n");
        if (kills < 100)
            return;
        Assert.True(committed > kills / 2, result);
        // The kills must have hit what they were to hit.
        Assert.True(leftovers > kills / 20, result);
    }

    private static int StartAndKill(string folder, string program, string[] arguments, bool early, ref Random64 random, StringBuilder output)
    {
        var start = new ProcessStartInfo(program) { RedirectStandardOutput = true, RedirectStandardError = true };
        foreach (string argument in (string[])[.. arguments, folder])
            start.ArgumentList.Add(argument);
        start.Environment["DOTNET_TieredPGO"] = "0";
        start.Environment["DOTNET_TieredCompilation"] = "1";
        using Process process = Process.Start(start)!;
        // That it has restored, and a few commits: on a busy machine it gets nowhere in any fixed time.
        for (int lines = early ? 0 : 1 + random.Below(4); lines > 0 && process.StandardOutput.ReadLine() is { } line; lines--)
            output.AppendLine(line);
        Thread.Sleep(early ? random.Below(150) : random.Below(30));
        process.Kill();
        output.Append(process.StandardOutput.ReadToEnd());
        output.Append(process.StandardError.ReadToEnd());
        process.WaitForExit();
        return process.ExitCode;
    }
}
