namespace Privy.Bench.Soak;

/// <summary>What happened in one minute of a soak.</summary>
public sealed record SoakMinute
{
    /// <summary>Its number, from 1.</summary>
    public required int Number { get; init; }

    /// <summary>Requests of the load that were answered.</summary>
    public required long Requests { get; init; }

    /// <summary>Latencies of SETs and GETs together.</summary>
    public required LatencySummary Latency { get; init; }

    /// <summary>BGSAVEs that ended well.</summary>
    public required int Saves { get; init; }

    /// <summary>RDB files that were read and found right.</summary>
    public required int Verified { get; init; }

    /// <summary>The longest fork, by the server's own measurement.</summary>
    public required TimeSpan LongestFork { get; init; }

    /// <summary>Most memory that the process had resident.</summary>
    public required long ResidentBytes { get; init; }

    /// <summary>
    /// Of that, what the guest kernel's tables take at the end of the minute. They are not used again before <see cref="SoakRun.MostTables"/> of them have been
    /// used once, so this grows up to there.
    /// </summary>
    public required long TableBytes { get; init; }

    /// <summary>The longest time in which not even the watching thread ran: the machine, or somebody with SIGSTOP, held everything up.</summary>
    public required TimeSpan HeldUp { get; init; }

    /// <summary>Whether latencies of this minute say something about the server.</summary>
    public bool IsUndisturbed => HeldUp < TimeSpan.FromSeconds(1);

    /// <summary>Most memory that the server says it uses.</summary>
    public required long UsedBytes { get; init; }

    /// <summary>Open descriptors of the process at the end of the minute.</summary>
    public required int Descriptors { get; init; }

    /// <summary>Threads of the process at the end of the minute.</summary>
    public required int Threads { get; init; }

    /// <summary>Processes that descend from it at the end of the minute.</summary>
    public required int Descendants { get; init; }
}
