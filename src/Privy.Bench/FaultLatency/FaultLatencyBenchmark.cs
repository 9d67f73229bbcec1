using Privy.Bench.Charts;
using Privy.Bench.Framework;

namespace Privy.Bench.FaultLatency;

/// <summary>What the first write to a page costs after a snapshot.</summary>
public sealed class FaultLatencyBenchmark : IBenchmark
{
    /// <inheritdoc/>
    public string Name => "fault-latency";

    /// <inheritdoc/>
    public string Title => "First write to a page after a snapshot";

    /// <inheritdoc/>
    public string Description => "What the first write to each page costs while a forked child holds a snapshot: Linux copy-on-write and Privy";

    /// <inheritdoc/>
    public BenchmarkPart Run(BenchmarkContext context)
    {
        ArgumentNullException.ThrowIfNull(context);
        var cases = Cases(context);
        var bytes = context.Choose(16L << 20, 128L << 20, 512L << 20);
        if (bytes * 3 > context.MemoryBytes) throw new BenchException($"{Format.Bytes(bytes * 3)} of memory are needed and {Format.Bytes(context.MemoryBytes)} may be used; free some, or raise --memory");
        var sides = context.Sides();
        var run = new FaultLatencyRun(context, sides);
        run.Measure(cases, bytes, rounds: context.Choose(1, 3, 5), turns: context.Choose(1, 2, 4), limitMilliseconds: context.Choose(1000, 3000, 20_000));
        if (run.Csv.Count == 0) throw new BenchException(run.Failures.FirstOrDefault() ?? "nothing was measured");

        var part = new BenchmarkPart
        {
            Method = $"A program touches {Format.Bytes(bytes)} of memory and forks. While the child lives, each page is written to once, in a random order, by one or two threads; the cycle counter is read around each write. " +
                "The child computes without touching that memory (idle), waits in a system call (in the host), or reads the memory from end to end again and again (scanning). Linux runs on 4 KB pages.",
            Csv = run.Csv,
        };
        AddTable(part, run, cases, sides);
        AddPlot(part, run, cases, sides, "mean", "mean");
        AddPlot(part, run, cases, sides, "p99.9", "p999");
        foreach (var where in cases)
            foreach (var side in sides)
                if (run.Sample(where, side, "mean") is { Count: > 0 } mean) part.Figures[$"{Name}.mean.{side.Key}.{where.Key}"] = mean.Median;
        part.Remarks.AddRange(run.Failures);
        part.Remarks.Add("A write is measured from before to after it, so that what the processor did in between is in it, too: interrupts, and other programs' turns.");
        if (Environment.ProcessorCount < 3) part.Remarks.Add($"Two writers and a busy reader are three threads on {Environment.ProcessorCount} processors: there the high percentiles are those of waiting for a turn.");
        return part;
    }

    /// <summary>The cases of a run; the goals look at all of them.</summary>
    internal static IReadOnlyList<FaultCase> AllCases { get; } =
    [
        .. from writers in (int[])[1, 2] from reader in (string[])["idle", "host", "scan"] select new FaultCase(writers, reader, "random"),
        new FaultCase(1, "host", "sequential"),
    ];

    private static IReadOnlyList<FaultCase> Cases(BenchmarkContext context) => context.Quick ? [AllCases[1], AllCases[2]] : AllCases;

    private static void AddTable(BenchmarkPart part, FaultLatencyRun run, IReadOnlyList<FaultCase> cases, IReadOnlyList<Side> sides)
    {
        var table = new ReportTable("First write to a page: median over the rounds (smallest–largest)", ["", "", .. FaultLatencyRun.Measures, "mean, cycles", "mean against native"]);
        foreach (var where in cases)
        {
            foreach (var side in sides)
            {
                var mean = run.Sample(where, side, "mean");
                var native = run.Sample(where, Side.Native, "mean");
                var ratio = side == Side.Native || mean.Count == 0 || native.Count == 0 ? (double?)null : mean.Median / native.Median;
                table.Add([where.Name, side.Name, .. FaultLatencyRun.Measures.Select(m => run.Sample(where, side, m).Text(v => Format.Time(v / run.Frequency))), mean.Text(Format.Whole), Format.Times(ratio)]);
            }
        }

        part.Tables.Add(table);
    }

    private static void AddPlot(BenchmarkPart part, FaultLatencyRun run, IReadOnlyList<FaultCase> cases, IReadOnlyList<Side> sides, string measure, string name) =>
        part.Plots.Add(new ReportPlot(name, $"First write to a page, {measure}, median over the rounds.", new BarChart
        {
            Title = $"first write to a page after a snapshot, {measure}",
            Y = "time",
            Groups = [.. cases.Select(c => c.Name.Replace(", ", "\n", StringComparison.Ordinal))],
            Series = [.. sides.Select(s => new BarSeries(s.Name, s.Color, [.. cases.Select(c => run.Sample(c, s, measure) is { Count: > 0 } sample ? sample.Median / run.Frequency : double.NaN)]))],
            LogY = true,
            YText = Format.Time,
            YMark = Format.TimeMark,
        }.Draw()));
}
