using Privy.Bench.SnapshotLatency;

namespace Privy.Bench.Framework;

/// <summary>The goals of <see cref="SnapshotLatencyBenchmark"/>.</summary>
internal static class SnapshotGoals
{
    private const long Gigabyte = 1L << 30;

    public static IEnumerable<GoalVerdict> Judge(Figures figures)
    {
        yield return Faster(figures, Side.Native, "snapshot of 8 GB against fork with 4 KB pages", 1000);
        yield return Faster(figures, Side.NativeHuge, "snapshot of 8 GB against fork with huge pages", 20);
        yield return Growth(figures);
    }

    private static GoalVerdict Faster(Figures figures, Side native, string text, double times)
    {
        var target = $"≥ {Format.Whole(times)} times faster";
        if (Ratio(8 * Gigabyte) is { } ratio) return new GoalVerdict(text, target, Format.Times(ratio), ratio >= times);
        return figures["snapshot-latency.largest"] is { } largest && Ratio((long)largest) is { } other
            ? Goals.NotMeasured(text, target, $"8 GB not measured; {Format.Times(other)} at {Format.Bytes(largest)}")
            : Goals.NotMeasured(text, target);

        double? Ratio(long size) => figures.Ratio(SnapshotLatencyBenchmark.Figure(native, size), SnapshotLatencyBenchmark.Figure(Side.Privy, size));
    }

    private static GoalVerdict Growth(Figures figures)
    {
        const string Text = "growth of a snapshot's time from 1 to 16 GB", Target = "≤ 1.5 times";
        if (Ratio(16 * Gigabyte) is { } ratio) return new GoalVerdict(Text, Target, Format.Times(ratio), ratio <= 1.5);
        return figures["snapshot-latency.largest"] is > Gigabyte and var largest && Ratio((long)largest) is { } other
            ? Goals.NotMeasured(Text, Target, $"16 GB not measured; {Format.Times(other)} from 1 to {Format.Bytes(largest)}")
            : Goals.NotMeasured(Text, Target);

        double? Ratio(long size) => figures.Ratio(SnapshotLatencyBenchmark.Figure(Side.Privy, size), SnapshotLatencyBenchmark.Figure(Side.Privy, Gigabyte));
    }
}
