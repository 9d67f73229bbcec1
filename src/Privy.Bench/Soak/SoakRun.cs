using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;

namespace Privy.Bench.Soak;

/// <summary>Redis under load with a BGSAVE each second, every RDB file of which is checked, for a long time: nothing may grow, get lost or be wrong.</summary>
public sealed class SoakRun : IDisposable
{
    /// <summary>The guest kernel's rotation of its page tables (16 MB), and what else its region holds.</summary>
    public const long MostTables = (16 + 64) << 20;

    private const ulong KernelRegionStart = 0x0800_0000_0000, KernelRegionEnd = 0x0880_0000_0000;
    private const int ValueSize = 512;
    private const int BytesPerKey = ValueSize + 96;
    private const int Connections = 16;
    private static readonly TimeSpan SaveTimeout = TimeSpan.FromMinutes(3);

    private readonly ConcurrentQueue<string> _failures = new();
    private readonly CancellationTokenSource _end = new();
    private readonly BlockingCollection<SavedFile> _files = new(2);
    private int _saves, _verified;
    private long _longestFork, _resident, _used, _heldUp;
    private long _allSaves, _allVerified, _verifiedBytes;

    private sealed record SavedFile(FileStream File, long Least, long Most, int Number);

    /// <summary>How long the load lasts.</summary>
    public required TimeSpan Duration { get; init; }

    /// <summary>The server's program.</summary>
    public required string Program { get; init; }

    /// <summary>What precedes its command line; empty: native.</summary>
    public required IReadOnlyList<string> Launcher { get; init; }

    /// <summary>How much data the server holds.</summary>
    public required long DataBytes { get; init; }

    /// <summary>Requests per second.</summary>
    public required double Rate { get; init; }

    /// <summary>Seed of the load and of the ledger.</summary>
    public required ulong Seed { get; init; }

    /// <summary>Is told of each minute.</summary>
    public required Action<SoakMinute> Report { get; init; }

    /// <summary>The minutes so far.</summary>
    public List<SoakMinute> Minutes { get; } = [];

    /// <summary>BGSAVEs that ended well.</summary>
    public long Saves => _allSaves;

    /// <summary>RDB files that were read and found right, every byte.</summary>
    public long Verified => _allVerified;

    /// <summary>Bytes of them.</summary>
    public long VerifiedBytes => _verifiedBytes;

    /// <summary>Transfers of the ledger.</summary>
    public long Transfers { get; private set; }

    /// <summary>Runs, and returns what went wrong; an empty list is a success.</summary>
    public IReadOnlyList<string> Run(CancellationToken cancellation)
    {
        using var server = RedisServer.Start(new RedisServerOptions { Program = Program, Launcher = Launcher, AllowDebug = true, Arguments = ["--rdbcompression", "no"] }, cancellation);
        var keys = Math.Max(1, DataBytes / BytesPerKey);
        Fill(server, keys, cancellation);
        using (var ledger = new Ledger(server.Port, Seed))
        {
            // The pool that the load cuts its values from.
            var template = new RequestTemplate(ValueSize, 0, Seed);
            var check = new RdbCheck(ledger, keys, ValueSize, template.Pool);
            using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation, _end.Token);
            Thread[] threads =
            [
                new(() => Guard(() => Save(server, ledger, stop.Token))) { Name = "save", IsBackground = true },
                new(() => Guard(() => Verify(check))) { Name = "verify", IsBackground = true },
                new(() => Guard(() => Watch(server, stop.Token))) { Name = "watch", IsBackground = true },
            ];
            foreach (var thread in threads) thread.Start();
            try
            {
                Load(server, keys, ledger, cancellation);
            }
            finally
            {
                _end.Cancel();
                foreach (var thread in threads) thread.Join();
                ledger.Stop();
            }

            Transfers = ledger.Acknowledged;
            if (ledger.Failure is { } failure) _failures.Enqueue("the ledger's client: " + failure);
        }

        cancellation.ThrowIfCancellationRequested();
        if (_failures.IsEmpty) CompareWithReload(server, cancellation);
        Judge();
        return [.. _failures];
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _end.Dispose();
        _files.Dispose();
    }

    private void Load(RedisServer server, long keys, Ledger ledger, CancellationToken cancellation)
    {
        var begin = Stopwatch.GetTimestamp();
        for (var minute = 1; _failures.IsEmpty && Stopwatch.GetElapsedTime(begin) < Duration; minute++)
        {
            var left = Duration - Stopwatch.GetElapsedTime(begin);
            var result = LoadGenerator.Run(
                new LoadOptions
                {
                    Port = server.Port,
                    Connections = Connections,
                    KeyCount = keys,
                    ValueSize = ValueSize,
                    ReadRatio = 0.5,
                    Rate = Rate,
                    Duration = left < TimeSpan.FromMinutes(1) ? left : TimeSpan.FromMinutes(1),
                    Seed = Seed,
                },
                cancellation);
            if (result.Errors > 0) _failures.Enqueue($"minute {minute}: the server refused {result.Errors} requests: {result.FirstError}");
            if (ledger.Failure is { } failure) _failures.Enqueue($"minute {minute}: the ledger's client: {failure}");
            var latencies = LoadWorker.NewHistogram();
            latencies.Add(result.Writes);
            latencies.Add(result.Reads);
            var row = new SoakMinute
            {
                Number = minute,
                Requests = result.Requests,
                Latency = LatencySummary.Of(latencies),
                Saves = Interlocked.Exchange(ref _saves, 0),
                Verified = Interlocked.Exchange(ref _verified, 0),
                LongestFork = new TimeSpan(Interlocked.Exchange(ref _longestFork, 0)),
                ResidentBytes = Interlocked.Exchange(ref _resident, 0),
                TableBytes = ResidentIn(server.ProcessId, KernelRegionStart, KernelRegionEnd),
                HeldUp = new TimeSpan(Interlocked.Exchange(ref _heldUp, 0)),
                UsedBytes = Interlocked.Exchange(ref _used, 0),
                Descriptors = Count($"/proc/{server.ProcessId}/fd"),
                Threads = Count($"/proc/{server.ProcessId}/task"),
                Descendants = Descendants(server.ProcessId),
            };
            Minutes.Add(row);
            Report(row);
        }
    }

    private void Fill(RedisServer server, long keys, CancellationToken cancellation)
    {
        var result = LoadGenerator.Run(new LoadOptions { Port = server.Port, Connections = 2, Outstanding = 128, KeyCount = keys, ValueSize = ValueSize, Keys = KeyDistribution.Sequential, Requests = keys, Seed = Seed }, cancellation);
        if (result.Errors > 0) throw new BenchException($"the server refused {result.Errors:#,0} SETs: {result.FirstError}");
    }

    private void Save(RedisServer server, Ledger ledger, CancellationToken stop)
    {
        try
        {
            var next = Stopwatch.GetTimestamp();
            for (var number = 1; !stop.IsCancellationRequested; number++)
            {
                var least = ledger.Acknowledged;
                var fork = server.StartBackgroundSave();
                var most = ledger.Issued;
                Raise(ref _longestFork, fork.Ticks);
                server.AwaitBackgroundSave(SaveTimeout, CancellationToken.None);
                Interlocked.Increment(ref _saves);
                Interlocked.Increment(ref _allSaves);
                // The next BGSAVE renames another file to this name; this one stays as long as it is open.
                _files.Add(new SavedFile(File.OpenRead(Path.Combine(server.DataDirectory, "dump.rdb")), least, most, number), CancellationToken.None);
                next += Stopwatch.Frequency;
                var now = Stopwatch.GetTimestamp();
                if (next < now) next = now;
                stop.WaitHandle.WaitOne(TimeSpan.FromSeconds((next - now) / (double)Stopwatch.Frequency));
            }
        }
        finally
        {
            _files.CompleteAdding();
        }
    }

    private void Verify(RdbCheck check)
    {
        var buffer = Array.Empty<byte>();
        foreach (var saved in _files.GetConsumingEnumerable())
        {
            // Whatever happens here, the files go on being taken: the other side waits for room.
            Guard(() => Verify(check, saved, ref buffer));
        }
    }

    private void Verify(RdbCheck check, SavedFile saved, ref byte[] buffer)
    {
        using var file = saved.File;
        var length = (int)file.Length;
        if (buffer.Length < length) buffer = GC.AllocateUninitializedArray<byte>(length + length / 8, pinned: true);
        file.ReadExactly(buffer, 0, length);
        if (check.Check(buffer.AsSpan(0, length), saved.Least, saved.Most) is { } wrong)
        {
            _failures.Enqueue($"the RDB file of BGSAVE {saved.Number} is invalid: {wrong}");
            return;
        }

        Interlocked.Increment(ref _verified);
        Interlocked.Increment(ref _allVerified);
        Interlocked.Add(ref _verifiedBytes, length);
    }

    private void Watch(RedisServer server, CancellationToken stop)
    {
        using var client = RespClient.Connect(server.Port, SaveTimeout);
        const int period = 500;
        for (var last = Stopwatch.GetTimestamp(); !stop.WaitHandle.WaitOne(period); last = Stopwatch.GetTimestamp())
        {
            Raise(ref _heldUp, (Stopwatch.GetElapsedTime(last) - TimeSpan.FromMilliseconds(period)).Ticks);
            Raise(ref _used, long.Parse(client.Info("memory")["used_memory"], CultureInfo.InvariantCulture));
            var resident = Machine.Field($"/proc/{server.ProcessId}/status", "VmRSS") ?? throw new BenchException("the server's process has ended");
            Raise(ref _resident, long.Parse(resident.Split(' ')[0], CultureInfo.InvariantCulture) * 1024);
        }
    }

    private void Guard(Action work)
    {
        try
        {
            work();
        }
        catch (Exception e) when (e is BenchException or IOException or InvalidDataException or UnauthorizedAccessException)
        {
            _failures.Enqueue($"{Thread.CurrentThread.Name}: {e.Message}");
        }
    }

    /// <summary>A native server that loads the last file must hold the same as the one that wrote it.</summary>
    private void CompareWithReload(RedisServer server, CancellationToken cancellation)
    {
        server.StartBackgroundSave();
        server.AwaitBackgroundSave(SaveTimeout, cancellation);
        using var native = RedisServer.Start(new RedisServerOptions { Program = Program, AllowDebug = true }, cancellation);
        File.Copy(Path.Combine(server.DataDirectory, "dump.rdb"), Path.Combine(native.DataDirectory, "dump.rdb"), overwrite: true);
        native.Control.Command("DEBUG", "RELOAD", "NOSAVE");
        var (ours, theirs) = (server.Control.Command("DEBUG", "DIGEST"), native.Control.Command("DEBUG", "DIGEST"));
        if (ours != theirs) _failures.Enqueue($"the digest of the data is {ours}, a native server that loaded the last RDB file has {theirs}");
    }

    private void Judge()
    {
        var undisturbed = Minutes.Where(m => m.IsUndisturbed).ToArray();
        Check(Growth.Find("resident memory without page tables", [.. Minutes.Select(m => (double)(m.ResidentBytes - m.TableBytes))], 1.05, 32 << 20, Megabytes));
        if (Minutes.Select(m => m.TableBytes).DefaultIfEmpty().Max() is > MostTables and var tables) _failures.Enqueue($"page tables took {Megabytes(tables)}, more than the {MostTables >> 20} MB they rotate in");
        Check(Growth.Find("used_memory", [.. Minutes.Select(m => (double)m.UsedBytes)], 1.05, 8 << 20, Megabytes));
        Check(Growth.Find("the number of open descriptors", [.. Minutes.Select(m => (double)m.Descriptors)], 1, 8, Plain));
        Check(Growth.Find("the number of threads", [.. Minutes.Select(m => (double)m.Threads)], 1, 4, Plain));
        Check(Growth.Find("the number of processes", [.. Minutes.Select(m => (double)m.Descendants)], 1, 2, Plain));
        Check(Growth.Find("the median latency", [.. undisturbed.Select(m => m.Latency.P50.TotalMilliseconds)], 1.5, 0.5, Milliseconds));
        Check(Growth.Find("the latency at 99%", [.. undisturbed.Select(m => m.Latency.P99.TotalMilliseconds)], 2, 5, Milliseconds));
        if (_allVerified != _allSaves) _failures.Enqueue($"{_allVerified} of {_allSaves} RDB files were found right");

        void Check(string? growth)
        {
            if (growth is not null) _failures.Enqueue(growth);
        }

        static string Megabytes(double bytes) => string.Create(CultureInfo.InvariantCulture, $"{bytes / (1 << 20):0} MB");
        static string Plain(double value) => string.Create(CultureInfo.InvariantCulture, $"{value:0}");
        static string Milliseconds(double value) => string.Create(CultureInfo.InvariantCulture, $"{value:0.00} ms");
    }

    private static void Raise(ref long target, long value)
    {
        for (var old = Volatile.Read(ref target); value > old;)
        {
            var seen = Interlocked.CompareExchange(ref target, value, old);
            if (seen == old) return;
            old = seen;
        }
    }

    private static int Count(string directory) => Directory.Exists(directory) ? Directory.GetFileSystemEntries(directory).Length : 0;

    /// <summary>Resident memory in a range of a process' addresses, which mappings do not cross.</summary>
    private static long ResidentIn(int processId, ulong start, ulong end)
    {
        long sum = 0;
        var inside = false;
        foreach (var line in (Machine.Read($"/proc/{processId}/smaps") ?? "").Split('\n'))
        {
            var dash = line.IndexOf('-', StringComparison.Ordinal);
            if (dash is > 0 and <= 16 && ulong.TryParse(line.AsSpan(0, dash), NumberStyles.HexNumber, CultureInfo.InvariantCulture, out var address))
                inside = address >= start && address < end;
            else if (inside && line.StartsWith("Rss:", StringComparison.Ordinal))
                sum += long.Parse(line.AsSpan(4).Trim().TrimEnd(" kB"), CultureInfo.InvariantCulture) * 1024;
        }

        return sum;
    }

    private static int Descendants(int processId)
    {
        var parents = new Dictionary<int, int>();
        foreach (var directory in Directory.GetDirectories("/proc"))
        {
            if (int.TryParse(Path.GetFileName(directory), CultureInfo.InvariantCulture, out var id) && Machine.Field(directory + "/status", "PPid") is { } parent)
                parents[id] = int.Parse(parent, CultureInfo.InvariantCulture);
        }

        return parents.Keys.Count(id =>
        {
            while (parents.TryGetValue(id, out id))
                if (id == processId) return true;
            return false;
        });
    }
}
