using System.Globalization;
using Privy.Bench.Charts;
using Privy.Bench.Framework;

namespace Privy.Bench.SnapshotFrequency;

/// <summary>How many snapshots a second a writer bears.</summary>
public sealed class SnapshotFrequencyBenchmark : IBenchmark
{
    // Microseconds.
    private static readonly int[] Intervals = [1_000, 2_000, 5_000, 10_000, 100_000];

    /// <inheritdoc/>
    public string Name => "snapshot-frequency";

    /// <inheritdoc/>
    public string Title => "Snapshots at a high frequency";

    /// <inheritdoc/>
    public string Description => "A writer at full speed while snapshots are taken every 1 to 100 ms, each read in part and released";

    /// <inheritdoc/>
    public BenchmarkPart Run(BenchmarkContext context)
    {
        ArgumentNullException.ThrowIfNull(context);
        var bytes = context.Choose(64L << 20, 1L << 30, 1L << 30);
        var scan = context.Choose(1L << 20, 4L << 20, 4L << 20);
        // Copies of every page in several snapshots are possible; beyond this fork would fail and not the machine.
        if (bytes * 3 > context.MemoryBytes) throw new BenchException($"{Format.Bytes(bytes * 3)} of memory are needed and {Format.Bytes(context.MemoryBytes)} may be used; free some, or raise --memory");
        int[] intervals = context.Quick ? [10_000, 100_000] : Intervals;
        string[] patterns = context.Quick ? ["uniform"] : ["uniform", "skewed"];
        var sides = context.Sides();
        var run = new FrequencyRun(context, sides);
        run.Measure(bytes, scan, patterns, intervals, rounds: context.Choose(1, 3, 5), milliseconds: context.Choose(300, 1500, 5000));
        if (run.Csv.Count == 0) throw new BenchException(run.Failures.FirstOrDefault() ?? "nothing was measured");

        var part = new BenchmarkPart
        {
            Method = $"One thread writes single words to random pages of {Format.Bytes(bytes)} as fast as it can. Another forks at an interval; each child reads {Format.Bytes(scan)} of its snapshot and ends, which releases it. " +
                "Uniform: every page is as likely; skewed: nine of ten writes go to a sixty-fourth of the pages. Linux runs on 4 KB pages. The share kept is measured against the same process without snapshots.",
            Csv = run.Csv,
        };
        foreach (var pattern in patterns)
        {
            AddTable(part, run, sides, pattern, intervals);
            AddPlot(part, run, sides, pattern, intervals);
        }

        // The goals speak of a gigabyte.
        if (bytes == 1L << 30) AddFigures(part, run, sides, intervals);
        part.Remarks.AddRange(run.Failures);
        part.Remarks.Add("Memory held is what was missing from the machine's available memory at the worst moment, against the phase without snapshots: page tables, copies, and frames that are kept for the next ones. Other programs' memory is in it.");
        part.Remarks.Add("Where children are slower than the interval, at most 16 live at once; a snapshot that is late moves those after it.");
        return part;
    }

    private static void AddTable(BenchmarkPart part, FrequencyRun run, IReadOnlyList<Side> sides, string pattern, int[] intervals)
    {
        var table = new ReportTable($"{char.ToUpperInvariant(pattern[0])}{pattern[1..]} writes: median over the rounds (smallest–largest)", ["a snapshot every", "", "snapshots/s", "writes/s", "speed kept", "memory held", "fork, median"]);
        foreach (var interval in intervals.Prepend(0))
        {
            foreach (var side in sides)
            {
                if (run.Cell(side, pattern, interval) is not { } cell) continue;
                table.Add(
                    interval == 0 ? "(none)" : Format.Time(interval * 1000.0),
                    side.Name,
                    cell.Snapshots.Text(Format.Digits),
                    cell.Writes.Text(w => Format.Digits(w / 1e6) + " M"),
                    cell.Kept.Text(Percent),
                    cell.Held.Text(Format.Bytes),
                    interval == 0 ? "–" : cell.Fork.Text(Format.Time));
            }
        }

        part.Tables.Add(table);
    }

    private static void AddPlot(BenchmarkPart part, FrequencyRun run, IReadOnlyList<Side> sides, string pattern, int[] intervals) =>
        part.Plots.Add(new ReportPlot(pattern, $"Share of its speed that the writer keeps, {pattern} writes, median over the rounds.", new LineChart
        {
            Title = $"speed kept under snapshots, {pattern} writes",
            X = "a snapshot every",
            Y = "share of the speed without snapshots",
            LogX = true,
            XMarks = [.. intervals.Select(i => (double)i)],
            XText = us => Format.TimeMark(us * 1000),
            YText = Percent,
            Curves =
            [
                .. sides.Select(s => new Curve(s.Name, s.Color, [.. intervals.Where(i => run.Cell(s, pattern, i) is not null).Select(i => ((double)i, run.Cell(s, pattern, i)!.Kept.Median))])),
            ],
        }.Draw()));

    private void AddFigures(BenchmarkPart part, FrequencyRun run, IReadOnlyList<Side> sides, int[] intervals)
    {
        foreach (var side in sides)
        {
            foreach (var interval in intervals)
            {
                if (run.Cell(side, "uniform", interval) is not { } cell) continue;
                part.Figures[string.Create(CultureInfo.InvariantCulture, $"{Name}.rate.{side.Key}.{interval}")] = cell.Snapshots.Median;
                part.Figures[string.Create(CultureInfo.InvariantCulture, $"{Name}.kept.{side.Key}.{interval}")] = cell.Kept.Median;
            }
        }
    }

    private static string Percent(double share) => (share * 100).ToString(share < 0.1 ? "0.0" : "0", CultureInfo.InvariantCulture) + "%";
}
