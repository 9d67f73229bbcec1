using Privy.Bench.Framework;

namespace Privy.Bench.RedisTail;

/// <summary>The tables of <see cref="RedisTailBenchmark"/>.</summary>
internal static class TailTables
{
    public static void Add(BenchmarkPart part, TailRun run, IReadOnlyList<TailCase> cases, IReadOnlyList<Side> sides)
    {
        foreach (var group in (TailCase[][])[[.. cases.Where(c => !c.IsOpen)], [.. cases.Where(c => c.IsOpen)]])
        {
            if (group.Length == 0) continue;
            var title = group[0].IsOpen ? "Open loop, from the time a SET was due" : "Closed loop, 1,000 outstanding, from the sending of a SET";
            var table = new ReportTable(title, ["data, read:write, keys", "", .. TailResult.Percentiles.Select(p => p.Name), "requests/s", "fork", "BGSAVE in the run"]);
            foreach (var where in group)
                foreach (var side in sides) AddRow(table, run, where, side);
            part.Tables.Add(table);
        }

        if (sides.All(s => s.Key != Side.Privy.Key)) return;
        var ratios = new ReportTable("Native latency over Privy's: above 1, Privy is faster", ["data, read:write, keys, loop", "", .. TailResult.Percentiles.Select(p => p.Name)]);
        foreach (var where in cases)
        {
            foreach (var side in sides.Where(s => s.Key != Side.Privy.Key))
            {
                if (Of(run, where, side).Length == 0 || Of(run, where, Side.Privy).Length == 0) continue;
                ratios.Add([where.Name, side.Name, .. TailResult.Percentiles.Select(p => Format.Times(Sample(run, where, side, r => r.Latency(p.Percent)).Median / Sample(run, where, Side.Privy, r => r.Latency(p.Percent)).Median))]);
            }
        }

        part.Tables.Add(ratios);
    }

    /// <summary>A measure of all rounds of a case on a side.</summary>
    public static Sample Sample(TailRun run, TailCase where, Side side, Func<TailResult, double> measure)
    {
        var sample = new Sample();
        sample.Add(Of(run, where, side).Select(measure));
        return sample;
    }

    private static TailResult[] Of(TailRun run, TailCase where, Side side) => [.. run.Results.Where(r => r.Case == where && r.Side.Key == side.Key)];

    private static void AddRow(ReportTable table, TailRun run, TailCase where, Side side)
    {
        var results = Of(run, where, side);
        if (results.Length == 0) return;
        table.Add([
            $"{Format.Bytes(where.DataBytes)}, {where.Ratio}, {where.KeysName}",
            side.Name,
            .. TailResult.Percentiles.Select(p => Sample(run, where, side, r => r.Latency(p.Percent)).Text(Format.Time)),
            Sample(run, where, side, r => r.Load.Throughput).Text(Format.Whole),
            Sample(run, where, side, r => r.Fork.TotalNanoseconds).Text(Format.Time),
            Sample(run, where, side, r => (r.End - r.Begin).TotalNanoseconds).Text(Format.Time) + (results.All(r => r.EndedInRun) ? "" : ", and on"),
        ]);
    }
}
