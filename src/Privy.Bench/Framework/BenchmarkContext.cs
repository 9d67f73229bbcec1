namespace Privy.Bench.Framework;

/// <summary>What a benchmark gets from the command line and from the machine.</summary>
public sealed class BenchmarkContext
{
    /// <summary>Seconds instead of minutes: for tests, and to try a benchmark.</summary>
    public bool Quick { get; init; }

    /// <summary>All combinations, however long it takes.</summary>
    public bool Full { get; init; }

    /// <summary>The most memory that the data of a benchmark may take.</summary>
    public long MemoryBytes { get; init; } = DefaultMemory();

    /// <summary>How this program is started: it is also the program that is measured (<see cref="Workloads.Workload"/>).</summary>
    public required IReadOnlyList<string> Self { get; init; }

    /// <summary>The command line that puts a program under Privy with further options, such as <c>privy run --syscalls ring --</c>.</summary>
    public required Func<string[], IReadOnlyList<string>> PrivyLauncher { get; init; }

    /// <summary>Whether programs can run under Privy on this machine; without it only the native side is measured.</summary>
    public bool HasPrivy { get; init; } = true;

    /// <summary>Where servers may write their files.</summary>
    public string TemporaryDirectory { get; init; } = Path.GetTempPath();

    /// <summary>Is told what is being done and the share of the benchmark that is done.</summary>
    public Action<string, double> Progress { get; init; } = (_, _) => { };

    /// <summary>Ends the run early.</summary>
    public CancellationToken Cancellation { get; init; }

    /// <summary>What is available, less what the machine and the copies during snapshots need.</summary>
    public static long DefaultMemory()
    {
        var available = Machine.AvailableMemory();
        return Math.Max(0, available - Math.Max(2L << 30, available / 5));
    }

    /// <summary>One of three values by the kind of run.</summary>
    public T Choose<T>(T quick, T normal, T full) => Quick ? quick : Full ? full : normal;

    /// <summary>The sides of a comparison: native, and Privy where it runs.</summary>
    public IReadOnlyList<Side> Sides() => HasPrivy ? [Side.Native, Privy()] : [Side.Native];

    /// <summary>The side under Privy.</summary>
    public Side Privy(params string[] options) => Side.Privy with { Launcher = PrivyLauncher(options) };
}
