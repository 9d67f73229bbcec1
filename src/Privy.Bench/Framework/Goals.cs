namespace Privy.Bench.Framework;

/// <summary>What a run says about a goal.</summary>
/// <param name="Text">What is to be reached.</param>
/// <param name="Target">The bound.</param>
/// <param name="Measured">What was measured, or why it was not.</param>
/// <param name="IsReached">Null if this run cannot tell.</param>
public sealed record GoalVerdict(string Text, string Target, string Measured, bool? IsReached);

/// <summary>The goals of the benchmarks, judged by the figures of a run and nothing else.</summary>
public static class Goals
{
    /// <summary>Judges all goals.</summary>
    public static IReadOnlyList<GoalVerdict> Judge(IEnumerable<BenchmarkOutcome> outcomes)
    {
        ArgumentNullException.ThrowIfNull(outcomes);
        var figures = new Figures();
        foreach (var outcome in outcomes)
            if (outcome.Part is { } part) figures.Add(part.Figures);
        return Judge(figures);
    }

    /// <summary>Judges all goals by given figures.</summary>
    public static IReadOnlyList<GoalVerdict> Judge(Figures figures)
    {
        ArgumentNullException.ThrowIfNull(figures);
        return
        [
            .. SnapshotGoals.Judge(figures),
            .. RedisGoals.Judge(figures),
            .. WriterGoals.Judge(figures),
            ProcessStart(figures),
            .. LibraryGoals.Judge(figures),
        ];
    }

    /// <summary>What stands for a measured value where there is none.</summary>
    internal const string Nothing = "not measured";

    /// <summary>The verdict where a benchmark did not run, or not at the size that the goal speaks of.</summary>
    internal static GoalVerdict NotMeasured(string text, string target, string why = Nothing) => new(text, target, why, null);

    private static GoalVerdict ProcessStart(Figures figures)
    {
        const string Text = "start and end of a program (true)", Target = "≤ 100 ms more than native";
        return figures["process-start.privy"] - figures["process-start.native"] is { } more
            ? new GoalVerdict(Text, Target, Format.Time(more) + " more", more <= 100e6)
            : NotMeasured(Text, Target);
    }
}
