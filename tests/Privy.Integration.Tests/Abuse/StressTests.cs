using System.Collections.Concurrent;
using System.Diagnostics;

namespace Privy.Integration.Tests;

/// <summary>The programs of the rules (design, section 5) in random order, several at a time, again and again, natively too.</summary>
public sealed class StressTests
{
    private static readonly string[] Programs = ["rule1", "rule2", "rule3", "rule4", "rule5", "rule6", "rule7", "stress"];

    /// <summary>How the hypervisor is disturbed meanwhile; the last is native.</summary>
    private static readonly (string Name, string? Faults, string[] Options)[] Ways =
    [
        ("plain", null, []), ("by exits", null, ["--syscalls", "exit"]), ("posted", null, ["--syscalls", "ring"]), ("copies ahead", null, ["--precopy", "256M"]), ("kicked", "kick=500", []), ("interrupted", "entry=3,kick=2000", []), ("native", null, []),
    ];

    [PrivyFact(Needs.Compiler | Needs.Privy)]
    public void Rules_under_random_schedules()
    {
        const int AtOnce = 4;
        var duration = Long.Duration(TimeSpan.FromSeconds(5));
        var pairs = Programs.SelectMany(p => TestPrograms.Names(p).Select(c => (Program: p, Case: c))).ToArray();
        foreach (var program in Programs) TestPrograms.Build(program);
        // Not before: other classes build programs at the same time, and one waits for the other.
        var end = Stopwatch.StartNew();
        var failures = new ConcurrentQueue<string>();
        var done = new ConcurrentDictionary<string, int>();
        var workers = Enumerable.Range(0, AtOnce).Select(worker => Task.Factory.StartNew(
            () =>
            {
                var random = new Random(Long.Seed * 31 + worker);
                while (end.Elapsed < duration && failures.IsEmpty)
                {
                    var (name, faults, options) = Ways[random.Next(Ways.Length)];
                    var seed = random.Next();
                    // Some cases of one program, in one process.
                    var program = pairs[random.Next(pairs.Length)].Program;
                    var cases = pairs.Where(p => p.Program == program).Select(p => p.Case).OrderBy(_ => random.Next()).Take(1 + random.Next(4)).ToList();
                    if (program == "stress") cases = cases[..1];
                    var path = TestPrograms.Build(program);
                    using var folder = new TemporaryFolder();
                    var environment = faults is null ? null : new Dictionary<string, string> { ["PRIVY_FAULTS"] = $"seed={seed & 0xffffff},{faults}" };
                    var result = ProcessRun.Run(name == "native" ? [path, .. cases] : Launcher.Command(path, cases, options), folder, environment: environment, limit: TimeSpan.FromSeconds(600));
                    if (result.ExitCode != 0 || result.LeftOver.Count > 0)
                        failures.Enqueue($"seed {Long.Seed}, {name}, {program} {string.Join(' ', cases)}\n{result}");
                    done.AddOrUpdate(name, cases.Count, (_, n) => n + cases.Count);
                }
            },
            TaskCreationOptions.LongRunning)).ToArray();
        Task.WaitAll(workers);
        Assert.True(failures.IsEmpty, string.Join("\n\n", failures));
        Assert.NotEmpty(done);
        Long.Report("stress", $"{end.Elapsed.TotalMinutes:0.0} minutes, {AtOnce} programs at a time, seed {Long.Seed}: {done.Values.Sum()} cases passed ({string.Join(", ", done.OrderBy(d => d.Key, StringComparer.Ordinal).Select(d => $"{d.Key} {d.Value}"))})");
    }
}
