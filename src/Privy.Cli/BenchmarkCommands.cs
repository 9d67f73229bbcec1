using System.CommandLine;
using Privy.Bench;
using Privy.Bench.Framework;
using Privy.Bench.Report;
using Privy.Cli.Doctor;
using Spectre.Console;

namespace Privy.Cli;

/// <summary><c>privy bench NAME</c> for each of <see cref="BenchmarkList"/>, and <c>privy bench all</c>.</summary>
internal static class BenchmarkCommands
{
    /// <summary>The options that all benchmarks have.</summary>
    private sealed class Options
    {
        public Option<bool> Quick { get; } = new("--quick") { Description = "Seconds instead of minutes, on little data: to try it" };
        public Option<bool> Full { get; } = new("--full") { Description = "All combinations, however long that takes" };
        public Option<long> Memory { get; } = new("--memory") { Description = "The most memory that data may take [default: what is free, less a reserve]", HelpName = "SIZE", CustomParser = Commands.Size };
        public Option<string> Output { get; } = new("--output") { Description = "Where to write the report; CSV and PNG files go to its folder bench", HelpName = "DIR", DefaultValueFactory = _ => DefaultDirectory() };

        public void AddTo(Command command)
        {
            foreach (var option in (Option[])[Quick, Full, Memory, Output]) command.Options.Add(option);
        }
    }

    /// <summary>A command for each benchmark, and one for all.</summary>
    public static IEnumerable<Command> Create(Func<Func<Interruption, int>, int> cancellable)
    {
        foreach (var benchmark in BenchmarkList.All)
            yield return Create(benchmark.Name, benchmark.Description, [benchmark], Path.Combine("bench", benchmark.Name + ".html"));
        yield return Create("all", "All of these, into one report with pictures (under 30 minutes)", BenchmarkList.All, "report.html");

        Command Create(string name, string description, IReadOnlyList<IBenchmark> benchmarks, string report)
        {
            var options = new Options();
            var command = new Command(name, description);
            options.AddTo(command);
            command.SetAction(result => cancellable(interruption => Run(
                benchmarks,
                result.GetValue(options.Output)!,
                report,
                "./privy bench " + string.Join(' ', result.Tokens.SkipWhile(t => t.Value != name).Select(t => t.Value)),
                result.GetValue(options.Quick),
                result.GetValue(options.Full),
                result.GetValue(options.Memory),
                interruption.Token)));
            return command;
        }
    }

    /// <summary>In a build directory's tree the report goes among the build's products; elsewhere into a folder of its own.</summary>
    private static string DefaultDirectory() => Directory.Exists("artifacts") ? "artifacts" : "privy-bench";

    private static int Run(IReadOnlyList<IBenchmark> benchmarks, string directory, string report, string commandLine, bool quick, bool full, long memory, CancellationToken cancellation)
    {
        if (quick && full) throw new BenchException("--quick and --full exclude each other");
        Directory.CreateDirectory(Path.Combine(directory, "bench"));
        var health = DoctorReport.Examine();
        var kind = health.Checks.FirstOrDefault(c => c.Name == GuestProbe.KindName)?.Value;
        if (!health.CanRun) Terminal.Error("programs cannot run under Privy on this machine (see 'privy doctor'), so only the native side is measured");
        var head = new ReportHead(Machine.Describe(), kind ?? "none: only the native side is measured", ReportHead.FindCommit(), commandLine);
        var runner = new BenchmarkRunner { Directory = directory, ReportName = report, Head = head, ShowsAllGoals = benchmarks.Count > 1 };
        Terminal.Out.WriteLine($"{head.Machine}; KVM: {head.Kvm}; {head.Date}; commit {head.Commit}");
        try
        {
            BenchmarkProgress.Run(progress =>
            {
                foreach (var benchmark in benchmarks)
                {
                    cancellation.ThrowIfCancellationRequested();
                    runner.Run(benchmark, new BenchmarkContext
                    {
                        Quick = quick,
                        Full = full,
                        MemoryBytes = memory > 0 ? memory : BenchmarkContext.DefaultMemory(),
                        Self = Launcher.Self(),
                        PrivyLauncher = Launcher.Run,
                        HasPrivy = health.CanRun,
                        Progress = progress.Begin(benchmark.Name),
                        Cancellation = cancellation,
                    });
                }
            });
        }
        finally
        {
            // What is finished is shown and stays, also after Ctrl-C.
            foreach (var outcome in runner.Outcomes) BenchmarkOutput.Print(outcome);
            BenchmarkOutput.Print(runner.Verdicts);
            if (runner.Outcomes.Count > 0) Terminal.Out.WriteLine($"report: {Path.GetFullPath(runner.ReportPath)}; CSV and PNG files: {Path.GetFullPath(runner.FilesPath)}");
        }

        return runner.Outcomes.All(o => o.Part is not null) ? 0 : 1;
    }
}
