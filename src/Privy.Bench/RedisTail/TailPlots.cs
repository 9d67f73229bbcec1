using Privy.Bench.Charts;
using Privy.Bench.Framework;

namespace Privy.Bench.RedisTail;

/// <summary>The pictures of <see cref="RedisTailBenchmark"/>.</summary>
internal static class TailPlots
{
    public static void Add(BenchmarkPart part, TailRun run, IReadOnlyList<TailCase> cases, IReadOnlyList<Side> sides)
    {
        TailCase[] plain = [.. cases.Where(c => c.IsPlain)];
        foreach (var (name, percent) in (ReadOnlySpan<(string, double)>)[("p99.9", 99.9), ("p100", 100)])
        {
            part.Plots.Add(new ReportPlot(name.Replace(".", "", StringComparison.Ordinal), $"{name} of SET, closed loop, uniform keys, by size of the data.", new LineChart
            {
                Title = $"SET during BGSAVE, closed loop: {name}",
                X = "data",
                Y = "latency",
                LogX = true,
                LogY = true,
                XMarks = [.. plain.Select(c => (double)c.DataBytes)],
                XText = Format.Bytes,
                YText = Format.TimeMark,
                Curves = [.. sides.Select(s => new Curve(s.Name, s.Color, [.. plain.Select(c => (Size: (double)c.DataBytes, Sample: TailTables.Sample(run, c, s, r => r.Latency(percent)))).Where(x => x.Sample.Count > 0).Select(x => (x.Size, x.Sample.Median))]))],
            }.Draw()));
        }

        if (plain.Length > 0) AddPercentiles(part, run, plain[^1], sides, "percentiles");
        if (cases.LastOrDefault(c => c.IsOpen) is { } open) AddPercentiles(part, run, open, sides, "open");
        if (plain.Length > 0) AddTimeline(part, run, plain[^1], sides);
    }

    private static void AddPercentiles(BenchmarkPart part, TailRun run, TailCase where, IReadOnlyList<Side> sides, string name) =>
        part.Plots.Add(new ReportPlot(name, $"Percentiles of SET: {where.Name}.", new BarChart
        {
            Title = "SET during BGSAVE: " + where.Name,
            Y = "latency",
            Groups = [.. TailResult.Percentiles.Select(p => p.Name)],
            Series = [.. sides.Select(s => new BarSeries(s.Name, s.Color, [.. TailResult.Percentiles.Select(p => TailTables.Sample(run, where, s, r => r.Latency(p.Percent)) is { Count: > 0 } sample ? sample.Median : double.NaN)]))],
            LogY = true,
            YText = Format.Time,
            YMark = Format.TimeMark,
        }.Draw()));

    private static void AddTimeline(BenchmarkPart part, TailRun run, TailCase where, IReadOnlyList<Side> sides)
    {
        var curves = new List<LatencyCurve>();
        foreach (var side in sides)
        {
            if (run.Results.FirstOrDefault(r => r.Case == where && r.Side.Key == side.Key) is { } result)
                curves.Add(new LatencyCurve($"{side.Name}: fork {Format.Time(result.Fork.TotalNanoseconds)}, slowest SET {Format.Time(result.Latency(100))}", result.Load.Series, result.Begin, result.End, side.Color));
        }

        if (curves.Count > 0) part.Plots.Add(new ReportPlot("timeline", $"Latency over time: {where.Name}. The grey band is the BGSAVE.", LatencyPlot.Draw("requests during BGSAVE: " + where.Name, curves)));
    }
}
