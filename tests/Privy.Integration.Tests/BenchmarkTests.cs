using System.Globalization;

namespace Privy.Integration.Tests;

/// <summary><c>privy bench</c>, in its quick form: does it leave a report, pictures, and numbers for both sides? What the numbers are is not looked at.</summary>
public sealed class BenchmarkTests
{
    [PrivyTheory(Needs.Privy)]
    [InlineData("snapshot-latency")]
    [InlineData("fault-latency")]
    [InlineData("snapshot-frequency")]
    [InlineData("syscall-cost")]
    [InlineData("elevation")]
    [InlineData("process-start")]
    public void Benchmark_leaves_a_report(string name) => Run(name);

    [PrivyTheory(Needs.Privy | Needs.Redis)]
    [InlineData("redis-tail")]
    [InlineData("redis-throughput")]
    public void Redis_benchmark_leaves_a_report(string name) => Run(name);

    /// <summary>What was finished before Ctrl-C is in the report, and nothing goes on running.</summary>
    [PrivyFact(Needs.Privy)]
    public void Interrupted_run_leaves_the_finished_parts()
    {
        using var folder = new TemporaryFolder();
        var report = Path.Combine(folder, "out", "report.html");
        using var run = new ProcessRun([.. Launcher.Cli(), "bench", "all", "--quick", "--output", Path.Combine(folder, "out")], folder);
        for (var i = 0; i < 1200 && !File.Exists(report) && !run.HasExited; i++) Thread.Sleep(50);
        // Into the next benchmark, which has started programs.
        Thread.Sleep(500);
        run.Signal(Native.SIGINT);
        var result = run.Wait(TimeSpan.FromSeconds(60));
        Assert.True(result.ExitCode == 130, result.ToString());
        Assert.Empty(result.LeftOver);
        var html = File.ReadAllText(report);
        Assert.Contains("<h2 id=\"snapshot-latency\">", html, StringComparison.Ordinal);
        Assert.EndsWith("</html>\n", html, StringComparison.Ordinal);
        Assert.Contains("interrupted", result.Errors, StringComparison.Ordinal);
    }

    [PrivyTheory(Needs.Privy | Needs.NoKvm)]
    [InlineData("no-such-benchmark")]
    [InlineData("elevation", "--memory", "nonsense")]
    [InlineData("elevation", "--quick", "--memory", "1M")]
    [InlineData("all", "--quick", "--full")]
    public void Wrong_usage_says_what_is_wrong(params string[] arguments)
    {
        using var folder = new TemporaryFolder();
        var result = ProcessRun.Run([.. Launcher.Cli(), "bench", .. arguments], folder);
        Assert.NotEqual(0, result.ExitCode);
        Assert.Contains("privy: ", result.Errors, StringComparison.Ordinal);
        Assert.DoesNotContain("   at ", result.Errors + result.Text, StringComparison.Ordinal);
    }

    private static void Run(string name)
    {
        using var folder = new TemporaryFolder();
        var output = Path.Combine(folder, "out");
        var result = ProcessRun.Run([.. Launcher.Cli(), "bench", name, "--quick", "--memory", "1G", "--output", output], folder, limit: TimeSpan.FromMinutes(3));
        Assert.True(result.ExitCode == 0, result.ToString());
        Assert.Empty(result.LeftOver);

        var files = Path.Combine(output, "bench");
        var lines = File.ReadAllLines(Path.Combine(files, name + ".csv"));
        var side = Array.IndexOf(lines[0].Split(','), "side");
        Assert.True(side >= 0, lines[0]);
        foreach (var wanted in (string[])["native", "privy"])
        {
            var rows = lines.Skip(1).Select(l => l.Split(',')).Where(cells => cells[side] == wanted).ToArray();
            Assert.True(rows.Length > 0, $"{name}: no row for {wanted}\n{result}");
            // Names of sides and calls are no numbers; a row without any above 0 measured nothing.
            Assert.All(rows, cells => Assert.Contains(cells, cell => double.TryParse(cell, CultureInfo.InvariantCulture, out var number) && number > 0));
        }

        var pictures = Directory.GetFiles(files, name + "*.png");
        Assert.NotEmpty(pictures);
        Assert.All(pictures, picture => Assert.Equal([0x89, (byte)'P', (byte)'N', (byte)'G'], File.ReadAllBytes(picture)[..4]));
        var html = File.ReadAllText(Path.Combine(files, name + ".html"));
        Assert.Contains($"<h2 id=\"{name}\">", html, StringComparison.Ordinal);
        Assert.Equal(pictures.Length, html.Split("data:image/png;base64,").Length - 1);
        // All of it is inside: nothing is loaded from anywhere.
        Assert.DoesNotContain("src=\"http", html, StringComparison.Ordinal);
        Assert.Contains("Privy", html, StringComparison.Ordinal);
    }
}
