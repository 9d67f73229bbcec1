using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Runtime;
using System.Runtime.CompilerServices;

namespace Privy.Library.Tests;

/// <summary>
/// All that a .NET program does to its own threads and memory at once, while snapshots are taken the whole time: allocation with every kind of garbage collection, thread-pool
/// growth, exceptions from null references, timers, sockets, child processes. Each part checks its own results and must get on.
/// </summary>
internal sealed class Stress(int seed, TimeSpan duration)
{
    private const int Pairs = 512;
    private const int Length = 2 * Pairs * SnapshotRegion.PageSize;

    private volatile bool _over;
    private readonly List<(string Name, Func<long> Done)> _parts = [];
    private Exception? _failure;

    private static readonly string? Nothing = Environment.GetEnvironmentVariable("PRIVY_TEST_NO_SUCH_VARIABLE");

    /// <summary>Runs for the duration. A line for each report; throws what went wrong.</summary>
    internal void Run(Action<string> report)
    {
        using SnapshotRegion region = SnapshotRegion.Create(Length, new() { AllowCopying = false });
        report($"{region.Engine} engine, seed {seed}, {duration.TotalSeconds:F0} s");
        var threads = new List<Thread>();
        Start(threads, "lists", Lists);
        Start(threads, "arrays", Arrays);
        Start(threads, "collections", Collections);
        Start(threads, "null references", NullReferences);
        Start(threads, "pool tasks", Pool);
        Start(threads, "echoes", Echoes);
        Start(threads, "children", Children);
        Start(threads, "writes", count => Write(region, count));
        Start(threads, "snapshots", count => Snapshots(region, count));
        long ticks = 0;
        _parts.Add(("timer ticks", () => Interlocked.Read(ref ticks)));
        long begin = Stopwatch.GetTimestamp();
        using (new Timer(_ => Interlocked.Increment(ref ticks), null, 1, 5))
        {
            var next = TimeSpan.FromSeconds(30);
            while (Going && Stopwatch.GetElapsedTime(begin) < duration)
            {
                Thread.Sleep(50);
                if (Stopwatch.GetElapsedTime(begin) < next)
                    continue;
                next += TimeSpan.FromSeconds(30);
                report(Text(begin));
            }
        }
        _over = true;
        threads.ForEach(t => t.Join());
        report(Text(begin));
        if (_failure is not null)
            throw new InvalidOperationException($"seed {seed}, after {Stopwatch.GetElapsedTime(begin).TotalSeconds:F0} s: {_failure.Message}", _failure);
        foreach ((string name, Func<long> done) in _parts)
        {
            if (done() == 0)
                throw new InvalidOperationException($"seed {seed}: nothing was done of: {name}");
        }
    }

    private string Text(long begin) =>
        $"{Stopwatch.GetElapsedTime(begin).TotalSeconds:F0} s: {string.Join(", ", _parts.Select(p => $"{p.Done()} {p.Name}"))}, {GC.CollectionCount(0)}/{GC.CollectionCount(1)}/{GC.CollectionCount(2)} collections, {ThreadPool.ThreadCount} pool threads";

    private delegate void Counter();

    private void Start(List<Thread> threads, string name, Action<Counter> part)
    {
        long count = 0;
        _parts.Add((name, () => Interlocked.Read(ref count)));
        var thread = new Thread(() =>
        {
            try
            {
                part(() => Interlocked.Increment(ref count));
            }
            catch (Exception e)
            {
                Interlocked.CompareExchange(ref _failure, e, null);
                _over = true;
            }
        }) { Name = name };
        threads.Add(thread);
        thread.Start();
    }

    private bool Going => !_over;

    private static void Check(bool condition, string what)
    {
        if (!condition)
            throw new InvalidDataException(what);
    }

    private sealed record Node(Node? Next, int Value);

    /// <summary>Lists that live for some generations, and are what they were.</summary>
    private void Lists(Counter count)
    {
        var kept = new Queue<(Node Head, int Length, long Sum)>();
        var random = new Random(seed);
        while (Going)
        {
            Node? head = null;
            long sum = 0;
            int length = random.Next(1, 5000);
            for (int i = 0; i < length; i++)
            {
                int value = random.Next();
                head = new Node(head, value);
                sum += value;
            }
            kept.Enqueue((head!, length, sum));
            if (kept.Count < 50)
                continue;
            (Node? node, int left, long expected) = kept.Dequeue();
            for (; node is not null; node = node.Next, left--)
                expected -= node.Value;
            Check(left == 0 && expected == 0, "a list has changed");
            count();
        }
    }

    /// <summary>Large objects, pinned ones, and strings.</summary>
    private void Arrays(Counter count)
    {
        var random = new Random(seed + 1);
        var kept = new byte[16][];
        while (Going)
        {
            int slot = random.Next(kept.Length);
            if (kept[slot] is { } old)
                Check(old.AsSpan().IndexOfAnyExcept((byte)slot) < 0, "an array has changed");
            kept[slot] = random.Next(4) == 0 ? GC.AllocateUninitializedArray<byte>(random.Next(1, 300_000), pinned: true) : new byte[random.Next(1, 300_000)];
            kept[slot].AsSpan().Fill((byte)slot);
            string text = string.Concat(Enumerable.Range(0, 20).Select(i => (slot * i).ToString(System.Globalization.CultureInfo.InvariantCulture)));
            Check(text.StartsWith('0'), "a string has changed");
            count();
        }
    }

    private void Collections(Counter count)
    {
        var random = new Random(seed + 2);
        while (Going)
        {
            switch (random.Next(5))
            {
                case 0:
                    GCSettings.LargeObjectHeapCompactionMode = GCLargeObjectHeapCompactionMode.CompactOnce;
                    GC.Collect(2, GCCollectionMode.Forced, blocking: true, compacting: true);
                    break;
                case 1:
                    GC.Collect(2, GCCollectionMode.Forced, blocking: false);
                    break;
                case 2:
                    GC.WaitForPendingFinalizers();
                    break;
                default:
                    GC.Collect(random.Next(2));
                    break;
            }
            Thread.Sleep(random.Next(20));
            count();
        }
    }

    /// <summary>Each is a SIGSEGV that the runtime turns into an exception.</summary>
    private void NullReferences(Counter count)
    {
        while (Going)
        {
            try
            {
                _ = LengthOf(Nothing);
                throw new InvalidDataException("a null reference had a length");
            }
            catch (NullReferenceException)
            {
                count();
            }
        }
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static int LengthOf(string? text) => text!.Length;

    /// <summary>Tasks that block make the pool grow.</summary>
    private void Pool(Counter count)
    {
        var random = new Random(seed + 3);
        while (Going)
        {
            int tasks = random.Next(1, 24);
            long sum = 0;
            Task[] all = [.. Enumerable.Range(0, tasks).Select(i => Task.Run(() =>
            {
                if (i % 3 == 0)
                    Thread.Sleep(10);
                Interlocked.Add(ref sum, i);
            }))];
            Task.WaitAll(all);
            Check(sum == tasks * (tasks - 1) / 2, "a task was lost");
            count();
        }
    }

    private void Echoes(Counter count)
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        Task server = Task.Run(async () =>
        {
            using TcpClient accepted = await listener.AcceptTcpClientAsync();
            NetworkStream stream = accepted.GetStream();
            byte[] buffer = new byte[8192];
            for (int length; (length = await stream.ReadAsync(buffer)) != 0;)
                await stream.WriteAsync(buffer.AsMemory(0, length));
        });
        using (var client = new TcpClient())
        {
            client.Connect((IPEndPoint)listener.LocalEndpoint);
            NetworkStream stream = client.GetStream();
            var random = new Random(seed + 4);
            while (Going)
            {
                byte[] sent = new byte[random.Next(1, 6000)];
                random.NextBytes(sent);
                Task write = stream.WriteAsync(sent).AsTask();
                byte[] received = new byte[sent.Length];
                stream.ReadExactly(received);
                write.Wait();
                Check(sent.AsSpan().SequenceEqual(received), "an echo has other bytes");
                count();
            }
        }
        server.Wait();
    }

    private void Children(Counter count)
    {
        var random = new Random(seed + 5);
        while (Going)
        {
            int status = random.Next(100);
            using var child = Process.Start(new ProcessStartInfo("/bin/sh", ["-c", $"read word; echo got $word; exit {status}"]) { RedirectStandardInput = true, RedirectStandardOutput = true })!;
            child.StandardInput.WriteLine(status);
            string output = child.StandardOutput.ReadToEnd();
            child.WaitForExit();
            Check(output == $"got {status}\n" && child.ExitCode == status, $"a child ended with {child.ExitCode} and said '{output}', in place of {status}");
            count();
            Thread.Sleep(random.Next(100));
        }
    }

    /// <summary>Each number is first written to the one page of a pair, then to the other.</summary>
    private unsafe void Write(SnapshotRegion region, Counter count)
    {
        var random = new Random(seed + 6);
        byte* memory = region.Pointer;
        for (long number = 1; Going; number++)
        {
            int pair = random.Next(Pairs);
            Volatile.Write(ref *(long*)(memory + (2L * pair * SnapshotRegion.PageSize)), number);
            Volatile.Write(ref *(long*)(memory + (((2L * pair) + 1) * SnapshotRegion.PageSize)), number);
            count();
        }
    }

    private unsafe void Snapshots(SnapshotRegion region, Counter count)
    {
        var random = new Random(seed + 7);
        var alive = new List<(Snapshot Snapshot, long Newest)>();
        long before = 0;
        while (Going)
        {
            Snapshot snapshot = region.TakeSnapshot();
            long newest = Newest(snapshot);
            Check(newest >= before, $"a snapshot's newest number is {newest}, an older one's {before}");
            before = newest;
            alive.Add((snapshot, newest));
            while (alive.Count > random.Next(5))
            {
                (Snapshot old, long expected) = alive[random.Next(alive.Count)];
                Check(Newest(old) == expected, "a view has changed");
                old.Dispose();
                alive.RemoveAll(a => a.Snapshot == old);
            }
            count();
            if (random.Next(3) == 0)
                Thread.Sleep(random.Next(20));
        }
        alive.ForEach(a => a.Snapshot.Dispose());
    }

    /// <summary>The newest number; at most one pair has it on one page only, since there is one writer.</summary>
    private static unsafe long Newest(Snapshot snapshot)
    {
        byte* view = snapshot.Pointer;
        long newest = 0;
        int halves = 0;
        for (int pair = 0; pair < Pairs; pair++)
        {
            long first = *(long*)(view + (2L * pair * SnapshotRegion.PageSize));
            long second = *(long*)(view + (((2L * pair) + 1) * SnapshotRegion.PageSize));
            Check(second <= first, $"pair {pair} has {first} and {second}: the later write is there and the earlier is not");
            halves += first == second ? 0 : 1;
            newest = Math.Max(newest, first);
        }
        Check(halves <= 1, $"{halves} pairs are half written by one thread");
        return newest;
    }
}

/// <summary>A short run of <see cref="Stress"/>; <c>./privy test --gc-stress MINUTES</c> is the long one.</summary>
public sealed class StressTests
{
    [EngineFact]
    public void Everything_at_once()
    {
        int seconds = int.TryParse(Environment.GetEnvironmentVariable("PRIVY_TEST_STRESS"), out int s) ? s : 5;
        new Stress(Random.Shared.Next(), TimeSpan.FromSeconds(seconds)).Run(Console.WriteLine);
    }
}
