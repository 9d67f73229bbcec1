using Spectre.Console;

namespace Privy.Cli;

/// <summary>A progress bar for each benchmark, with what it is doing; without a terminal, a line for each benchmark and step.</summary>
internal sealed class BenchmarkProgress
{
    private readonly ProgressContext? _bars;
    private ProgressTask? _current;

    private BenchmarkProgress(ProgressContext? bars) => _bars = bars;

    /// <summary>Does the work with bars on the terminal.</summary>
    public static void Run(Action<BenchmarkProgress> work)
    {
        var capabilities = Terminal.Progress.Profile.Capabilities;
        if (!capabilities.Interactive || !capabilities.Ansi)
        {
            work(new BenchmarkProgress(null));
            return;
        }

        Terminal.Progress.Progress()
            .AutoClear(false)
            .HideCompleted(false)
            .Columns(new TaskDescriptionColumn { Alignment = Justify.Left }, new ProgressBarColumn(), new PercentageColumn(), new ElapsedTimeColumn())
            .Start(context => work(new BenchmarkProgress(context)));
    }

    /// <summary>Begins the next benchmark's bar.</summary>
    /// <returns>What the benchmark reports to.</returns>
    public Action<string, double> Begin(string name)
    {
        _current?.StopTask();
        if (_bars is null)
        {
            string? last = null;
            return (what, _) =>
            {
                if (what == last) return;
                last = what;
                Terminal.Progress.WriteLine($"{name}: {what}");
            };
        }

        var task = _current = _bars.AddTask(Markup.Escape(name), maxValue: 1);
        return (what, share) =>
        {
            task.Description = Markup.Escape($"{name}: {what}");
            task.Value = share;
            if (share >= 1) task.StopTask();
        };
    }
}
