using System.Globalization;
using Privy.Bench.Charts;
using Privy.Bench.Framework;

namespace Privy.Bench.RedisThroughput;

/// <summary>What a server gets done when no snapshot is taken.</summary>
public sealed class RedisThroughputBenchmark : IBenchmark
{
    private const int Connections = 50;

    /// <summary>The tests of redis-benchmark that are run.</summary>
    internal static readonly string[] Tests = ["set", "get", "lpush", "mset"];

    /// <summary>Requests that a client sends before it waits.</summary>
    internal static readonly int[] Pipelines = [1, 16, 128];

    /// <inheritdoc/>
    public string Name => "redis-throughput";

    /// <inheritdoc/>
    public string Title => "Redis: throughput without a snapshot";

    /// <inheritdoc/>
    public string Description => "redis-benchmark's SET, GET, LPUSH and MSET at pipeline 1, 16 and 128: native and under Privy";

    /// <inheritdoc/>
    public BenchmarkPart Run(BenchmarkContext context)
    {
        ArgumentNullException.ThrowIfNull(context);
        var program = RedisServer.FindInstalled() ?? throw new BenchException("no redis-server in PATH; install it (Debian: apt-get install redis-server)");
        var tool = RedisBenchmarkTool.Find() ?? throw new BenchException("no redis-benchmark in PATH; install it (Debian: apt-get install redis-tools)");
        var sides = context.Sides();
        string[] tests = context.Quick ? ["set", "get"] : Tests;
        int[] pipelines = context.Quick ? [16] : Pipelines;
        var samples = new Dictionary<(string Test, int Pipeline, string Side), Sample>();
        var csv = new CsvTable("test", "pipeline", "side", "round", "requests_per_second");
        var servers = new List<RedisServer>();
        try
        {
            // Both are up all the time and take turns: one that waits costs nothing.
            foreach (var side in sides) servers.Add(RedisServer.Start(new RedisServerOptions { Program = program, Launcher = side.Launcher, TemporaryDirectory = context.TemporaryDirectory }, context.Cancellation));
            var rounds = context.Choose(1, 3, 7);
            var (done, total) = (0, rounds * tests.Length * pipelines.Length * sides.Count);
            for (var round = 0; round < rounds; round++)
            {
                foreach (var test in tests)
                {
                    foreach (var pipeline in pipelines)
                    {
                        for (var i = 0; i < sides.Count; i++)
                        {
                            context.Progress($"{test.ToUpperInvariant()}, pipeline {pipeline}, {sides[i].Name}", (double)done++ / total);
                            servers[i].Control.Command("FLUSHALL");
                            var rate = RedisBenchmarkTool.Run(tool, servers[i].Port, test, pipeline, Connections, Requests(context, test, pipeline), context.Cancellation);
                            var key = (test, pipeline, sides[i].Key);
                            if (!samples.TryGetValue(key, out var sample)) samples[key] = sample = new Sample();
                            sample.Add(rate);
                            csv.Add(test, pipeline, sides[i].Key, round, rate);
                        }
                    }
                }
            }
        }
        finally
        {
            foreach (var server in servers) server.Dispose();
        }

        var part = new BenchmarkPart
        {
            Method = $"{tool} with {Connections} connections against {program} {RedisServer.Version(program)}, random keys out of 100,000, values of 3 bytes; MSET sets ten keys. The two servers take turns.",
            Csv = csv,
        };
        var table = new ReportTable("Requests per second: median (smallest–largest)", ["", "pipeline", .. sides.Select(s => s.Name), .. context.HasPrivy ? (string[])["Privy / native"] : []]);
        foreach (var test in tests)
        {
            foreach (var pipeline in pipelines)
            {
                var native = samples[(test, pipeline, Side.Native.Key)].Median;
                table.Add([
                    test.ToUpperInvariant(),
                    pipeline.ToString(CultureInfo.InvariantCulture),
                    .. sides.Select(s => samples[(test, pipeline, s.Key)].Text(Format.Whole)),
                    .. context.HasPrivy ? (string[])[Format.Times(samples[(test, pipeline, Side.Privy.Key)].Median / native)] : []]);
                foreach (var side in sides) part.Figures[Figure(test, pipeline, side)] = samples[(test, pipeline, side.Key)].Median;
            }
        }

        part.Tables.Add(table);
        part.Plots.Add(new ReportPlot("", "Median of requests per second.", new BarChart
        {
            Title = $"requests per second, {Connections} connections, by test and pipeline",
            Y = "requests per second",
            Groups = [.. from test in tests from pipeline in pipelines select $"{test.ToUpperInvariant()}\n{pipeline}"],
            Series = [.. sides.Select(s => new BarSeries(s.Name, s.Color, [.. from test in tests from pipeline in pipelines select samples[(test, pipeline, s.Key)].Median]))],
            YText = v => v >= 1e6 ? Format.Digits(v / 1e6) + " M" : (v / 1e3).ToString("0", CultureInfo.InvariantCulture) + " k",
            YMark = v => ChartStyle.Number(v / 1e3) + " k",
        }.Draw()));
        part.Remarks.Add($"Server and load generator share {Environment.ProcessorCount} processors.");
        return part;
    }

    /// <summary>The figure of a side's median.</summary>
    internal static string Figure(string test, int pipeline, Side side) => string.Create(CultureInfo.InvariantCulture, $"redis-throughput.{test}.{pipeline}.{side.Key}");

    /// <summary>About a second or two natively.</summary>
    private static long Requests(BenchmarkContext context, string test, int pipeline)
    {
        var requests = pipeline switch { 1 => 80_000, 16 => 800_000, _ => 1_500_000 } / (test == "mset" ? 5 : 1);
        return context.Choose(requests / 10, requests, requests * 2);
    }
}
