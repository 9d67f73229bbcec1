using Spectre.Console;

namespace Privy.Cli;

/// <summary>The terminal as the commands other than <c>run</c> use it.</summary>
internal static class Terminal
{
    /// <summary>Standard output; plain text, without colour codes, when it is not a terminal.</summary>
    public static IAnsiConsole Out { get; } = Create(Console.Out, Console.IsOutputRedirected);

    /// <summary>Where progress goes: standard error, so that redirected output holds results only.</summary>
    public static IAnsiConsole Progress { get; } = Create(Console.Error, Console.IsErrorRedirected);

    private static IAnsiConsole Create(TextWriter writer, bool redirected)
    {
        var plain = redirected || Environment.GetEnvironmentVariable("NO_COLOR") is { Length: > 0 };
        var console = AnsiConsole.Create(new AnsiConsoleSettings
        {
            Out = new AnsiConsoleOutput(writer),
            Ansi = plain ? AnsiSupport.No : AnsiSupport.Detect,
            ColorSystem = plain ? ColorSystemSupport.NoColors : ColorSystemSupport.Detect,
            Interactive = redirected ? InteractionSupport.No : InteractionSupport.Detect,
        });
        // A file has no width: lines are not broken.
        if (redirected) console.Profile.Width = 200;
        return console;
    }

    /// <summary>Runs work that reports what it does and how far it is, with a progress bar where there is a terminal, else a line per step.</summary>
    public static T WithProgress<T>(string prefix, Func<Action<string, double>, T> work)
    {
        if (!Progress.Profile.Capabilities.Interactive || !Progress.Profile.Capabilities.Ansi)
        {
            string? last = null;
            return work((what, _) =>
            {
                if (what == last) return;
                last = what;
                Progress.WriteLine(prefix + what);
            });
        }

        return Progress.Progress()
            .AutoClear(false)
            .HideCompleted(false)
            .Columns(new TaskDescriptionColumn { Alignment = Justify.Left }, new ProgressBarColumn(), new PercentageColumn(), new ElapsedTimeColumn())
            .Start(context =>
            {
                ProgressTask? task = null;
                string? last = null;
                return work((what, share) =>
                {
                    if (what != last)
                    {
                        if (task is not null) task.Value = 1;
                        task?.StopTask();
                        task = context.AddTask(Markup.Escape(prefix + what), maxValue: 1);
                        last = what;
                    }

                    task!.Value = share;
                    if (share >= 1) task.StopTask();
                });
            });
    }

    /// <summary>One line on standard error.</summary>
    public static void Error(string message) => Console.Error.WriteLine("privy: " + message);
}
