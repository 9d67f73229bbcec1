using System.Globalization;
using Privy.Bench.RedisTail;
using Privy.Bench.RedisThroughput;

namespace Privy.Bench.Framework;

/// <summary>The goals of <see cref="RedisTailBenchmark"/> and <see cref="RedisThroughputBenchmark"/>.</summary>
internal static class RedisGoals
{
    private static readonly long[] Sizes = [1L << 30, 2L << 30, 4L << 30, 8L << 30];

    public static IEnumerable<GoalVerdict> Judge(Figures figures)
    {
        foreach (var size in (long[])[4L << 30, 8L << 30]) yield return Slowest(figures, size);
        foreach (var percentile in (string[])["p99.9", "p99", "p50"]) yield return Percentile(figures, percentile);
        yield return Throughput(figures, [16, 128], 0.95);
        yield return Throughput(figures, [1], 0.8);
    }

    private static GoalVerdict Slowest(Figures figures, long size)
    {
        var text = $"Redis, {Format.Bytes(size)}: slowest SET during BGSAVE against native";
        const string Target = "≤ 1/10";
        return Against(figures, "p100", size) is { } ratio ? new GoalVerdict(text, Target, Share(ratio), ratio <= 0.1) : Goals.NotMeasured(text, Target);
    }

    private static GoalVerdict Percentile(Figures figures, string percentile)
    {
        var text = $"Redis: {percentile} of SET during BGSAVE against native, at each size";
        const string Target = "≤ 1";
        var ratios = Sizes.Select(size => (Size: size, Ratio: Against(figures, percentile, size))).Where(r => r.Ratio is not null).ToArray();
        return ratios.Length == 0
            ? Goals.NotMeasured(text, Target)
            : new GoalVerdict(text, Target, string.Join(", ", ratios.Select(r => $"{Share(r.Ratio!.Value)} at {Format.Bytes(r.Size)}")), ratios.All(r => r.Ratio <= 1));
    }

    private static double? Against(Figures figures, string percentile, long size) =>
        figures.Ratio(RedisTailBenchmark.Figure(percentile, Side.Privy, size), RedisTailBenchmark.Figure(percentile, Side.Native, size));

    private static GoalVerdict Throughput(Figures figures, int[] pipelines, double least)
    {
        var text = $"Redis throughput without a snapshot at pipeline {string.Join(" and ", pipelines)}, each test";
        var target = string.Create(CultureInfo.InvariantCulture, $"≥ {least} of native");
        var shares = new List<(string Name, double Share)>();
        foreach (var pipeline in pipelines)
        {
            foreach (var test in RedisThroughputBenchmark.Tests)
            {
                if (figures.Ratio(RedisThroughputBenchmark.Figure(test, pipeline, Side.Privy), RedisThroughputBenchmark.Figure(test, pipeline, Side.Native)) is { } share)
                    shares.Add(($"{test.ToUpperInvariant()} at {pipeline}", share));
            }
        }

        if (shares.Count == 0) return Goals.NotMeasured(text, target);
        var (worst, best) = (shares.MinBy(s => s.Share), shares.MaxBy(s => s.Share));
        return new GoalVerdict(text, target, $"{Share(worst.Share)} ({worst.Name}) to {Share(best.Share)} ({best.Name})", worst.Share >= least);
    }

    private static string Share(double ratio) => ratio.ToString(ratio < 0.1 ? "0.000" : "0.00", CultureInfo.InvariantCulture);
}
