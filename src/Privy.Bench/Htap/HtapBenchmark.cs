using System.Globalization;
using Privy.Bench.Charts;
using Privy.Bench.Framework;

namespace Privy.Bench.Htap;

/// <summary>Transactions and analysis on the same memory: samples/Htap, in all its modes.</summary>
public sealed class HtapBenchmark : IBenchmark
{
    private const int SeriesMilliseconds = 100;

    /// <inheritdoc/>
    public string Name => "htap";

    /// <inheritdoc/>
    public string Title => "Transactions and analysis on the same memory (HTAP)";

    /// <inheritdoc/>
    public string Description => "Transactions at full speed while an analyst queries fresh snapshots: none, memcpy, the portable engine and Privy";

    /// <inheritdoc/>
    public BenchmarkPart Run(BenchmarkContext context)
    {
        ArgumentNullException.ThrowIfNull(context);
        var bytes = context.Choose(32L << 20, 512L << 20, 1L << 30);
        if (bytes * 3 > context.MemoryBytes) throw new BenchException($"{Format.Bytes(bytes * 3)} of memory are needed and {Format.Bytes(context.MemoryBytes)} may be used; free some, or raise --memory");
        var milliseconds = context.Choose(500, 4000, 10_000);
        const int interval = 100;
        List<(string Name, string Mode, Side Side, string Color)> cases =
        [
            ("no snapshots", "none", Side.Native, "#555555"),
            ("memcpy", "copying", Side.Native, "#d9922e"),
            ("portable engine", "portable", Side.Native, Side.Native.Color),
        ];
        if (context.HasPrivy)
        {
            cases.Add(("no snapshots, under Privy", "none", context.Privy(), "#999999"));
            cases.Add(("Privy", "privileged", context.Privy(), Side.Privy.Color));
        }

        var rounds = context.Choose(1, 3, 5);
        var part = new BenchmarkPart
        {
            Method = $"samples/Htap: accounts and orders in {Format.Bytes(bytes)}. One thread moves money and inserts orders at full speed; an analyst takes a snapshot {interval} ms after its last query has ended and adds everything up. " +
                "In each snapshot the total must be what it was and no transaction half done; a run in which that is ever not so fails. Throughput and latency are those of the transactions; the answer's age is from before the snapshot to the end of the query.",
            Csv = new CsvTable("case", "round", "transactions_per_second", "p50_ns", "p99_ns", "max_ns", "snapshots", "take_p50_ns", "query_p50_ns", "age_p50_ns", "copy_bytes"),
        };
        var results = cases.ToDictionary(c => c.Name, _ => new List<double[]>());
        var series = new Dictionary<string, double[]>();
        var failures = new SortedSet<string>(StringComparer.Ordinal);
        for (var round = 0; round < rounds; round++)
        {
            for (var i = 0; i < cases.Count; i++)
            {
                var (name, mode, side, _) = cases[i];
                context.Progress(name, (double)(round * cases.Count + i) / (rounds * cases.Count));
                try
                {
                    var run = WorkloadProcess.Run(
                        context, side, "htap", Arguments.Of(("mode", mode), ("bytes", bytes), ("milliseconds", milliseconds), ("interval", interval), ("seed", round + 1)));
                    var line = run.Lines("htap").Single();
                    results[name].Add(line);
                    series.TryAdd(name, [.. run.All("series")]);
                    part.Csv.Add([name, round, .. line.Cast<object>()]);
                }
                catch (BenchException e)
                {
                    context.Cancellation.ThrowIfCancellationRequested();
                    failures.Add($"{name}: {e.Message}");
                }
            }
        }

        if (part.Csv.Count == 0) throw new BenchException(failures.FirstOrDefault() ?? "nothing was measured");
        var table = new ReportTable("Median over the rounds (smallest–largest)", ["", "transactions/s", "p50", "p99", "max", "snapshots", "TakeSnapshot", "query", "age of the answer", "memory for snapshots"]);
        foreach (var (name, _, _, _) in cases)
        {
            var lines = results[name];
            if (lines.Count == 0) continue;
            table.Add(
                name, Column(0, v => Format.Digits(v / 1e3) + "k"), Column(1, Format.Time), Column(2, Format.Time), Column(3, Format.Time), Column(4, Format.Whole),
                Snapshots(5, Format.Time), Snapshots(6, Format.Time), Snapshots(7, Format.Time), Snapshots(8, Format.Bytes));
            part.Figures[$"{Name}.throughput.{name}"] = Values(0).Median;

            Sample Values(int column)
            {
                var sample = new Sample();
                sample.Add(lines.Select(l => l[column]));
                return sample;
            }

            string Column(int column, Func<double, string> format) => Values(column).Text(format);

            string Snapshots(int column, Func<double, string> format) => lines[0][4] == 0 ? "–" : Column(column, format);
        }

        part.Tables.Add(table);
        part.Plots.Add(new ReportPlot("", "Transactions per second over time, first round.", new LineChart
        {
            Title = "transactions while an analyst queries fresh snapshots",
            X = "seconds",
            Y = "transactions per second",
            YText = v => (v / 1e3).ToString("0", CultureInfo.InvariantCulture) + "k",
            Curves = [.. cases.Where(c => series.ContainsKey(c.Name)).Select(c => new Curve(c.Name, c.Color, [.. series[c.Name].Select((v, i) => ((i + 1) * SeriesMilliseconds / 1000.0, v))]))],
        }.Draw()));
        part.Remarks.AddRange(failures);
        part.Remarks.Add("The analyst holds all of the bank's locks while a snapshot is taken, so that no transaction is under way: the longest transaction has waited for that.");
        return part;
    }
}
