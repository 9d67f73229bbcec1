using System.Diagnostics;
using System.Runtime;
using HdrHistogram;

namespace Privy.Bench;

/// <summary>
/// Puts load on a Redis server and records every request's latency. Each thread owns some connections and waits for all of them at
/// once; buffers and histograms are allocated before the first request, so that no garbage collection falls into a run.
/// </summary>
public sealed class LoadGenerator
{
    private const long AllocationDuringRun = 128 << 20;

    private readonly LoadWorker[] _workers;
    private readonly Thread[] _threads;
    private readonly Exception?[] _failures;
    private readonly long _start;
    private readonly int _collections;
    private bool _stop;

    private LoadGenerator(LoadOptions options)
    {
        var threads = Math.Min(options.Threads, options.Connections);
        _workers = new LoadWorker[threads];
        _threads = new Thread[threads];
        _failures = new Exception?[threads];
        var template = new RequestTemplate(options.ValueSize, options.Compressible, options.Seed);
        try
        {
            for (var i = 0; i < threads; i++) _workers[i] = new LoadWorker(options, template, i, threads);
        }
        catch
        {
            foreach (var worker in _workers) worker?.Dispose();
            throw;
        }

        // Collects now what the set-up threw away, and sets memory aside for what the process allocates during the run.
        if (GCSettings.LatencyMode != GCLatencyMode.NoGCRegion) GC.TryStartNoGCRegion(AllocationDuringRun);
        _collections = GC.CollectionCount(0);
        _start = Stopwatch.GetTimestamp();
        for (var i = 0; i < threads; i++)
        {
            var index = i;
            _threads[i] = new Thread(() => RunWorker(index)) { IsBackground = true, Name = "load" };
            _threads[i].Start();
        }
    }

    /// <summary>Requests completed so far.</summary>
    public long Completed => _workers.Sum(w => w.Completed);

    /// <summary>Whether the run has come to its end.</summary>
    public bool HasEnded => _threads.All(t => !t.IsAlive);

    /// <summary>When the run began, as a <see cref="Stopwatch"/> time stamp.</summary>
    public long StartTimestamp => _start;

    /// <summary>Connects, and starts to send.</summary>
    public static LoadGenerator Start(LoadOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        options.Validate();
        return new LoadGenerator(options);
    }

    /// <summary>Runs a load that has an end.</summary>
    public static LoadResult Run(LoadOptions options, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(options);
        if (options.Duration is null && options.Requests is null) throw new ArgumentException("a load needs a duration or a number of requests", nameof(options));
        return Start(options).Wait(cancellation);
    }

    /// <summary>Sends no more requests; those on the way are still awaited.</summary>
    public void Stop() => Volatile.Write(ref _stop, true);

    /// <summary>Waits for the end of the run and returns what it did.</summary>
    public LoadResult Wait(CancellationToken cancellation = default)
    {
        using (cancellation.Register(Stop))
            foreach (var thread in _threads) thread.Join();

        var collections = GC.CollectionCount(0) - _collections;
        if (GCSettings.LatencyMode == GCLatencyMode.NoGCRegion) GC.EndNoGCRegion();
        foreach (var worker in _workers) worker.Dispose();
        cancellation.ThrowIfCancellationRequested();
        foreach (var failure in _failures)
            if (failure is not null) throw new BenchException("the load on the server broke off: " + failure.Message, failure);

        var writes = LoadWorker.NewHistogram();
        var reads = LoadWorker.NewHistogram();
        foreach (var worker in _workers)
        {
            writes.Add(worker.Writes);
            reads.Add(worker.Reads);
            worker.Series.Complete();
        }

        var end = _workers.Max(w => w.EndTimestamp);
        return new LoadResult
        {
            Requests = Completed,
            Elapsed = Stopwatch.GetElapsedTime(_start, end),
            Errors = _workers.Sum(w => w.Errors),
            FirstError = _workers.Select(w => w.FirstError).FirstOrDefault(e => e is not null),
            Writes = writes,
            Reads = reads,
            Series = LatencySeries.Merge([.. _workers.Select(w => w.Series)]),
            StartTimestamp = _start,
            GarbageCollections = collections,
        };
    }

    private void RunWorker(int index)
    {
        try
        {
            _workers[index].Run(_start, ref _stop);
        }
        catch (Exception e) when (e is IOException or InvalidDataException or System.Net.Sockets.SocketException)
        {
            _failures[index] = e;
            Stop();
        }
    }
}
