using System.Diagnostics;
using System.Globalization;

namespace Privy.Bench.Workloads;

/// <summary>What the library's snapshots cost: taking them, writing beside them, reading them, and checkpoints of what has changed.</summary>
internal static unsafe class LibraryCosts
{
    private static volatile bool s_stop;
    private static volatile bool s_asked;
    private static long s_writes;
    private static long s_processorTime;

    public static void Run(WorkloadArguments arguments)
    {
        var touched = arguments.Number("bytes");
        var milliseconds = arguments.Number("milliseconds");
        foreach (var word in arguments.Text("sizes").Split(','))
        {
            var size = long.Parse(word, CultureInfo.InvariantCulture);
            using var region = SnapshotRegion.Create(size);
            var used = Math.Min(size, touched);
            Fill(region, used);
            Workload.Phase($"snapshots of {size >> 20} MB");
            Take(region, used, milliseconds);
            if (size != long.Parse(arguments.Text("size"), CultureInfo.InvariantCulture)) continue;
            Workload.Phase("writers beside snapshots");
            foreach (var hot in (int[])[64, 256, 1024]) WriteBeside(region, used, hot, milliseconds);
            Workload.Phase("reading a view");
            Scan(region, Math.Min(used, 256L << 20));
        }

        Workload.Phase("checkpoints");
        Checkpoints(arguments.Number("checkpoint"), arguments.Text("folder"));
    }

    /// <summary>Values that no engine can leave out as zeros.</summary>
    private static void Fill(SnapshotRegion region, long bytes)
    {
        var words = (ulong*)region.Pointer;
        for (long i = 0; i < bytes / 8; i += 8) words[i] = (ulong)i + 1;
    }

    /// <summary>Snapshots every 10 ms while one thread writes.</summary>
    private static void Take(SnapshotRegion region, long used, long milliseconds)
    {
        var writer = StartWriter(region, used, 256);
        var times = new List<double>();
        var end = Stopwatch.GetTimestamp() + milliseconds * Stopwatch.Frequency / 1000;
        while (Stopwatch.GetTimestamp() < end)
        {
            Thread.Sleep(10);
            var begin = Stopwatch.GetTimestamp();
            using var snapshot = region.TakeSnapshot();
            times.Add(Stopwatch.GetElapsedTime(begin).TotalNanoseconds);
        }

        Stop(writer);
        times.Sort();
        Workload.Result("take", region.Length, times.Count, times[times.Count / 2], times[times.Count * 99 / 100], times[^1]);
    }

    /// <summary>The same writer without and with 100 snapshots a second, several times in turn.</summary>
    private static void WriteBeside(SnapshotRegion region, long used, int hot, long milliseconds)
    {
        var writer = StartWriter(region, used, hot);
        Thread.Sleep(300);
        for (var round = 0; round < 3; round++)
        {
            var alone = Count(0);
            var copies = region.Statistics.PagesCopied;
            var beside = Count(10);
            copies = region.Statistics.PagesCopied - copies;
            // What of the writer's processor time its writes do not account for: other programs' turns are not in it.
            var more = beside.ProcessorTime - (beside.Writes * alone.ProcessorTime / alone.Writes);
            Workload.Result("kept", hot, beside.Rate / alone.Rate, beside.Snapshots, alone.Rate, beside.Rate, more / Math.Max(copies, 1));
        }

        Stop(writer);

        (double Writes, double ProcessorTime, double Rate, double Snapshots) Count(long interval)
        {
            var (begin, taken) = (Stopwatch.GetTimestamp(), 0);
            var before = AskWriter();
            Snapshot? held = null;
            for (var due = interval; Stopwatch.GetElapsedTime(begin).TotalMilliseconds < milliseconds; due += interval)
            {
                var wait = interval == 0 ? milliseconds : due - Stopwatch.GetElapsedTime(begin).TotalMilliseconds;
                if (wait > 0) Thread.Sleep(TimeSpan.FromMilliseconds(wait));
                if (interval == 0) continue;
                // Each lives until the next is there.
                var next = region.TakeSnapshot();
                held?.Dispose();
                held = next;
                taken++;
            }

            var seconds = Stopwatch.GetElapsedTime(begin).TotalSeconds;
            var after = AskWriter();
            held?.Dispose();
            return (after.Writes - before.Writes, after.ProcessorTime - before.ProcessorTime, (after.Writes - before.Writes) / seconds, taken / seconds);
        }
    }

    /// <summary>Random words of so many pages, which lie scattered over the region as a database's hot records do.</summary>
    private static Thread StartWriter(SnapshotRegion region, long used, int hot)
    {
        var stride = used / SnapshotRegion.PageSize / hot * SnapshotRegion.PageSize;
        var memory = region.Pointer;
        s_stop = false;
        var thread = new Thread(() =>
        {
            var random = new FastRandom(7);
            long writes = 0;
            while (!s_stop)
            {
                // As much work beside the write as a short transaction has.
                var number = random.Next();
                for (var i = 0; i < 32; i++) number += random.Next() >> 60;
                *(ulong*)(memory + (long)Math.BigMul(number, (ulong)hot, out _) * stride + ((long)(number & 511) << 3)) = number;
                if ((++writes & 15) == 0 && s_asked)
                {
                    s_writes = writes;
                    s_processorTime = Kernel.ThreadTime();
                    s_asked = false;
                }
            }
        });
        thread.Start();
        return thread;
    }

    private static void Stop(Thread writer)
    {
        s_stop = true;
        writer.Join();
    }

    /// <summary>How far the writer is, and what processor time it has had.</summary>
    private static (long Writes, long ProcessorTime) AskWriter()
    {
        s_asked = true;
        while (s_asked) Thread.Sleep(1);
        return (s_writes, s_processorTime);
    }

    private static void Scan(SnapshotRegion region, long bytes)
    {
        using var snapshot = region.TakeSnapshot();
        // Some of what the view shows are copies.
        for (long at = 0; at < bytes; at += 64 * SnapshotRegion.PageSize) *(region.Pointer + at) ^= 1;
        Sum(snapshot.Pointer, bytes);
        for (var round = 0; round < 9; round++)
        {
            var live = Sum(region.Pointer, bytes);
            var view = Sum(snapshot.Pointer, bytes);
            Workload.Result("scan", live, view, live / view);
        }
    }

    /// <summary>Nanoseconds to add all words up.</summary>
    private static double Sum(byte* memory, long bytes)
    {
        var begin = Stopwatch.GetTimestamp();
        ulong sum = 0;
        var words = (ulong*)memory;
        for (long i = 0; i < bytes / 8; i++) sum += words[i];
        var elapsed = Stopwatch.GetElapsedTime(begin).TotalNanoseconds;
        return sum == 0 ? throw new InvalidOperationException("the memory that was read is empty") : elapsed;
    }

    private static void Checkpoints(long bytes, string folder)
    {
        using var region = SnapshotRegion.Create(bytes);
        Fill(region, bytes);
        using var checkpointer = new Checkpointer(region, folder);
        var full = checkpointer.Write();
        Workload.Result("checkpoint", 1, full.Pages, full.FileBytes, full.Duration.TotalNanoseconds);
        var pages = bytes / SnapshotRegion.PageSize;
        var random = new FastRandom(3);
        for (var round = 0; round < 3; round++)
        {
            for (var i = 0; i < pages / 100; i++) *(ulong*)(region.Pointer + random.Next(pages) * SnapshotRegion.PageSize) += 1;
            var increment = checkpointer.Write();
            Workload.Result("checkpoint", 0, increment.Pages, increment.FileBytes, increment.Duration.TotalNanoseconds);
        }
    }
}
