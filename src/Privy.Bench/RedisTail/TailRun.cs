using System.Diagnostics;
using Privy.Bench.Framework;

namespace Privy.Bench.RedisTail;

/// <summary>The measurements of <see cref="RedisTailBenchmark"/>.</summary>
internal sealed class TailRun(BenchmarkContext context, string program, IReadOnlyList<Side> sides)
{
    private const int ValueSize = 1024;

    // Like real values, these shrink in the RDB file; else the disk's speed decides how long a snapshot lives.
    private const double Compressible = 0.75;

    /// <summary>The share of native's peak rate at which the open loop sends.</summary>
    public const double OpenShare = 0.6;

    private static readonly Dictionary<string, string> HugePages = new() { ["MALLOC_CONF"] = "thp:always", ["JE_MALLOC_CONF"] = "thp:always" };

    private readonly Dictionary<long, double> _peaks = [];
    private double _done;
    private double _total;

    public List<TailResult> Results { get; } = [];

    public List<string> Failures { get; } = [];

    /// <summary>The share of the server's memory that was in huge pages where they were asked for, the least of all sizes.</summary>
    public double? HugeShare { get; private set; }

    public void Measure(IReadOnlyList<TailCase> cases, int rounds, long requests, TimeSpan limit)
    {
        var groups = cases.GroupBy(c => c.DataBytes).ToArray();
        _total = rounds * sides.Count * groups.Sum(g => Weight(g.Key) + g.Count());
        for (var round = 0; round < rounds; round++)
        {
            foreach (var group in groups)
            {
                foreach (var side in sides)
                {
                    var before = _done;
                    try
                    {
                        Measure(side, group.Key, [.. group], round, requests, limit);
                    }
                    catch (Exception e) when (e is BenchException or IOException)
                    {
                        context.Cancellation.ThrowIfCancellationRequested();
                        Failures.Add($"{Format.Bytes(group.Key)}, {side.Name}: {e.Message}");
                    }

                    _done = before + Weight(group.Key) + group.Count();
                }
            }
        }
    }

    // Loading a gigabyte takes about as long as a run.
    private static double Weight(long bytes) => bytes / (double)(1L << 30);

    private void Measure(Side side, long bytes, TailCase[] cases, int round, long requests, TimeSpan limit)
    {
        var huge = side.Key == Side.NativeHuge.Key;
        using var server = RedisServer.Start(
            new RedisServerOptions
            {
                Program = program,
                Launcher = side.Launcher,
                Arguments = huge ? ["--disable-thp", "no"] : [],
                Environment = huge ? HugePages : new Dictionary<string, string>(),
                TemporaryDirectory = context.TemporaryDirectory,
            },
            context.Cancellation);
        var keys = Math.Max(1, bytes / ValueSize);
        DataLoading.Load(server, keys, ValueSize, Compressible, share => context.Progress($"{Format.Bytes(bytes)}, {side.Name}: loading", (_done + share * Weight(bytes)) / _total), context.Cancellation);
        _done += Weight(bytes);
        if (huge) HugeShare = Math.Min(HugeShare ?? 1, ReadHugeShare(server.ProcessId));
        foreach (var where in cases)
        {
            // A BGSAVE that is still running would refuse the next one.
            server.AwaitBackgroundSave(TimeSpan.FromMinutes(5), context.Cancellation);
            RedisServer.Pause(300, context.Cancellation);
            var result = Measure(server, where, side, round, keys, requests, limit);
            if (result is { Case.IsPlain: true } && side.Key == Side.Native.Key) _peaks[bytes] = result.RateBefore;
            Results.Add(result);
            _done++;
        }
    }

    private TailResult Measure(RedisServer server, TailCase where, Side side, int round, long keys, long requests, TimeSpan limit)
    {
        var what = $"{where.Name}, {side.Name}";
        if (where.IsOpen && !_peaks.ContainsKey(where.DataBytes)) throw new BenchException("the rate of the open loop is a share of native's peak rate, which was not measured");
        var generator = LoadGenerator.Start(new LoadOptions
        {
            Port = server.Port,
            Outstanding = where.IsOpen ? 100_000 : 1000,
            Rate = where.IsOpen ? _peaks[where.DataBytes] * OpenShare : null,
            Requests = requests,
            Duration = limit,
            KeyCount = keys,
            Keys = where.Keys,
            ReadRatio = where.Reads / (where.Reads + 1.0),
            ValueSize = ValueSize,
            Compressible = Compressible,
            Seed = (ulong)round + 7,
        });
        TimeSpan begin, fork;
        TimeSpan? end = null;
        try
        {
            var delay = context.Quick ? 0.2 : 2;
            while (Since() < TimeSpan.FromSeconds(delay) && !generator.HasEnded) Step();
            begin = Since();
            fork = server.StartBackgroundSave();
            while (!generator.HasEnded)
            {
                Step();
                if (end is null && !server.IsSaving()) end = Since();
            }
        }
        finally
        {
            if (!generator.HasEnded) generator.Stop();
        }

        var load = generator.Wait(context.Cancellation);
        if (load.Errors > 0) throw new BenchException($"the server refused {load.Errors:#,0} requests: {load.FirstError}");
        if (begin >= load.Elapsed) Failures.Add($"{what}: the requests were done before the BGSAVE began");
        return new TailResult(where, side, round, load, fork, begin, end ?? load.Elapsed, end is not null);

        TimeSpan Since() => Stopwatch.GetElapsedTime(generator.StartTimestamp);

        void Step()
        {
            context.Progress(what, (_done + (double)generator.Completed / requests) / _total);
            RedisServer.Pause(100, context.Cancellation);
        }
    }

    private static double ReadHugeShare(int process)
    {
        var path = $"/proc/{process}/smaps_rollup";
        return Kilobytes("AnonHugePages") / Math.Max(1, Kilobytes("Rss"));

        double Kilobytes(string name) => double.TryParse((Machine.Field(path, name) ?? "0").Split(' ')[0], out var value) ? value : 0;
    }
}
