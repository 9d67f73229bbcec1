using System.Globalization;
using Privy.Bench;
using Privy.Cli.Doctor;
using Spectre.Console;

namespace Privy.Cli;

/// <summary><c>privy demo</c>: the same server, data and load natively and under Privy, with snapshots in the middle.</summary>
internal sealed class DemoCommand
{
    /// <summary>
    /// SETs per second. Each request is a few system calls, and an exit costs up to 30 µs where KVM is paravirtual: at a rate near the
    /// capacity of one side the figures would show its queue and not the snapshot.
    /// </summary>
    public const double DefaultRate = 2_000;

    public required string Picture { get; init; }
    public long DataBytes { get; init; }
    public double Rate { get; init; }
    public bool UseArray { get; init; }

    /// <summary>In a build directory's tree the picture goes among the build's products; elsewhere into the working directory.</summary>
    public static string DefaultPicture() => Directory.Exists("artifacts") ? Path.Combine("artifacts", "demo.png") : "privy-demo.png";

    public int Run(CancellationToken cancellation)
    {
        var health = DoctorReport.Examine();
        if (!health.CanRun)
        {
            Terminal.Out.WriteLine("Programs cannot run under Privy on this machine, so only the native half is measured. What 'privy doctor' found:");
            DoctorReport.Print(health);
            Terminal.Out.WriteLine();
        }

        if (!UseArray && RedisServer.FindInstalled() is { } program)
        {
            Terminal.Out.WriteLine($"{program} {RedisServer.Version(program)}, {MemorySize.Format(DataBytes)} of data, values of 1 KB. {Machine.Describe()}");
            return RunRedis(program, health.CanRun, cancellation);
        }

        if (!UseArray) Terminal.Out.WriteLine("No redis-server in PATH (Debian: apt-get install redis-server). In its place runs a built-in program:");
        return RunArray(health.CanRun, cancellation);
    }

    private int RunRedis(string program, bool withPrivy, CancellationToken cancellation)
    {
        RequireMemory(DataBytes * 5 / 2);
        PreparePicture();
        SnapshotUnderLoadResult? privileged = null;
        string? failure = null;
        if (withPrivy)
        {
            try
            {
                privileged = Measure("Privy: ", Launcher.Run());
            }
            catch (Exception e) when (e is BenchException or IOException)
            {
                cancellation.ThrowIfCancellationRequested();
                failure = e.Message;
            }
        }

        var native = Measure("native: ", []);

        PrintTable(native, privileged);
        var collections = native.FixedRate.GarbageCollections + (privileged?.FixedRate.GarbageCollections ?? 0);
        if (collections > 0) Terminal.Out.WriteLine($"(the load generator collected garbage {collections} times meanwhile; it may have added to the slowest SETs)");
        if (failure is not null) Terminal.Error("the half under Privy failed: " + failure);
        SavePicture(native, privileged);
        return failure is null ? 0 : 1;

        SnapshotUnderLoadResult Measure(string name, IReadOnlyList<string> launcher) => Terminal.WithProgress(name, report =>
            new SnapshotUnderLoad
            {
                Server = new RedisServerOptions { Program = program, Launcher = launcher },
                DataBytes = DataBytes,
                Rate = Rate,
                Progress = report,
            }.Run(cancellation));
    }

    private void PrintTable(SnapshotUnderLoadResult native, SnapshotUnderLoadResult? privileged)
    {
        var table = NewTable("native", "Privy");
        table.AddRow("fork (latest_fork_usec), longest", Time(native.Forks.Max()), Of(r => Time(r.Forks.Max())));
        var rate = Rate.ToString("#,0", CultureInfo.InvariantCulture);
        table.AddRow($"SET at {rate}/s during BGSAVE: p50", Time(native.FixedRate.WriteLatency.P50), Of(r => Time(r.FixedRate.WriteLatency.P50)));
        table.AddRow("    p99", Time(native.FixedRate.WriteLatency.P99), Of(r => Time(r.FixedRate.WriteLatency.P99)));
        table.AddRow("    p99.9", Time(native.FixedRate.WriteLatency.P999), Of(r => Time(r.FixedRate.WriteLatency.P999)));
        table.AddRow("    max", Time(native.FixedRate.WriteLatency.Max), Of(r => Time(r.FixedRate.WriteLatency.Max)));
        table.AddRow("    throughput", Throughput(native.FixedRate), Of(r => Throughput(r.FixedRate)));
        table.AddRow("SET at full speed during BGSAVE: throughput", Throughput(native.FullSpeed), Of(r => Throughput(r.FullSpeed)));
        table.AddRow("    max", Time(native.FullSpeed.WriteLatency.Max), Of(r => Time(r.FullSpeed.WriteLatency.Max)));
        table.AddRow("memory before the snapshots", MemorySize.Format(native.UsedMemory), Of(r => MemorySize.Format(r.UsedMemory)));
        Terminal.Out.Write(table);

        string Of(Func<SnapshotUnderLoadResult, string> cell) => privileged is null ? "–" : cell(privileged);
    }

    private void SavePicture(SnapshotUnderLoadResult native, SnapshotUnderLoadResult? privileged)
    {
        List<LatencyCurve> curves = [Curve("native", native, "#c8442f")];
        if (privileged is not null) curves.Add(Curve("Privy", privileged, "#2a6fbf"));
        LatencyPlot.Save(Picture, $"SET at {Rate.ToString("#,0", CultureInfo.InvariantCulture)}/s on {MemorySize.Format(DataBytes)} of data", curves);
        Terminal.Out.WriteLine("latency over time: " + Path.GetFullPath(Picture));
        if (!LatencyPlot.CanWriteText) Terminal.Out.WriteLine("(no font is installed, so the picture is without text; Debian: apt-get install fonts-dejavu-core)");

        static LatencyCurve Curve(string name, SnapshotUnderLoadResult result, string color) =>
            new($"{name}: fork {Time(result.Forks[0])}, slowest SET {Time(result.FixedRate.WriteLatency.Max)}", result.FixedRate.Series, result.Snapshot.Begin, result.Snapshot.End, color);
    }

    private int RunArray(bool withPrivy, CancellationToken cancellation)
    {
        const int Snapshots = 8;
        var bytes = DataBytes / 4096 * 4096;
        RequireMemory(bytes * 9 / 4);
        Terminal.Out.WriteLine($"a program changes a live array of {MemorySize.Format(bytes)} while each of {Snapshots} snapshots of it is checked byte for byte. {Machine.Describe()}");
        IReadOnlyList<ArraySnapshot>? privileged = null;
        string? failure = null;
        if (withPrivy)
        {
            try
            {
                privileged = Terminal.WithProgress("Privy: ", report => SnapshotArray.Run(Launcher.Run(), bytes, Snapshots, share => report("snapshots", share), cancellation));
            }
            catch (Exception e) when (e is BenchException or IOException)
            {
                cancellation.ThrowIfCancellationRequested();
                failure = e.Message;
            }
        }

        var native = Terminal.WithProgress("native: ", report => SnapshotArray.Run([], bytes, Snapshots, share => report("snapshots", share), cancellation));

        var table = NewTable("native", "Privy");
        table.AddRow("fork, median", Time(Statistics.Median(native.Select(s => s.Fork))), Of(p => Time(Statistics.Median(p.Select(s => s.Fork)))));
        table.AddRow("fork, longest", Time(native.Max(s => s.Fork)), Of(p => Time(p.Max(s => s.Fork))));
        table.AddRow("a write to every page during a snapshot, median", Time(Statistics.Median(native.Select(s => s.Write))), Of(p => Time(Statistics.Median(p.Select(s => s.Write)))));
        table.AddRow("snapshots exact in every byte", Exact(native), Of(Exact));
        Terminal.Out.Write(table);
        if (failure is not null) Terminal.Error("the half under Privy failed: " + failure);
        return failure is null && (privileged ?? []).Concat(native).All(s => s.IsExact) ? 0 : 1;

        string Of(Func<IReadOnlyList<ArraySnapshot>, string> cell) => privileged is null ? "–" : cell(privileged);
        static string Exact(IReadOnlyList<ArraySnapshot> snapshots) => $"{snapshots.Count(s => s.IsExact)} of {snapshots.Count}";
    }

    /// <summary>A picture that cannot be written should be known before the measurement, not after it.</summary>
    private void PreparePicture()
    {
        try
        {
            if (Path.GetDirectoryName(Picture) is { Length: > 0 } directory) Directory.CreateDirectory(directory);
            using var file = new FileStream(Picture, FileMode.OpenOrCreate, FileAccess.Write);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new BenchException($"the picture {Picture} cannot be written; choose another place with --output", e);
        }
    }

    private static void RequireMemory(long bytes)
    {
        var available = Machine.AvailableMemory();
        if (available < bytes) throw new BenchException($"the demo needs {MemorySize.Format(bytes)} of free memory and there are {MemorySize.Format(available)}; choose less data with --data, for example --data 256M");
    }

    private static Table NewTable(params ReadOnlySpan<string> columns)
    {
        var table = new Table().Border(Terminal.Out.Profile.Capabilities.Ansi ? TableBorder.Rounded : TableBorder.Ascii2);
        table.AddColumn("");
        foreach (var name in columns) table.AddColumn(new TableColumn(name).RightAligned());
        return table;
    }

    internal static string Time(TimeSpan value) => value.TotalMilliseconds switch
    {
        >= 1000 => value.TotalSeconds.ToString("0.00", CultureInfo.InvariantCulture) + " s",
        >= 100 => value.TotalMilliseconds.ToString("0", CultureInfo.InvariantCulture) + " ms",
        >= 10 => value.TotalMilliseconds.ToString("0.0", CultureInfo.InvariantCulture) + " ms",
        >= 1 => value.TotalMilliseconds.ToString("0.00", CultureInfo.InvariantCulture) + " ms",
        >= 0.01 => value.TotalMicroseconds.ToString("0", CultureInfo.InvariantCulture) + " µs",
        _ => value.TotalMicroseconds.ToString("0.0", CultureInfo.InvariantCulture) + " µs",
    };

    private static string Throughput(LoadResult load) => load.Throughput.ToString("#,0", CultureInfo.InvariantCulture) + "/s";
}
