using System.Globalization;
using Privy.Bench.Framework;

namespace Privy.Bench.SnapshotFrequency;

/// <summary>What was measured at one interval.</summary>
internal sealed class FrequencyCell
{
    /// <summary>Writes per second.</summary>
    public Sample Writes { get; } = new();

    /// <summary>Writes per second as a share of those without snapshots in the same process.</summary>
    public Sample Kept { get; } = new();

    /// <summary>Snapshots per second.</summary>
    public Sample Snapshots { get; } = new();

    /// <summary>Median time of fork in nanoseconds.</summary>
    public Sample Fork { get; } = new();

    /// <summary>Memory taken beyond that of the phase without snapshots, in bytes.</summary>
    public Sample Held { get; } = new();
}

/// <summary>The measurements of <see cref="SnapshotFrequencyBenchmark"/>.</summary>
internal sealed class FrequencyRun(BenchmarkContext context, IReadOnlyList<Side> sides)
{
    private readonly Dictionary<(string Side, string Writes, int Interval), FrequencyCell> _cells = [];

    public CsvTable Csv { get; } = new("side", "writes", "round", "interval_us", "writes_per_second", "share_kept", "snapshots_per_second", "fork_median_ns", "fork_max_ns", "memory_held_bytes");

    public List<string> Failures { get; } = [];

    public FrequencyCell? Cell(Side side, string writes, int interval) => _cells.GetValueOrDefault((side.Key, writes, interval));

    public void Measure(long bytes, long scan, IReadOnlyList<string> patterns, IReadOnlyList<int> intervals, int rounds, int milliseconds)
    {
        var (done, total) = (0, rounds * patterns.Count * sides.Count);
        for (var round = 0; round < rounds; round++)
        {
            foreach (var pattern in patterns)
            {
                foreach (var side in sides)
                {
                    var share = (double)done++ / total;
                    var part = 1.0 / total / (intervals.Count + 1);
                    var phase = 0;
                    using var memory = new MemorySampler();
                    try
                    {
                        var run = WorkloadProcess.Run(
                            context,
                            side,
                            "writers-and-snapshots",
                            Arguments.Of(("bytes", bytes), ("pages", side.Key == Side.Native.Key ? "small" : "huge"), ("writes", pattern), ("scan", scan), ("milliseconds", milliseconds), ("intervals", "0," + string.Join(',', intervals))),
                            name =>
                            {
                                memory.Begin(name);
                                context.Progress($"{side.Name}, {pattern} writes, {(name == "0" ? "no snapshots" : "every " + Format.Time(double.Parse(name, CultureInfo.InvariantCulture) * 1000))}", share + part * phase++);
                            },
                            limit: TimeSpan.FromSeconds(30 + (intervals.Count + 1) * milliseconds * 3 / 1000.0));
                        Keep(run, side, pattern, round, memory);
                    }
                    catch (BenchException e)
                    {
                        context.Cancellation.ThrowIfCancellationRequested();
                        Failures.Add(e.Message);
                    }
                }
            }
        }
    }

    private void Keep(WorkloadProcess run, Side side, string pattern, int round, MemorySampler memory)
    {
        var lines = run.Lines("phase");
        var alone = lines[0][1];
        foreach (var line in lines)
        {
            var interval = (int)Math.Round(line[0] * 1000);
            if (!_cells.TryGetValue((side.Key, pattern, interval), out var cell)) _cells[(side.Key, pattern, interval)] = cell = new FrequencyCell();
            var held = memory.Least("0") is { } before && memory.Least(interval.ToString(CultureInfo.InvariantCulture)) is { } least ? Math.Max(0, before - least) : 0;
            cell.Writes.Add(line[1]);
            cell.Kept.Add(line[1] / alone);
            cell.Snapshots.Add(line[2]);
            cell.Fork.Add(line[3]);
            cell.Held.Add(held);
            Csv.Add(side.Key, pattern, round, interval, line[1], line[1] / alone, line[2], line[3], line[4], held);
        }
    }
}
