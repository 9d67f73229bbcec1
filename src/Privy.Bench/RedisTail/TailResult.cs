using Privy.Bench.Framework;

namespace Privy.Bench.RedisTail;

/// <summary>What a server did under a load and a BGSAVE.</summary>
internal sealed record TailResult(TailCase Case, Side Side, int Round, LoadResult Load, TimeSpan Fork, TimeSpan Begin, TimeSpan End, bool EndedInRun)
{
    /// <summary>The percentiles that are reported.</summary>
    public static readonly (string Name, double Percent)[] Percentiles = [("p50", 50), ("p90", 90), ("p99", 99), ("p99.9", 99.9), ("p99.99", 99.99), ("p100", 100)];

    /// <summary>A percentile of SETs in nanoseconds.</summary>
    public double Latency(double percent) => Load.Writes.GetValueAtPercentile(percent);

    /// <summary>Requests per second before the BGSAVE: what the server can do.</summary>
    public double RateBefore
    {
        get
        {
            var slots = Load.Series.Slots;
            var before = Math.Min(slots.Length, (int)(Begin / Load.Series.Width));
            long count = 0;
            for (var i = 0; i < before; i++) count += slots[i].Count;
            return before == 0 ? Load.Throughput : count / (before * Load.Series.Width.TotalSeconds);
        }
    }
}
