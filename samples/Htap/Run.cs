using System.Diagnostics;
using Privy;

namespace Htap;

/// <summary>What is compared: no snapshots at all, or the snapshots of an engine.</summary>
internal sealed record Mode(string Name, SnapshotEngine? Engine);

/// <summary>How to run.</summary>
internal sealed record Settings(long Memory, int Writers, TimeSpan Duration, TimeSpan Interval, ulong Seed);

/// <summary>What a run has measured.</summary>
internal sealed record Result(
    string Mode, double TransactionsPerSecond, Histogram Latency, int Snapshots, Histogram SnapshotTime, Histogram QueryTime, Histogram Freshness, long CopyBytes, IReadOnlyList<double> Series);

/// <summary>One comparison's run: writers at full speed, an analyst who looks at a fresh snapshot every so often.</summary>
internal static class Runner
{
    internal const int SeriesMilliseconds = 100;

    internal static Result Run(Mode mode, Settings settings)
    {
        using SnapshotRegion region = SnapshotRegion.Create(settings.Memory, new SnapshotRegionOptions { Engine = mode.Engine, AllowCopying = true, Populate = true });
        var bank = new Bank(region);
        var writers = new Writer[settings.Writers];
        for (int i = 0; i < writers.Length; i++)
            writers[i] = new Writer(bank, settings.Seed + (ulong)i);
        var analyst = new Analyst(region, bank, mode.Engine is null ? Timeout.InfiniteTimeSpan : settings.Interval);
        var threads = writers.Select(w => new Thread(w.Run)).Append(new Thread(analyst.Run)).ToList();
        long start = Stopwatch.GetTimestamp();
        threads.ForEach(t => t.Start());
        var series = new List<double>();
        long before = 0;
        while (Stopwatch.GetElapsedTime(start) < settings.Duration && analyst.Failure is null)
        {
            Thread.Sleep(SeriesMilliseconds);
            long now = writers.Sum(w => w.Done);
            series.Add((now - before) * 1000.0 / SeriesMilliseconds);
            before = now;
        }
        double seconds = Stopwatch.GetElapsedTime(start).TotalSeconds;
        long done = writers.Sum(w => w.Done);
        foreach (Writer writer in writers)
            writer.Stop = true;
        analyst.Stop.Set();
        threads.ForEach(t => t.Join());
        if (analyst.Failure is not null)
            throw analyst.Failure;
        // Once more, when all is quiet: every transaction is there.
        using (Snapshot last = region.TakeSnapshot())
        {
            long orders = bank.Query(last).Orders;
            long transactions = writers.Sum(w => w.Done);
            if (orders != transactions)
                throw new InvariantException($"{transactions} transactions were made, {orders} orders are there");
        }
        var latency = new Histogram();
        foreach (Writer writer in writers)
            latency.Add(writer.Latency);
        return new Result(mode.Name, done / seconds, latency, analyst.Snapshots, analyst.SnapshotTime, analyst.QueryTime, analyst.Freshness, analyst.MaxCopyBytes, series);
    }

    private static long Nanoseconds(long since) => (long)Stopwatch.GetElapsedTime(since).TotalNanoseconds;

    private sealed class Writer(Bank bank, ulong seed)
    {
        private long _done;

        internal volatile bool Stop;

        internal long Done => Volatile.Read(ref _done);

        internal Histogram Latency { get; } = new();

        internal void Run()
        {
            var random = new Random64(seed);
            while (!Stop)
            {
                long start = Stopwatch.GetTimestamp();
                bank.Transact(ref random);
                Latency.Add(Nanoseconds(start));
                Volatile.Write(ref _done, _done + 1);
            }
        }
    }

    private sealed class Analyst(SnapshotRegion region, Bank bank, TimeSpan interval)
    {
        internal ManualResetEventSlim Stop { get; } = new();

        internal volatile Exception? Failure;

        internal int Snapshots { get; private set; }

        internal long MaxCopyBytes { get; private set; }

        internal Histogram SnapshotTime { get; } = new();

        internal Histogram QueryTime { get; } = new();

        internal Histogram Freshness { get; } = new();

        internal void Run()
        {
            try
            {
                while (!Stop.Wait(interval))
                {
                    long start = Stopwatch.GetTimestamp();
                    using Snapshot snapshot = bank.Between(region.TakeSnapshot);
                    SnapshotTime.Add(Nanoseconds(start));
                    long query = Stopwatch.GetTimestamp();
                    bank.Query(snapshot);
                    QueryTime.Add(Nanoseconds(query));
                    // How old the answer is when it is there.
                    Freshness.Add(Nanoseconds(start));
                    MaxCopyBytes = Math.Max(MaxCopyBytes, region.Statistics.CopyBytes);
                    Snapshots++;
                }
            }
            catch (Exception e)
            {
                Failure = e;
            }
        }
    }
}
