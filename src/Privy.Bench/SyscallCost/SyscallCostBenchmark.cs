using System.Diagnostics;
using Privy.Bench.Charts;
using Privy.Bench.Framework;

namespace Privy.Bench.SyscallCost;

/// <summary>What a system call costs, natively and in the ways Privy has.</summary>
public sealed class SyscallCostBenchmark : IBenchmark
{
    private const int FileBytes = 1 << 20;

    /// <inheritdoc/>
    public string Name => "syscall-cost";

    /// <inheritdoc/>
    public string Title => "System calls";

    /// <inheritdoc/>
    public string Description => "What gettid, lseek, pread, pwrite and an epoll round trip cost: native, and under Privy by each way of calling the host, and with its code as it is";

    /// <inheritdoc/>
    public BenchmarkPart Run(BenchmarkContext context)
    {
        ArgumentNullException.ThrowIfNull(context);
        var rounds = context.Choose(1, 5, 15);
        var sides = Sides(context);
        using var directory = new TemporaryDirectory("privy-calls-", FileFolder(context));
        var file = Path.Combine(directory.Path, "data");
        File.WriteAllBytes(file, new byte[FileBytes]);

        var samples = new Dictionary<(string Side, string Call), Sample>();
        var csv = new CsvTable("call", "side", "round", "nanoseconds", "cycles");
        double frequency = 1;
        for (var round = 0; round < rounds; round++)
        {
            foreach (var side in sides)
            {
                context.Progress(side.Name, (double)(round * sides.Count + sides.IndexOf(side)) / (rounds * sides.Count));
                var run = WorkloadProcess.Run(context, side, "syscall-costs", Arguments.Of(("file", file), ("milliseconds", context.Choose(5, 50, 100)), ("batches", context.Choose(3, 5, 11))));
                frequency = run.One("frequency");
                foreach (var call in CallKind.All)
                {
                    if (!samples.TryGetValue((side.Key, call.Key), out var sample)) samples[(side.Key, call.Key)] = sample = new Sample();
                    foreach (var time in run.All(call.Key))
                    {
                        sample.Add(time);
                        csv.Add(call.Key, side.Key, round, time, time * frequency);
                    }
                }
            }
        }

        var part = new BenchmarkPart
        {
            Method = "Each call is made in a loop, and the time of the loop divided by the number of calls. lseek is the least that the host's kernel can be asked; gettid and getpid need no host, and the C library's getpid is code that Privy may rewrite (--rewrite-syscalls). Cached reads and writes find their page in the host's page cache; " +
                "uncached ones (O_DIRECT) go to the disk. The round trip is a write to an eventfd, epoll_wait, and the read of it.",
            Csv = csv,
        };
        AddTables(part, samples, sides, frequency);
        AddPlot(part, samples, sides);
        foreach (var ((side, call), sample) in samples)
            if (sample.Count > 0) part.Figures[$"{Name}.{call}.{side}"] = sample.Median;
        if (samples[(Side.Native.Key, "pread-direct")].Count == 0) part.Remarks.Add("Uncached reads and writes were left out: the file system of the temporary files has no O_DIRECT; set TMPDIR to a folder on a disk.");
        if (sides.Count == 2) part.Remarks.Add("This build has one way of making system calls.");
        return part;
    }

    /// <summary>Native, and Privy by each value of <c>--syscalls</c> and without rewriting; a build without those options has one way.</summary>
    private static List<Side> Sides(BenchmarkContext context)
    {
        List<Side> sides = [Side.Native];
        if (!context.HasPrivy) return sides;
        sides.Add(context.Privy());
        foreach (var (option, way, name, color) in (ReadOnlySpan<(string, string, string, string)>)[
            ("--syscalls", "exit", "exit", "#7b52a3"), ("--syscalls", "ring", "ring", "#3a8f5c"), ("--rewrite-syscalls", "off", "not rewritten", "#a0722a")])
        {
            var side = context.Privy(option, way) with { Key = "privy-" + name.Replace(' ', '-'), Name = "Privy, " + name, Color = color };
            if (Works(side)) sides.Add(side);
        }

        return sides;
    }

    private static bool Works(Side side)
    {
        using var process = RedisServer.StartProcess(new ProcessStartInfo(side.Launcher[0], [.. side.Launcher.Skip(1), "/bin/true"]) { RedirectStandardError = true });
        process.StandardError.ReadToEnd();
        process.WaitForExit();
        return process.ExitCode == 0;
    }

    /// <summary>A folder on a disk if there is one: in memory there is nothing uncached.</summary>
    private static string FileFolder(BenchmarkContext context) =>
        ((IEnumerable<string>)[context.TemporaryDirectory, "/var/tmp", Environment.CurrentDirectory]).FirstOrDefault(IsDisk) ?? context.TemporaryDirectory;

    private static bool IsDisk(string folder)
    {
        try
        {
            return Directory.Exists(folder) && new DriveInfo(folder).DriveFormat is not ("tmpfs" or "ramfs");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException)
        {
            return false;
        }
    }

    private static void AddTables(BenchmarkPart part, Dictionary<(string, string), Sample> samples, List<Side> sides, double frequency)
    {
        var times = new ReportTable("Time of a call: median (smallest–largest)", ["", .. sides.Select(s => s.Name)]);
        var cycles = new ReportTable("The medians in cycles, and what Privy adds", ["", .. sides.Select(s => s.Name), .. sides.Skip(1).Select(s => s.Name + " adds")]);
        foreach (var call in CallKind.All)
        {
            times.Add([call.Name, .. sides.Select(s => samples[(s.Key, call.Key)].Text(Format.Time))]);
            cycles.Add([call.Name, .. sides.Select(s => Cycles(s, call, 0)), .. sides.Skip(1).Select(s => Cycles(s, call, samples[(Side.Native.Key, call.Key)] is { Count: > 0 } native ? native.Median : 0))]);
        }

        part.Tables.Add(times);
        part.Tables.Add(cycles);

        string Cycles(Side side, CallKind call, double less) => samples[(side.Key, call.Key)] is { Count: > 0 } sample ? Format.Whole((sample.Median - less) * frequency) : "–";
    }

    private static void AddPlot(BenchmarkPart part, Dictionary<(string, string), Sample> samples, List<Side> sides) =>
        part.Plots.Add(new ReportPlot("", "Median time of a call.", new BarChart
        {
            Title = "time of a system call",
            Y = "time",
            Groups = [.. CallKind.All.Select(c => c.Name.Replace(", ", "\n", StringComparison.Ordinal))],
            Series = [.. sides.Select(s => new BarSeries(s.Name, s.Color, [.. CallKind.All.Select(c => samples[(s.Key, c.Key)] is { Count: > 0 } sample ? sample.Median : double.NaN)]))],
            LogY = true,
            YText = Format.Time,
            YMark = Format.TimeMark,
        }.Draw()));
}
