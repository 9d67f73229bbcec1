using Privy.Bench;
using Spectre.Console;

namespace Privy.Cli;

/// <summary><c>privy bench fork-latency</c>.</summary>
internal static class ForkLatencyCommand
{
    public static int Run(long[] sizes, int rounds, string? output, string temporaryDirectory, CancellationToken cancellation)
    {
        if (!Directory.Exists(temporaryDirectory)) throw new BenchException($"--temporary: {temporaryDirectory} is not a directory");
        var program = RedisServer.FindInstalled() ?? throw new BenchException("no redis-server in PATH; install it (Debian: apt-get install redis-server)");
        var benchmark = Terminal.WithProgress("", report =>
        {
            var run = new ForkLatencyBenchmark { Sizes = sizes, Rounds = rounds, Program = program, PrivyLauncher = Launcher.Run(), TemporaryDirectory = temporaryDirectory, Progress = report };
            return (Definition: run, Rows: run.Run(cancellation));
        });

        var table = new Table().Border(Terminal.Out.Profile.Capabilities.Ansi ? TableBorder.Rounded : TableBorder.Ascii2);
        table.AddColumn("data");
        foreach (var name in (ReadOnlySpan<string>)["native, median", "native, max", "Privy, median", "Privy, max", "ratio"]) table.AddColumn(new TableColumn(name).RightAligned());
        foreach (var row in benchmark.Rows)
        {
            table.AddRow(
                MemorySize.Format(row.DataBytes),
                ForkLatencyBenchmark.Cell(row.Native, max: false),
                ForkLatencyBenchmark.Cell(row.Native, max: true),
                ForkLatencyBenchmark.Cell(row.Privileged, max: false),
                ForkLatencyBenchmark.Cell(row.Privileged, max: true),
                ForkLatencyBenchmark.Ratio(row));
        }

        Terminal.Out.WriteLine($"latest_fork_usec of {program} {RedisServer.Version(program)}, {rounds} snapshots at each size, {DateTime.UtcNow:yyyy-MM-dd}");
        Terminal.Out.WriteLine(Machine.Describe());
        Terminal.Out.Write(table);
        foreach (var row in benchmark.Rows)
            if (row.Note is not null) Terminal.Out.WriteLine($"{MemorySize.Format(row.DataBytes)}: {row.Note}");

        if (output is not null)
        {
            if (Path.GetDirectoryName(output) is { Length: > 0 } directory) Directory.CreateDirectory(directory);
            File.WriteAllText(output, benchmark.Definition.ToMarkdown(benchmark.Rows));
            Terminal.Out.WriteLine("written to " + output);
        }

        return benchmark.Rows.All(r => r.Native is not null && r.Privileged is not null) ? 0 : 1;
    }
}
