using HdrHistogram;

namespace Privy.Bench;

/// <summary>Percentiles of a latency.</summary>
public readonly record struct LatencySummary(TimeSpan P50, TimeSpan P99, TimeSpan P999, TimeSpan Max)
{
    internal static LatencySummary Of(LongHistogram histogram) => histogram.TotalCount == 0
        ? default
        : new(At(histogram, 50), At(histogram, 99), At(histogram, 99.9), At(histogram, 100));

    private static TimeSpan At(LongHistogram histogram, double percentile) => TimeSpan.FromTicks(histogram.GetValueAtPercentile(percentile) / TimeSpan.NanosecondsPerTick);
}

/// <summary>What a load did.</summary>
public sealed class LoadResult
{
    /// <summary>Completed requests.</summary>
    public required long Requests { get; init; }

    /// <summary>From the first request to the last reply.</summary>
    public required TimeSpan Elapsed { get; init; }

    /// <summary>Requests the server answered with an error.</summary>
    public required long Errors { get; init; }

    /// <summary>The text of one such answer.</summary>
    public string? FirstError { get; init; }

    /// <summary>Latencies of SETs in nanoseconds.</summary>
    public required LongHistogram Writes { get; init; }

    /// <summary>Latencies of GETs in nanoseconds.</summary>
    public required LongHistogram Reads { get; init; }

    /// <summary>Latency over time, GETs and SETs.</summary>
    public required LatencySeries Series { get; init; }

    /// <summary>When the run began, as a <see cref="System.Diagnostics.Stopwatch"/> time stamp.</summary>
    public required long StartTimestamp { get; init; }

    /// <summary>Garbage collections of this process during the run; each may have added to a latency. Normally 0.</summary>
    public required int GarbageCollections { get; init; }

    /// <summary>Completed requests per second.</summary>
    public double Throughput => Requests / Math.Max(Elapsed.TotalSeconds, 1e-9);

    /// <summary>Percentiles of SETs.</summary>
    public LatencySummary WriteLatency => LatencySummary.Of(Writes);

    /// <summary>Percentiles of GETs.</summary>
    public LatencySummary ReadLatency => LatencySummary.Of(Reads);
}
