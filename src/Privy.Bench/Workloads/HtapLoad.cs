using Htap;

namespace Privy.Bench.Workloads;

/// <summary>The transactions and queries of samples/Htap, in one mode.</summary>
internal static class HtapLoad
{
    public static void Run(WorkloadArguments arguments)
    {
        var name = arguments.Text("mode");
        var mode = new Mode(name, name == "none" ? null : Enum.Parse<SnapshotEngine>(name, ignoreCase: true));
        var settings = new Settings(
            arguments.Number("bytes"),
            Writers: 1,
            TimeSpan.FromMilliseconds(arguments.Number("milliseconds")),
            TimeSpan.FromMilliseconds(arguments.Number("interval")),
            (ulong)arguments.Number("seed"));
        Result result;
        try
        {
            result = Runner.Run(mode, settings);
        }
        catch (InvariantException e)
        {
            throw new InvalidOperationException($"a snapshot is wrong (seed {settings.Seed}): {e.Message}", e);
        }

        Workload.Result(
            "htap",
            result.TransactionsPerSecond,
            result.Latency.Microseconds(0.5) * 1000,
            result.Latency.Microseconds(0.99) * 1000,
            result.Latency.Max,
            result.Snapshots,
            result.SnapshotTime.Microseconds(0.5) * 1000,
            result.QueryTime.Microseconds(0.5) * 1000,
            result.Freshness.Microseconds(0.5) * 1000,
            name == "copying" ? settings.Memory : result.CopyBytes);
        Workload.Result("series", [.. result.Series]);
    }
}
