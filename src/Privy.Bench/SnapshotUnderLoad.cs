using System.Diagnostics;

namespace Privy.Bench;

/// <summary>What a server did when snapshots were taken under load.</summary>
public sealed record SnapshotUnderLoadResult
{
    /// <summary>How long each fork took, as the server says.</summary>
    public required IReadOnlyList<TimeSpan> Forks { get; init; }

    /// <summary>SETs at a fixed rate while a BGSAVE ran.</summary>
    public required LoadResult FixedRate { get; init; }

    /// <summary>When, since the start of the load, the BGSAVE of <see cref="FixedRate"/> began and ended.</summary>
    public required (TimeSpan Begin, TimeSpan End) Snapshot { get; init; }

    /// <summary>SETs as fast as they went while a BGSAVE ran.</summary>
    public required LoadResult FullSpeed { get; init; }

    /// <summary>Memory the server used before the snapshots (used_memory).</summary>
    public required long UsedMemory { get; init; }
}

/// <summary>
/// Loads a server with data, then takes two snapshots: one under a fixed rate of SETs, which shows what clients see, and
/// one under as many SETs as the server takes, which shows throughput.
/// </summary>
public sealed class SnapshotUnderLoad
{
    private static readonly TimeSpan BeforeSnapshot = TimeSpan.FromSeconds(2);
    private static readonly TimeSpan AfterSnapshot = TimeSpan.FromSeconds(1);

    /// <summary>The server to start.</summary>
    public required RedisServerOptions Server { get; init; }

    /// <summary>How much data to load, in bytes of values.</summary>
    public long DataBytes { get; init; } = 1L << 30;

    /// <summary>The size of a value.</summary>
    public int ValueSize { get; init; } = 1024;

    /// <summary>SETs per second of the fixed rate.</summary>
    public required double Rate { get; init; }

    /// <summary>Connections of both loads.</summary>
    public int Connections { get; init; } = 4;

    /// <summary>The pipelining window of a connection at full speed.</summary>
    public int Outstanding { get; init; } = 32;

    /// <summary>The longest a load may wait for its BGSAVE to end.</summary>
    public TimeSpan SnapshotLimit { get; init; } = TimeSpan.FromSeconds(9);

    /// <summary>Is told what is being done and the share of it that is done.</summary>
    public Action<string, double>? Progress { get; init; }

    // Like real values, these shrink in the RDB file; else the disk's speed decides how long a snapshot lives.
    private const double Compressible = 0.75;

    /// <summary>Starts the server, measures, and stops it.</summary>
    public SnapshotUnderLoadResult Run(CancellationToken cancellation = default)
    {
        var keys = Math.Max(1, DataBytes / ValueSize);
        var load = "loading " + (DataBytes >> 20) + " MB";
        Progress?.Invoke(load, 0);
        using var server = RedisServer.Start(Server, cancellation);
        DataLoading.Load(server, keys, ValueSize, Compressible, share => Progress?.Invoke(load, share), cancellation);
        var used = server.UsedMemory();

        var common = new LoadOptions { Port = server.Port, Connections = Connections, KeyCount = keys, ValueSize = ValueSize, Compressible = Compressible, Seed = 7 };
        var (fixedRate, fork1, snapshot) = UnderLoad(server, common with { Rate = Rate, Outstanding = 1024 }, "SETs at a fixed rate, BGSAVE", cancellation);
        var (fullSpeed, fork2, _) = UnderLoad(server, common with { Outstanding = Outstanding }, "SETs at full speed, BGSAVE", cancellation);
        return new SnapshotUnderLoadResult { Forks = [fork1, fork2], FixedRate = fixedRate, Snapshot = snapshot, FullSpeed = fullSpeed, UsedMemory = used };
    }

    private (LoadResult Load, TimeSpan Fork, (TimeSpan Begin, TimeSpan End) Snapshot) UnderLoad(RedisServer server, LoadOptions options, string what, CancellationToken cancellation)
    {
        var generator = LoadGenerator.Start(options);
        TimeSpan begin = default, end = default, fork = default;
        try
        {
            WaitUntil(() => Since() >= BeforeSnapshot);
            begin = Since();
            fork = server.StartBackgroundSave();
            WaitUntil(() => Since() - begin > SnapshotLimit || !server.IsSaving());
            end = Since();
            WaitUntil(() => Since() - end >= AfterSnapshot);
        }
        finally
        {
            generator.Stop();
        }

        var result = generator.Wait(cancellation);
        server.AwaitBackgroundSave(TimeSpan.FromSeconds(60), cancellation);
        if (result.Errors > 0) throw new BenchException($"the server refused {result.Errors:#,0} SETs: {result.FirstError}");
        Progress?.Invoke(what, 1);
        return (result, fork, (begin, end));

        TimeSpan Since() => Stopwatch.GetElapsedTime(generator.StartTimestamp);

        void WaitUntil(Func<bool> condition)
        {
            // Asking the server ten times a second is no load to speak of.
            while (!condition() && !generator.HasEnded)
            {
                Progress?.Invoke(what, Math.Min(0.99, Since().TotalSeconds / (BeforeSnapshot + AfterSnapshot + SnapshotLimit).TotalSeconds));
                RedisServer.Pause(100, cancellation);
            }
        }
    }
}
