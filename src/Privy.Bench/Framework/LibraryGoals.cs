using System.Globalization;

namespace Privy.Bench.Framework;

/// <summary>The goals of <see cref="Library.LibraryBenchmark"/>.</summary>
internal static class LibraryGoals
{
    public static IEnumerable<GoalVerdict> Judge(Figures figures)
    {
        yield return AtMost(figures, "library.take.privy", "the library's TakeSnapshot beside a writer, 4 GB region, median", "≤ 150 µs", 150e3, Format.Time);
        yield return AtMost(figures, "library.growth.privy", "growth of it from 0.25 to 16 GB", "≤ 1.5 times", 1.5, v => Format.Times(v));
        yield return AtLeast(figures, "library.kept.privy", "speed that a writer to 256 pages keeps at 100 library snapshots a second", "≥ 0.7", 0.7);
        yield return AtLeast(figures, "library.scan.privy", "speed of reading a view against the live region", "≥ 0.9", 0.9);
        yield return AtMost(figures, "library.increment-bytes.privy", "incremental checkpoint of 1% changed pages, size against these pages", "≤ 1.1", 1.1, Ratio);
        yield return AtMost(figures, "library.increment-time.privy", "incremental checkpoint of 1% changed pages, time against a full one", "≤ 1/20", 0.05, Ratio);
    }

    private static string Ratio(double value) => value.ToString("0.000", CultureInfo.InvariantCulture);

    private static GoalVerdict AtMost(Figures figures, string name, string text, string target, double bound, Func<double, string> format) =>
        figures[name] is { } value ? new GoalVerdict(text, target, format(value), value <= bound) : Goals.NotMeasured(text, target);

    private static GoalVerdict AtLeast(Figures figures, string name, string text, string target, double bound) =>
        figures[name] is { } value ? new GoalVerdict(text, target, Ratio(value), value >= bound) : Goals.NotMeasured(text, target);
}
