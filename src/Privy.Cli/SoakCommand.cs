using System.Globalization;
using Privy.Bench;
using Privy.Bench.Report;
using Privy.Bench.Soak;
using Spectre.Console;

namespace Privy.Cli;

/// <summary><c>privy soak</c>.</summary>
internal static class SoakCommand
{
    public static int Run(TimeSpan duration, long data, double rate, ulong seed, bool native, CancellationToken cancellation)
    {
        var program = RedisServer.FindInstalled() ?? throw new BenchException("no redis-server in PATH; install it (Debian: apt-get install redis-server)");
        Terminal.Out.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"{program} {RedisServer.Version(program)} {(native ? "natively" : "under Privy")}, {MemorySize.Format(data)} of data, {rate:0} requests a second, a BGSAVE each second, {duration.TotalMinutes:0.##} minutes; seed {seed}; {DateTime.UtcNow:yyyy-MM-dd HH:mm}; commit {ReportHead.FindCommit()}"));
        Terminal.Out.WriteLine(Machine.Describe());
        Terminal.Out.WriteLine("minute  requests   p50 ms   p99 ms  p99.9 ms    max ms  BGSAVEs  RDBs right  fork us  resident   tables  used MB  descriptors  threads  processes  held up s");
        using var run = new SoakRun
        {
            Duration = duration,
            Program = program,
            Launcher = native ? [] : Launcher.Run(),
            DataBytes = data,
            Rate = rate,
            Seed = seed,
            Report = m => Terminal.Out.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"{m.Number,6}  {m.Requests,8}  {m.Latency.P50.TotalMilliseconds,7:0.00}  {m.Latency.P99.TotalMilliseconds,7:0.00}  {m.Latency.P999.TotalMilliseconds,8:0.00}  {m.Latency.Max.TotalMilliseconds,8:0.00}  {m.Saves,7}  {m.Verified,10}  {m.LongestFork.TotalMicroseconds,7:0}  {m.ResidentBytes >> 20,5} MB  {m.TableBytes >> 20,4} MB  {m.UsedBytes >> 20,7}  {m.Descriptors,11}  {m.Threads,7}  {m.Descendants,9}  {m.HeldUp.TotalSeconds,9:0.0}")),
        };
        var failures = run.Run(cancellation);
        Terminal.Out.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"{run.Minutes.Sum(m => m.Requests)} requests and {run.Transfers} transfers answered; {run.Saves} BGSAVEs, {run.Verified} RDB files right in every byte ({run.VerifiedBytes / 1e9:0.0} GB)"));
        foreach (var failure in failures) Terminal.Error(failure);
        if (failures.Count == 0)
            Terminal.Out.WriteLine(run.Minutes.Count < Growth.FewestMinutes ? "nothing lost or wrong (too short to tell whether anything grows)" : "nothing lost or wrong; memory flat" + (run.Minutes.Count(m => m.IsUndisturbed) < Growth.FewestMinutes ? " (too few undisturbed minutes to judge latencies)" : ", and latencies too"));
        return failures.Count == 0 ? 0 : 1;
    }
}
