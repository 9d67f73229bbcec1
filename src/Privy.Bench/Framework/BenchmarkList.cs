using Privy.Bench.Elevation;
using Privy.Bench.FaultLatency;
using Privy.Bench.Htap;
using Privy.Bench.Library;
using Privy.Bench.ProcessStart;
using Privy.Bench.RedisTail;
using Privy.Bench.RedisThroughput;
using Privy.Bench.SnapshotFrequency;
using Privy.Bench.SnapshotLatency;
using Privy.Bench.SyscallCost;

namespace Privy.Bench.Framework;

/// <summary>All benchmarks of <c>privy bench all</c>, in the order of the report. A new one is added here and nowhere else.</summary>
public static class BenchmarkList
{
    /// <summary>The benchmarks.</summary>
    public static IReadOnlyList<IBenchmark> All { get; } =
    [
        new SnapshotLatencyBenchmark(),
        new FaultLatencyBenchmark(),
        new SnapshotFrequencyBenchmark(),
        new RedisTailBenchmark(),
        new RedisThroughputBenchmark(),
        new SyscallCostBenchmark(),
        new ElevationBenchmark(),
        new ProcessStartBenchmark(),
        new LibraryBenchmark(),
        new HtapBenchmark(),
    ];
}
