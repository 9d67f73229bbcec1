using System.Globalization;
using System.Text;

namespace Privy.Bench;

/// <summary>Fork times of a server at one size of data.</summary>
public sealed record ForkLatencyRow(long DataBytes, IReadOnlyList<TimeSpan>? Native, IReadOnlyList<TimeSpan>? Privileged, string? Note);

/// <summary>How long BGSAVE's fork stops a server, by size of data, natively and under Privy: the server's own measurement (latest_fork_usec).</summary>
public sealed class ForkLatencyBenchmark
{
    /// <summary>Sizes of data in bytes.</summary>
    public required IReadOnlyList<long> Sizes { get; init; }

    /// <summary>BGSAVEs at each size.</summary>
    public int Rounds { get; init; } = 3;

    /// <summary>The server's program.</summary>
    public string Program { get; init; } = "redis-server";

    /// <summary>The command line that puts a program under Privy; null leaves that half out.</summary>
    public IReadOnlyList<string>? PrivyLauncher { get; init; }

    /// <summary>Where the servers write their RDB files.</summary>
    public string TemporaryDirectory { get; init; } = Path.GetTempPath();

    /// <summary>Is told what is being done and the share of it that is done.</summary>
    public Action<string, double>? Progress { get; init; }

    /// <summary>Runs all sizes.</summary>
    public IReadOnlyList<ForkLatencyRow> Run(CancellationToken cancellation = default)
    {
        var rows = new List<ForkLatencyRow>();
        foreach (var size in Sizes)
        {
            // Data, allocator and page tables, and what is copied while a snapshot lives.
            if (Machine.AvailableMemory() is var free && free < size + size / 4)
            {
                rows.Add(new ForkLatencyRow(size, null, null, $"not run: needs about {Gigabytes(size + size / 4)} GB of free memory, there are {Gigabytes(free)}"));
                continue;
            }

            string? note = null;
            var native = Measure([], size, ref note, cancellation);
            var privileged = PrivyLauncher is null ? null : Measure(PrivyLauncher, size, ref note, cancellation);
            rows.Add(new ForkLatencyRow(size, native, privileged, note));
        }

        return rows;
    }

    /// <summary>The table as a Markdown page.</summary>
    public string ToMarkdown(IReadOnlyList<ForkLatencyRow> rows)
    {
        ArgumentNullException.ThrowIfNull(rows);
        var text = new StringBuilder();
        text.Append("# Fork latency\n\nHow long `BGSAVE` stops Redis: `latest_fork_usec`, as the server measures it, natively and under Privy.\n\n");
        text.Append(CultureInfo.InvariantCulture, $"* Machine: {Machine.Describe()}\n");
        text.Append(CultureInfo.InvariantCulture, $"* Server: {Program} {RedisServer.Version(Program)}; values of 1 KB by `DEBUG POPULATE`; data = `used_memory`\n");
        text.Append(CultureInfo.InvariantCulture, $"* Date: {DateTime.UtcNow:yyyy-MM-dd}; {Rounds} snapshots at each size\n");
        text.Append("* Again: `./privy bench fork-latency --output docs/fork-latency.md`\n\n");
        text.Append("| data | native, median | native, max | Privy, median | Privy, max | ratio of medians |\n|---:|---:|---:|---:|---:|---:|\n");
        foreach (var row in rows)
        {
            text.Append(CultureInfo.InvariantCulture, $"| {Gigabytes(row.DataBytes)} GB | {Cell(row.Native, false)} | {Cell(row.Native, true)} | {Cell(row.Privileged, false)} | {Cell(row.Privileged, true)} | {Ratio(row)} |\n");
        }

        foreach (var row in rows.Where(r => r.Note is not null)) text.Append(CultureInfo.InvariantCulture, $"\n{Gigabytes(row.DataBytes)} GB: {row.Note}\n");
        return text.ToString();
    }

    /// <summary>A cell of the table: the median or the maximum in microseconds.</summary>
    public static string Cell(IReadOnlyList<TimeSpan>? values, bool max)
    {
        if (values is null or { Count: 0 }) return "–";
        var value = max ? values.Max() : Statistics.Median(values);
        return value.TotalMicroseconds.ToString("#,0", CultureInfo.InvariantCulture) + " µs";
    }

    /// <summary>How many times shorter the privileged fork is.</summary>
    public static string Ratio(ForkLatencyRow row)
    {
        ArgumentNullException.ThrowIfNull(row);
        if (row.Native is null or { Count: 0 } || row.Privileged is null or { Count: 0 }) return "–";
        return (Statistics.Median(row.Native) / Statistics.Median(row.Privileged)).ToString("#,0.#", CultureInfo.InvariantCulture) + "×";
    }

    private List<TimeSpan>? Measure(IReadOnlyList<string> launcher, long size, ref string? note, CancellationToken cancellation)
    {
        var where = launcher.Count == 0 ? "native" : "Privy";
        var what = string.Create(CultureInfo.InvariantCulture, $"{Gigabytes(size)} GB, {where}");
        try
        {
            using var server = RedisServer.Start(new RedisServerOptions { Program = Program, Launcher = launcher, AllowDebug = true, TemporaryDirectory = TemporaryDirectory }, cancellation);
            server.Populate(size, progress: new Relay(share => Progress?.Invoke(what + ": loading", share)), cancellation: cancellation);
            var forks = new List<TimeSpan>();
            for (var round = 0; round < Rounds; round++)
            {
                Progress?.Invoke(what + ": BGSAVE", (double)round / Rounds);
                forks.Add(server.StartBackgroundSave());
                server.AwaitBackgroundSave(TimeSpan.FromMinutes(10), cancellation);
            }

            Progress?.Invoke(what + ": done", 1);
            return forks;
        }
        catch (Exception e) when (e is BenchException or IOException)
        {
            note = (note is null ? "" : note + "; ") + $"{where}: {e.Message}";
            return null;
        }
    }

    private static string Gigabytes(long bytes) => (bytes / (double)(1L << 30)).ToString("0.##", CultureInfo.InvariantCulture);

    /// <summary>Unlike Progress&lt;T&gt;, reports on the caller's thread and in order.</summary>
    private sealed class Relay(Action<double> report) : IProgress<double>
    {
        public void Report(double value) => report(value);
    }
}
