namespace Privy.Bench.Soak;

/// <summary>Says whether a figure that was noted each minute has grown: the medians of the first and the last third are compared, so that a bad minute decides nothing.</summary>
public static class Growth
{
    /// <summary>Fewer minutes say nothing about growth.</summary>
    public const int FewestMinutes = 6;

    /// <summary>What has grown by more than the factor and the slack together, in words; null: nothing, or there are too few minutes.</summary>
    /// <param name="what">Name of the figure.</param>
    /// <param name="minutes">The figures; the first minute, in which everything is touched for the first time, is left out.</param>
    /// <param name="factor">What the last third may be of the first.</param>
    /// <param name="slack">And how much more.</param>
    /// <param name="format">How to show a figure.</param>
    public static string? Find(string what, IReadOnlyList<double> minutes, double factor, double slack, Func<double, string> format)
    {
        ArgumentNullException.ThrowIfNull(minutes);
        ArgumentNullException.ThrowIfNull(format);
        if (minutes.Count < FewestMinutes) return null;
        var settled = minutes.Skip(1).ToArray();
        var third = settled.Length / 3;
        var (first, last) = (Median(settled.AsSpan(0, third)), Median(settled.AsSpan(settled.Length - third)));
        return last > first * factor + slack ? $"{what} grew: {format(first)} in the first third, {format(last)} in the last" : null;
    }

    private static double Median(ReadOnlySpan<double> values)
    {
        var sorted = values.ToArray();
        Array.Sort(sorted);
        return (sorted[(sorted.Length - 1) / 2] + sorted[sorted.Length / 2]) / 2;
    }
}
