using System.Globalization;
using Privy.Bench.FaultLatency;

namespace Privy.Bench.Framework;

/// <summary>The goals of what writers see: <see cref="FaultLatencyBenchmark"/> and <see cref="SnapshotFrequency.SnapshotFrequencyBenchmark"/>.</summary>
internal static class WriterGoals
{
    public static IEnumerable<GoalVerdict> Judge(Figures figures)
    {
        yield return Faults(figures);
        yield return Rate(figures);
        yield return Kept(figures);
    }

    private static GoalVerdict Faults(Figures figures)
    {
        const string Text = "mean first-write fault against Linux copy-on-write, in each case", Target = "≤ 1.0";
        var ratios = FaultLatencyBenchmark.AllCases
            .Select(c => (c.Name, Ratio: figures.Ratio($"fault-latency.mean.privy.{c.Key}", $"fault-latency.mean.native.{c.Key}")))
            .Where(r => r.Ratio is not null).ToArray();
        if (ratios.Length == 0) return Goals.NotMeasured(Text, Target);
        var (best, worst) = (ratios.MinBy(r => r.Ratio), ratios.MaxBy(r => r.Ratio));
        return new GoalVerdict(Text, Target, $"{Format.Times(best.Ratio)} ({best.Name}) to {Format.Times(worst.Ratio)} ({worst.Name})", worst.Ratio <= 1);
    }

    private static GoalVerdict Rate(Figures figures)
    {
        const string Text = "snapshots per second under a writer, 1 GB", Target = "≥ 500";
        var rates = ((int[])[1_000, 2_000]).Select(i => figures[string.Create(CultureInfo.InvariantCulture, $"snapshot-frequency.rate.privy.{i}")]).Where(r => r is not null).ToArray();
        // Asked for every 2 ms, 500 come when nothing is ever late; asked for every 1 ms, there is some room.
        return rates.Length == 0 ? Goals.NotMeasured(Text, Target) : new GoalVerdict(Text, Target, Format.Digits(rates.Max()!.Value), rates.Max() >= 500);
    }

    private static GoalVerdict Kept(Figures figures)
    {
        const string Text = "speed that a writer keeps at 100 snapshots a second, 1 GB", Target = "≥ 0.5";
        return figures["snapshot-frequency.kept.privy.10000"] is { } kept && figures["snapshot-frequency.rate.privy.10000"] is { } rate
            ? new GoalVerdict(Text, Target, string.Create(CultureInfo.InvariantCulture, $"{kept:0.00} at {rate:0} a second"), kept >= 0.5 && rate >= 95)
            : Goals.NotMeasured(Text, Target);
    }
}
