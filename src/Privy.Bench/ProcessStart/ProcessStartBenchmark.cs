using System.Diagnostics;
using Privy.Bench.Charts;
using Privy.Bench.Framework;

namespace Privy.Bench.ProcessStart;

/// <summary>What Privy adds to the start and end of a program.</summary>
public sealed class ProcessStartBenchmark : IBenchmark
{
    private const string Program = "/bin/true";

    /// <inheritdoc/>
    public string Name => "process-start";

    /// <inheritdoc/>
    public string Title => "Process start";

    /// <inheritdoc/>
    public string Description => "How long 'true' takes from its start to its end, natively and under Privy";

    /// <inheritdoc/>
    public BenchmarkPart Run(BenchmarkContext context)
    {
        ArgumentNullException.ThrowIfNull(context);
        var rounds = context.Choose(5, 30, 100);
        var csv = new CsvTable("side", "round", "nanoseconds");
        var sides = context.Sides();
        var samples = sides.ToDictionary(s => s.Key, _ => new Sample());
        for (var round = 0; round < rounds; round++)
        {
            context.Progress(Program, (double)round / rounds);
            foreach (var side in sides)
            {
                context.Cancellation.ThrowIfCancellationRequested();
                var time = Time([.. side.Launcher, Program]);
                samples[side.Key].Add(time);
                csv.Add(side.Key, round, time);
            }
        }

        var part = new BenchmarkPart { Method = $"{Program} is started and awaited, {rounds} times on each side, alternately.", Csv = csv };
        var table = new ReportTable("From start to end: median (smallest–largest)", ["", "time"]);
        foreach (var side in sides)
        {
            table.Add(side.Name, samples[side.Key].Text(Format.Time));
            part.Figures["process-start." + side.Key] = samples[side.Key].Median;
        }

        part.Tables.Add(table);
        part.Plots.Add(new ReportPlot("", "Median time from the start of a program to its end.", new BarChart
        {
            Title = Program + " from start to end",
            Y = "time",
            Groups = [Program],
            Series = [.. sides.Select(s => new BarSeries(s.Name, s.Color, [samples[s.Key].Median]))],
            YText = Format.Time,
            YMark = Format.TimeMark,
        }.Draw()));
        return part;
    }

    private static double Time(string[] command)
    {
        var begin = Stopwatch.GetTimestamp();
        using var process = RedisServer.StartProcess(new ProcessStartInfo(command[0], command.Skip(1)));
        process.WaitForExit();
        if (process.ExitCode != 0) throw new BenchException($"{string.Join(' ', command)} ended with status {process.ExitCode}");
        return Stopwatch.GetElapsedTime(begin).TotalNanoseconds;
    }
}
