using Privy.Bench.Framework;

namespace Privy.Bench.FaultLatency;

/// <summary>The measurements of <see cref="FaultLatencyBenchmark"/>, in cycles.</summary>
internal sealed class FaultLatencyRun(BenchmarkContext context, IReadOnlyList<Side> sides)
{
    /// <summary>What the measured program says about a round, in its order.</summary>
    public static readonly string[] Measures = ["mean", "p50", "p99", "p99.9", "max"];

    private readonly Dictionary<(string Case, string Side, string Measure), Sample> _samples = [];

    public CsvTable Csv { get; } = new(["writers", "reader", "order", "side", "round", "pages", .. Measures.Select(m => m + "_cycles"), "cycles_per_nanosecond"]);

    public List<string> Failures { get; } = [];

    /// <summary>Cycles in a nanosecond.</summary>
    public double Frequency { get; private set; } = 1;

    public Sample Sample(FaultCase where, Side side, string measure) => _samples.GetValueOrDefault((where.Key, side.Key, measure)) ?? new Sample();

    public void Measure(IReadOnlyList<FaultCase> cases, long bytes, int rounds, int turns, int limitMilliseconds)
    {
        var (done, total) = (0, cases.Count * rounds * sides.Count);
        for (var round = 0; round < rounds; round++)
        {
            foreach (var where in cases)
            {
                foreach (var side in sides)
                {
                    context.Progress($"{where.Name}, {side.Name}", (double)done++ / total);
                    try
                    {
                        Measure(where, side, bytes, round, turns, limitMilliseconds);
                    }
                    catch (BenchException e)
                    {
                        // The other cases are worth having all the same.
                        context.Cancellation.ThrowIfCancellationRequested();
                        Failures.Add(e.Message);
                    }
                }
            }
        }
    }

    private void Measure(FaultCase where, Side side, long bytes, int round, int turns, int limitMilliseconds)
    {
        var pages = side.Key == Side.Native.Key ? "small" : "huge";
        var run = WorkloadProcess.Run(
            context,
            side,
            "first-writes",
            Arguments.Of(("bytes", bytes), ("pages", pages), ("writers", where.Writers), ("reader", where.Reader), ("order", where.Order), ("rounds", turns), ("limit", limitMilliseconds)),
            limit: TimeSpan.FromSeconds(15 + (turns + 1) * 2 * limitMilliseconds / 1000.0));
        Frequency = run.One("frequency");
        foreach (var line in run.Lines("write"))
        {
            for (var i = 0; i < Measures.Length; i++)
            {
                var key = (where.Key, side.Key, Measures[i]);
                if (!_samples.TryGetValue(key, out var sample)) _samples[key] = sample = new Sample();
                sample.Add(line[i + 1]);
            }

            Csv.Add([where.Writers, where.Reader, where.Order, side.Key, round, .. line.Cast<object>(), Frequency]);
        }
    }
}
