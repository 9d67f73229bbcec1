using System.Diagnostics;
using System.Globalization;

namespace Privy.Bench.Workloads;

/// <summary>A thread writes to memory as fast as it can while snapshots are taken at an interval, each read in part by its child and released.</summary>
internal static unsafe class WritersAndSnapshots
{
    // Privy takes 63 at once. Where readers are slower than the interval more would only be in each other's way.
    private const int MostAlive = 16;

    private static Region s_region;
    private static long* s_writes;
    private static bool s_skewed;

    public static void Run(WorkloadArguments arguments)
    {
        s_region = Region.Create(arguments.Number("bytes"), arguments.Text("pages") == "huge");
        s_skewed = arguments.Text("writes") == "skewed";
        s_writes = (long*)Region.Shared(Region.Page).Start;
        var scan = Math.Min(arguments.Number("scan"), s_region.Bytes);
        var phase = arguments.Number("milliseconds") * 1_000_000;
        Kernel.BePunctual();
        new Thread(Write) { IsBackground = true }.Start();
        Thread.Sleep(200);
        foreach (var word in arguments.Text("intervals").Split(','))
        {
            var interval = long.Parse(word, CultureInfo.InvariantCulture);
            Workload.Phase(word);
            Measure(interval * 1000, phase, scan);
            Thread.Sleep(200);
        }
    }

    /// <summary>The writer: a random word of a random page. Skewed: nine of ten writes go to a sixty-fourth of the pages.</summary>
    private static void Write()
    {
        var random = new FastRandom(1);
        var hot = Math.Max(1, s_region.Pages / 64);
        long writes = 0;
        while (true)
        {
            var number = random.Next();
            var pages = s_skewed && number % 10 != 0 ? hot : s_region.Pages;
            var page = (long)Math.BigMul(number, (ulong)pages, out _);
            *(ulong*)(s_region.Start + page * Region.Page + ((long)(number & 511) << 3)) = number;
            if ((++writes & 15) == 0) Volatile.Write(ref *s_writes, writes);
        }
    }

    private static void Measure(long interval, long length, long scan)
    {
        var alive = new Queue<int>();
        var forks = new List<double>();
        var random = new FastRandom((ulong)interval);
        var begin = Stopwatch.GetTimestamp();
        var writes = Volatile.Read(ref *s_writes);
        var due = begin;
        if (interval == 0)
        {
            Kernel.SleepUntil(begin + length);
        }
        else
        {
            while (due < begin + length)
            {
                Kernel.SleepUntil(due);
                while (alive.TryPeek(out var oldest) && Kernel.HasEnded(oldest)) alive.Dequeue();
                if (alive.Count == MostAlive) Kernel.Wait(alive.Dequeue());
                var from = random.Next(s_region.Bytes / scan) * scan;
                var now = Stopwatch.GetTimestamp();
                var child = Kernel.Fork();
                if (child == 0)
                {
                    s_region.Scan(from, scan);
                    Kernel.Exit();
                }

                if (child > 0)
                {
                    forks.Add(Stopwatch.GetTimestamp() - now);
                    alive.Enqueue(child);
                }

                // A snapshot that came late moves the ones after it: they are not crowded together to make up for it.
                due = Math.Max(due + interval, Stopwatch.GetTimestamp() - interval);
            }
        }

        var seconds = (Stopwatch.GetTimestamp() - begin) / 1e9;
        var written = Volatile.Read(ref *s_writes) - writes;
        while (alive.TryDequeue(out var child)) Kernel.Wait(child);
        forks.Sort();
        Workload.Result("phase", interval / 1e6, written / seconds, forks.Count / seconds, forks.Count > 0 ? forks[forks.Count / 2] : 0, forks.Count > 0 ? forks[^1] : 0);
    }
}
