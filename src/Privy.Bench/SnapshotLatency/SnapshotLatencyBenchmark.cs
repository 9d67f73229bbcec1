using Privy.Bench.Charts;
using Privy.Bench.Framework;

namespace Privy.Bench.SnapshotLatency;

/// <summary>How long fork keeps its caller, by size of memory.</summary>
public sealed class SnapshotLatencyBenchmark : IBenchmark
{
    private const long Gigabyte = 1L << 30;
    private static readonly Side Protect = new("write-protect", "write-protecting each 4 KB page (mprotect)", "#3a8f5c", []);

    /// <inheritdoc/>
    public string Name => "snapshot-latency";

    /// <inheritdoc/>
    public string Title => "Snapshot latency";

    /// <inheritdoc/>
    public string Description => "How long fork keeps its caller, by size of memory: Linux with 4 KB and with huge pages, and Privy";

    /// <inheritdoc/>
    public BenchmarkPart Run(BenchmarkContext context)
    {
        ArgumentNullException.ThrowIfNull(context);
        long[] wanted = context.Choose<long[]>([64 << 20, 128 << 20], Doubling(), Doubling());
        var sizes = wanted.Where(s => s <= context.MemoryBytes).ToArray();
        if (sizes.Length == 0) throw new BenchException($"{Format.Bytes(wanted[0])} of memory are needed and {Format.Bytes(context.MemoryBytes)} may be used; free some, or raise --memory");

        var run = new SnapshotLatencyRun(context, [Side.Native, Side.NativeHuge, .. context.HasPrivy ? (Side[])[context.Privy()] : []]);
        run.Measure(sizes, rounds: context.Choose(1, 3, 5), forks: context.Choose(3, 7, 15));

        var part = new BenchmarkPart
        {
            Method = "A program touches every page of its memory and calls fork again and again; the child ends at once, and between two calls the parent writes to a thousand random pages. " +
                "Measured is the time from the call to its return in the parent. The three programs run one after the other at each size, in several rounds.",
            Csv = run.Csv,
        };
        List<Side> rows = [.. run.Sides];
        if (run.Times.Keys.Any(k => k.Side == Protect.Key)) rows.Add(Protect);
        AddTable(part, run, sizes, rows);
        AddPlot(part, run, sizes, rows);
        AddFigures(part, run, sizes);
        AddRemarks(part, run, wanted, sizes);
        return part;
    }

    private static long[] Doubling() => [.. Enumerable.Range(0, 7).Select(i => Gigabyte / 4 << i)];

    private static void AddTable(BenchmarkPart part, SnapshotLatencyRun run, long[] sizes, List<Side> rows)
    {
        var table = new ReportTable("Time of fork in the parent: median (smallest–largest)", ["memory", .. rows.Select(r => r.Name), "4 KB pages / Privy", "huge pages / Privy"]);
        foreach (var size in sizes)
            table.Add([Format.Bytes(size), .. rows.Select(r => run.Sample(r, size).Text(Format.Time)), Ratio(run, size, Side.Native), Ratio(run, size, Side.NativeHuge)]);
        part.Tables.Add(table);
    }

    private static string Ratio(SnapshotLatencyRun run, long size, Side native) =>
        run.Sample(Side.Privy, size) is { Count: > 0 } privy ? Format.Times(run.Sample(native, size).Median / privy.Median) : "–";

    private static void AddPlot(BenchmarkPart part, SnapshotLatencyRun run, long[] sizes, List<Side> rows)
    {
        var curves = new List<Curve>();
        var model = new ReportTable("Model: cost per 2 MB, fitted to the medians above, and what it makes of larger memories (not measured)", ["", "cost per 2 MB", "128 GB", "1 TB"]);
        foreach (var side in rows)
        {
            var points = sizes.Where(s => run.Sample(side, s).Count > 0).Select(s => (X: (double)s, Y: run.Sample(side, s).Median)).ToArray();
            curves.Add(new Curve(side.Name, side.Color, [.. points.Select(p => (p.X / Gigabyte, p.Y))]));
            if (points.Length < 3) continue;
            var line = LinearModel.Fit(points);
            model.Add(side.Name, Format.Time(line.Slope * (2 << 20)), Format.Time(line.At(128.0 * Gigabyte)), Format.Time(line.At(1024.0 * Gigabyte)));
            curves.Add(new Curve(side.Name + ", model", side.Color, [.. Enumerable.Range(0, 60).Select(i => sizes[^1] * Math.Pow(1024.0 * Gigabyte / sizes[^1], i / 59.0)).Select(b => (b / Gigabyte, line.At(b)))], IsModel: true));
        }

        if (model.Rows.Count > 0) part.Tables.Add(model);
        part.Plots.Add(new ReportPlot("", "Time of fork in the parent by size of memory; dashed: the model, not measured.", new LineChart
        {
            Title = "fork by size of memory",
            X = "memory",
            Y = "time of fork",
            Curves = curves,
            LogX = true,
            LogY = true,
            XMarks = [0.0625, 0.25, 1, 4, 16, 64, 256, 1024],
            XText = gb => gb < 1 ? ChartStyle.Number(gb * 1024) + " MB" : gb < 1024 ? ChartStyle.Number(gb) + " GB" : "1 TB",
            YText = Format.TimeMark,
        }.Draw()));
    }

    private static void AddFigures(BenchmarkPart part, SnapshotLatencyRun run, long[] sizes)
    {
        foreach (var size in sizes)
            foreach (var side in run.Sides) part.Figures[Figure(side, size)] = run.Sample(side, size).Median;
        part.Figures["snapshot-latency.largest"] = sizes[^1];
    }

    /// <summary>The figure of a side's median at a size.</summary>
    internal static string Figure(Side side, long size) => $"snapshot-latency.{side.Key}.{size >> 20}";

    private static void AddRemarks(BenchmarkPart part, SnapshotLatencyRun run, long[] wanted, long[] sizes)
    {
        if (sizes.Length < wanted.Length) part.Remarks.Add($"Sizes above {Format.Bytes(sizes[^1])} were left out: the memory that may be used ends before {Format.Bytes(wanted[sizes.Length])}.");
        if (run.HugeShare is < 0.9) part.Remarks.Add($"Only {run.HugeShare:P0} of the memory was in huge pages where huge pages were asked for; this kernel's setting is '{Machine.Selected("/sys/kernel/mm/transparent_hugepage/enabled") ?? "none"}'.");
        part.Remarks.Add("An epoch snapshot (the paper's Fig. 13) write-protects every entry of the page tables. Linux offers no such call; as its stand-in, mprotect to read-only over the whole memory does the same work on 4 KB entries, without making a snapshot.");
        part.Remarks.Add("The model assumes that the cost goes on growing by the same amount per 2 MB.");
    }
}
