using System.Diagnostics;
using Privy.Bench.Report;

namespace Privy.Bench.Framework;

/// <summary>Runs benchmarks, and writes what is finished after each of them, so that an interrupted run leaves all of that.</summary>
public sealed class BenchmarkRunner
{
    private readonly List<BenchmarkOutcome> _outcomes = [];

    /// <summary>The folder of the report; CSV and PNG files go to its sub-folder <c>bench</c>.</summary>
    public required string Directory { get; init; }

    /// <summary>The report's file name; empty for none.</summary>
    public required string ReportName { get; init; }

    /// <summary>Where and when this is measured.</summary>
    public required ReportHead Head { get; init; }

    /// <summary>What has been run.</summary>
    public IReadOnlyList<BenchmarkOutcome> Outcomes => _outcomes;

    /// <summary>Whether goals that no benchmark of this run measures are shown, too.</summary>
    public bool ShowsAllGoals { get; init; }

    /// <summary>What the run says about the goals, so far.</summary>
    public IReadOnlyList<GoalVerdict> Verdicts => [.. Goals.Judge(_outcomes).Where(g => ShowsAllGoals || g.Measured != Goals.Nothing)];

    /// <summary>The path of the report.</summary>
    public string ReportPath => Path.Combine(Directory, ReportName);

    /// <summary>The folder of the CSV and PNG files.</summary>
    public string FilesPath => Path.Combine(Directory, "bench");

    /// <summary>Runs a benchmark and writes its files and the report of all so far. A benchmark that fails is reported as failed.</summary>
    public BenchmarkOutcome Run(IBenchmark benchmark, BenchmarkContext context)
    {
        ArgumentNullException.ThrowIfNull(benchmark);
        ArgumentNullException.ThrowIfNull(context);
        var begin = Stopwatch.GetTimestamp();
        BenchmarkOutcome outcome;
        try
        {
            var part = benchmark.Run(context);
            context.Cancellation.ThrowIfCancellationRequested();
            outcome = new BenchmarkOutcome(benchmark, part, null, Stopwatch.GetElapsedTime(begin));
            WriteFiles(benchmark, part);
        }
        catch (Exception e) when (e is BenchException or IOException or InvalidDataException)
        {
            // Ctrl-C reaches the measured programs, too: what breaks then is no failure of the benchmark.
            context.Cancellation.ThrowIfCancellationRequested();
            outcome = new BenchmarkOutcome(benchmark, null, e.Message, Stopwatch.GetElapsedTime(begin));
        }

        _outcomes.Add(outcome);
        File.WriteAllText(ReportPath, HtmlReport.Write(Head, _outcomes, Verdicts));
        context.Progress("done", 1);
        return outcome;
    }

    private void WriteFiles(IBenchmark benchmark, BenchmarkPart part)
    {
        System.IO.Directory.CreateDirectory(FilesPath);
        var name = Path.Combine(FilesPath, benchmark.Name);
        File.WriteAllText(name + ".csv", part.Csv.ToString());
        foreach (var plot in part.Plots) File.WriteAllBytes(name + (plot.Name.Length > 0 ? "-" + plot.Name : "") + ".png", plot.Png);
    }
}
