using System.Globalization;
using Privy.Bench.Framework;

namespace Privy.Bench.RedisTail;

/// <summary>What clients of a server see while it saves.</summary>
public sealed class RedisTailBenchmark : IBenchmark
{
    /// <inheritdoc/>
    public string Name => "redis-tail";

    /// <inheritdoc/>
    public string Title => "Redis: latency of SET while a BGSAVE runs";

    /// <inheritdoc/>
    public string Description => "Latency of SET from p50 to p100 while Redis saves: native with small and huge pages, and Privy";

    /// <inheritdoc/>
    public BenchmarkPart Run(BenchmarkContext context)
    {
        ArgumentNullException.ThrowIfNull(context);
        var program = RedisServer.FindInstalled() ?? throw new BenchException("no redis-server in PATH; install it (Debian: apt-get install redis-server)");
        // Keys, values and the allocator, and the copies that a snapshot causes.
        var cases = TailCase.Choose(context, size => size * 7 / 4 <= context.MemoryBytes);
        if (cases.Count == 0) throw new BenchException($"2 GB of memory are needed and {Format.Bytes(context.MemoryBytes)} may be used; free some, or raise --memory");
        var requests = context.Choose(200_000L, 1_500_000L, 1_500_000L);
        Side[] sides = [Side.Native, Side.NativeHuge, .. context.HasPrivy ? (Side[])[context.Privy()] : []];
        // A side that is very slow must not take the time of all others.
        var limit = TimeSpan.FromSeconds(context.Choose(10, 25, 300));
        var run = new TailRun(context, program, sides);
        run.Measure(cases, rounds: context.Choose(1, 1, 3), requests, limit);
        if (run.Results.Count == 0) throw new BenchException(run.Failures.FirstOrDefault() ?? "nothing was measured");

        var part = new BenchmarkPart
        {
            Method = $"{program} {RedisServer.Version(program)} holds values of 1 KB. A load generator sends {Format.Whole(requests)} requests over one connection, or as many as are answered in {limit.TotalSeconds:0} s, and {(context.Quick ? "0.2" : "2")} s after their start a BGSAVE. " +
                "Closed loop: 1,000 requests are always on the way, and latency counts from the sending, as in the paper. " +
                $"Open loop: requests are due at fixed times, at {TailRun.OpenShare:P0} of the rate that the native server reached before its BGSAVE, and latency counts from when a request was due, sent or not. Latencies are those of all SETs of the run.",
            Csv = Csv(run),
        };
        TailTables.Add(part, run, cases, sides);
        TailPlots.Add(part, run, cases, sides);
        foreach (var where in cases.Where(c => c.IsPlain))
        {
            foreach (var side in sides)
            {
                var results = run.Results.Where(r => r.Case == where && r.Side.Key == side.Key).ToArray();
                if (results.Length == 0) continue;
                foreach (var (name, percent) in TailResult.Percentiles)
                {
                    var sample = new Sample();
                    sample.Add(results.Select(r => r.Latency(percent)));
                    part.Figures[Figure(name, side, where.DataBytes)] = sample.Median;
                }
            }
        }

        AddRemarks(part, run, context);
        return part;
    }

    /// <summary>The figure of a percentile of the closed loop of SETs to uniform keys.</summary>
    internal static string Figure(string percentile, Side side, long bytes) => string.Create(CultureInfo.InvariantCulture, $"redis-tail.{percentile}.{side.Key}.{bytes >> 20}");

    private static CsvTable Csv(TailRun run)
    {
        var csv = new CsvTable(["data_bytes", "read_write", "keys", "loop", "side", "round", "requests", "requests_per_second", "fork_us", "bgsave_seconds_in_run", "bgsave_ended_in_run", .. TailResult.Percentiles.Select(p => "set_" + p.Name + "_ns")]);
        foreach (var r in run.Results)
        {
            csv.Add([r.Case.DataBytes, r.Case.Ratio, r.Case.KeysName, r.Case.Loop, r.Side.Key, r.Round, r.Load.Requests, r.Load.Throughput, r.Fork.TotalMicroseconds, (r.End - r.Begin).TotalSeconds, r.EndedInRun, .. TailResult.Percentiles.Select(p => (object)r.Latency(p.Percent))]);
        }

        return csv;
    }

    private static void AddRemarks(BenchmarkPart part, TailRun run, BenchmarkContext context)
    {
        part.Remarks.AddRange(run.Failures);
        if (run.HugeShare is { } share)
        {
            part.Remarks.Add($"Huge pages: 'disable-thp no', and jemalloc asked for them (thp:always); {share:P0} of the server's memory was in huge pages after loading." +
                (share < 0.5 ? " So this side shows little of what huge pages do: this server's allocator does not take the request." : ""));
        }

        if (!context.Full && !context.Quick) part.Remarks.Add("All combinations of size, reads, keys and loop: privy bench redis-tail --full.");
        if (run.Results.Sum(r => r.Load.GarbageCollections) is > 0 and var collections) part.Remarks.Add($"The load generator collected garbage {collections} times during the runs, which may have added to the slowest requests.");
        part.Remarks.Add($"Server, child and load generator share {Environment.ProcessorCount} processors.");
    }
}
