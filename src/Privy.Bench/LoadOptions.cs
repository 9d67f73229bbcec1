namespace Privy.Bench;

/// <summary>How the load generator picks keys.</summary>
public enum KeyDistribution
{
    /// <summary>Every key equally often.</summary>
    Uniform,

    /// <summary>A bell around the middle of the key range, of <see cref="LoadOptions.GaussianDeviation"/>.</summary>
    Gaussian,

    /// <summary>Each key once, in order: to load a data set.</summary>
    Sequential,
}

/// <summary>What load to put on a server.</summary>
public sealed record LoadOptions
{
    /// <summary>The server's port on the loopback address.</summary>
    public required int Port { get; init; }

    /// <summary>How many connections.</summary>
    public int Connections { get; init; } = 1;

    /// <summary>How many requests each connection may have on the way (its pipelining window).</summary>
    public int Outstanding { get; init; } = 64;

    /// <summary>Threads the connections are spread over.</summary>
    public int Threads { get; init; } = 1;

    /// <summary>The share of GETs, 0 to 1; the rest are SETs.</summary>
    public double ReadRatio { get; init; }

    /// <summary>The size of a value in bytes.</summary>
    public int ValueSize { get; init; } = 1024;

    /// <summary>The share of a value that repeats one byte, 0 to 1: what is left for a server that compresses its files to write.</summary>
    public double Compressible { get; init; }

    /// <summary>How many different keys.</summary>
    public long KeyCount { get; init; } = 1 << 20;

    /// <summary>How keys are picked.</summary>
    public KeyDistribution Keys { get; init; }

    /// <summary>For <see cref="KeyDistribution.Gaussian"/>: the standard deviation as a share of the key range.</summary>
    public double GaussianDeviation { get; init; } = 1.0 / 6;

    /// <summary>
    /// Requests per second over all connections. Null is a closed loop: a request goes out whenever there is room in a window.
    /// With a rate the loop is open: requests are due at fixed times, and latency counts from when a request was due, so that
    /// a server that stalls is charged for every request it kept waiting, sent or not.
    /// </summary>
    public double? Rate { get; init; }

    /// <summary>Ends the run after this time.</summary>
    public TimeSpan? Duration { get; init; }

    /// <summary>Ends the run after so many requests.</summary>
    public long? Requests { get; init; }

    /// <summary>The resolution of <see cref="LoadResult.Series"/>.</summary>
    public TimeSpan SlotWidth { get; init; } = TimeSpan.FromMilliseconds(10);

    /// <summary>Two runs with the same seed send the same requests.</summary>
    public ulong Seed { get; init; } = 1;

    internal void Validate()
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(Connections, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(Outstanding, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(Threads, 1);
        ArgumentOutOfRangeException.ThrowIfNegative(ValueSize);
        ArgumentOutOfRangeException.ThrowIfLessThan(KeyCount, 1);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(KeyCount, RequestTemplate.MaxKeys);
        if (ReadRatio is < 0 or > 1 or double.NaN) throw new ArgumentOutOfRangeException(nameof(ReadRatio), ReadRatio, "must be from 0 to 1");
        if (Compressible is < 0 or > 1 or double.NaN) throw new ArgumentOutOfRangeException(nameof(Compressible), Compressible, "must be from 0 to 1");
        if (Rate is { } rate && !(rate > 0)) throw new ArgumentOutOfRangeException(nameof(Rate), Rate, "must be positive");
        if (SlotWidth <= TimeSpan.Zero) throw new ArgumentOutOfRangeException(nameof(SlotWidth), SlotWidth, "must be positive");
    }
}
