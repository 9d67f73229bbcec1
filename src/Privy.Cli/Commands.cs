using System.CommandLine;
using System.CommandLine.Help;
using System.CommandLine.Parsing;
using System.Reflection;
using Privy.Bench;
using Privy.Cli.Doctor;

namespace Privy.Cli;

/// <summary>The commands other than <c>run</c>.</summary>
internal static class Commands
{
    private const int Failure = 1;

    private static readonly long[] DefaultSizes = [MemorySize.Gigabyte, 4 * MemorySize.Gigabyte, 8 * MemorySize.Gigabyte];

    public static int Invoke(string[] args)
    {
        if (args is ["help", "run", ..]) return RunCommand.Run(["--help"]);

        var root = Build();
        if (args.Length == 0 || args is ["help"]) args = ["--help"];
        else if (args is ["help", ..]) args = [.. args.AsSpan(1), "--help"];
        else if (args is ["--version"]) args = ["version"];

        var result = root.Parse(args);
        if (result.Errors.Count > 0 && result.Action is not HelpAction)
        {
            // An unknown word is reported after the missing command it causes; it is the better message.
            var message = result.UnmatchedTokens is [var unknown, ..] ? $"'{unknown}' is not known here" : result.Errors[0].Message.TrimEnd('.');
            Terminal.Error($"{message}; see 'privy {Path(result.CommandResult)}--help'");
            return RunCommand.UsageError;
        }

        try
        {
            // Signals are handled by the commands that start others (Interruption).
            return result.Invoke(new InvocationConfiguration { EnableDefaultExceptionHandler = false, ProcessTerminationTimeout = null });
        }
        catch (Exception e) when (e is BenchException or IOException or UnauthorizedAccessException)
        {
            Terminal.Error(e.Message);
            return Failure;
        }
    }

    private static RootCommand Build()
    {
        var root = new RootCommand("Privy runs a database as a privileged process: a snapshot (fork) takes microseconds at any memory size.");
        root.Options.Remove(root.Options.OfType<VersionOption>().Single());

        // Only for the help text: Program takes `run` away before this parser is reached.
        root.Subcommands.Add(new Command("run", "Run a program as a privileged process ('privy run --help' for its options)") { TreatUnmatchedTokensAsErrors = false });
        root.Subcommands.Add(DoctorCommand());
        root.Subcommands.Add(DemoCommandLine());
        root.Subcommands.Add(BenchCommand());
        root.Subcommands.Add(SoakCommandLine());
        var version = new Command("version", "Print the version");
        version.SetAction(_ => Console.Out.WriteLine("privy " + Version()));
        root.Subcommands.Add(version);
        return root;
    }

    private static Command DoctorCommand()
    {
        var command = new Command("doctor", "Check whether programs can run here, and say what to do if not (exit status 0 only if they can)");
        command.SetAction(_ => DoctorReport.Print());
        return command;
    }

    private static Command DemoCommandLine()
    {
        var output = new Option<string>("--output") { Description = "Where to put the picture of latency over time", HelpName = "FILE", DefaultValueFactory = _ => DemoCommand.DefaultPicture() };
        var data = new Option<long>("--data") { Description = "How much data to load into each server [default: 1G]", HelpName = "SIZE", CustomParser = Size };
        var rate = new Option<double>("--rate") { Description = "SETs per second while latency is measured", HelpName = "N", DefaultValueFactory = _ => DemoCommand.DefaultRate };
        rate.Validators.Add(r => Check(r, r.GetValueOrDefault<double>() > 0, "--rate: must be above 0"));
        var array = new Option<bool>("--array") { Description = "Use the built-in program instead of Redis", Hidden = true };
        var command = new Command("demo", "Compare Redis under Privy with native Redis: snapshots under load (under two minutes)") { output, data, rate, array };
        command.SetAction(result =>
        {
            using var interruption = new Interruption();
            return Cancellable(interruption, () => new DemoCommand
            {
                Picture = result.GetValue(output)!,
                DataBytes = result.GetValue(data) is var size and > 0 ? size : MemorySize.Gigabyte,
                Rate = result.GetValue(rate),
                UseArray = result.GetValue(array),
            }.Run(interruption.Token));
        });
        return command;
    }

    private static Command BenchCommand()
    {
        var sizes = new Option<long[]>("--sizes")
        {
            Description = "Sizes of data, in GB or with a unit [default: 1,4,8]",
            HelpName = "LIST",
            CustomParser = Sizes,
        };
        var rounds = new Option<int>("--rounds") { Description = "Snapshots at each size", HelpName = "N", DefaultValueFactory = _ => 3 };
        rounds.Validators.Add(r => Check(r, r.GetValueOrDefault<int>() > 0, "--rounds: must be above 0"));
        var output = new Option<string?>("--output") { Description = "Also write the table as Markdown", HelpName = "FILE" };
        var directory = new Option<string>("--temporary") { Description = "Where the servers may write their RDB files", HelpName = "DIR", DefaultValueFactory = _ => System.IO.Path.GetTempPath() };
        var fork = new Command("fork-latency", "How long BGSAVE's fork stops Redis, by size of data, natively and under Privy") { sizes, rounds, output, directory };
        fork.SetAction(result =>
        {
            using var interruption = new Interruption();
            return Cancellable(interruption, () => ForkLatencyCommand.Run(result.GetValue(sizes) is { Length: > 0 } chosen ? chosen : DefaultSizes, result.GetValue(rounds), result.GetValue(output), result.GetValue(directory)!, interruption.Token));
        });
        var seconds = new Option<int>("--seconds") { Description = "How long to watch each server", HelpName = "N", DefaultValueFactory = _ => 20 };
        seconds.Validators.Add(r => Check(r, r.GetValueOrDefault<int>() > 0, "--seconds: must be above 0"));
        var idle = new Command("idle", "Processor time of an idle Redis, natively and under Privy") { seconds };
        idle.SetAction(result =>
        {
            using var interruption = new Interruption();
            return Cancellable(interruption, () => IdleCommand.Run(result.GetValue(seconds), interruption.Token));
        });
        var instructions = new Command("instructions", "Count instructions on stock KVM in an emulated machine (from the sources: ./privy bench instructions)") { TreatUnmatchedTokensAsErrors = false };
        instructions.SetAction(_ =>
        {
            Terminal.Error("bench instructions runs from the sources: type ./privy bench instructions in a checkout");
            return 1;
        });
        var command = new Command("bench", "Run a benchmark, or all of them, and write a report with tables and pictures") { fork, idle, instructions };
        foreach (var benchmark in BenchmarkCommands.Create(Interruptible)) command.Subcommands.Add(benchmark);
        return command;

        static int Interruptible(Func<Interruption, int> work)
        {
            using var interruption = new Interruption();
            return Cancellable(interruption, () => work(interruption));
        }
    }

    private static Command SoakCommandLine()
    {
        var minutes = new Option<double>("--minutes") { Description = "How long the load lasts", HelpName = "N", DefaultValueFactory = _ => 30 };
        minutes.Validators.Add(r => Check(r, r.GetValueOrDefault<double>() > 0, "--minutes: must be above 0"));
        var data = new Option<long>("--data") { Description = "How much data the server holds [default: 64M]", HelpName = "SIZE", CustomParser = Size };
        var rate = new Option<double>("--rate") { Description = "Requests per second", HelpName = "N", DefaultValueFactory = _ => 2000 };
        rate.Validators.Add(r => Check(r, r.GetValueOrDefault<double>() > 0, "--rate: must be above 0"));
        var seed = new Option<ulong>("--seed") { Description = "Seed of the load", HelpName = "S", DefaultValueFactory = _ => 1 };
        var native = new Option<bool>("--native") { Description = "Without Privy, for comparison" };
        var command = new Command("soak", "Redis under load with a BGSAVE each second, every RDB file checked: nothing may grow, get lost or be wrong") { minutes, data, rate, seed, native };
        command.SetAction(result =>
        {
            using var interruption = new Interruption();
            return Cancellable(interruption, () => SoakCommand.Run(
                TimeSpan.FromMinutes(result.GetValue(minutes)), result.GetValue(data) is var size and > 0 ? size : 64 << 20, result.GetValue(rate), result.GetValue(seed), result.GetValue(native), interruption.Token));
        });
        return command;
    }

    private static int Cancellable(Interruption interruption, Func<int> work)
    {
        try
        {
            return work();
        }
        catch (OperationCanceledException) when (interruption.Token.IsCancellationRequested)
        {
            Terminal.Error("interrupted; what was started has been stopped");
            return interruption.ExitStatus;
        }
        catch (Exception e) when (interruption.Token.IsCancellationRequested && e is BenchException or IOException)
        {
            // The terminal's Ctrl-C also reaches the servers: a broken connection is its consequence, not an error of its own.
            Terminal.Error("interrupted; what was started has been stopped");
            return interruption.ExitStatus;
        }
    }

    internal static long Size(ArgumentResult result)
    {
        var text = result.Tokens.Count == 1 ? result.Tokens[0].Value : "";
        if (MemorySize.TryParse(text, out var bytes)) return bytes;
        result.AddError($"'{text}' is not a size; write for example 512M or 1G");
        return 0;
    }

    private static long[] Sizes(ArgumentResult result)
    {
        var text = result.Tokens.Count == 1 ? result.Tokens[0].Value : "";
        if (TryParseSizes(text, out var sizes)) return sizes;
        result.AddError($"'{text}' is not a list of sizes; write for example 1,4,8 (GB) or 512M,2G");
        return [];
    }

    internal static bool TryParseSizes(string text, out long[] sizes)
    {
        var parts = text.Split(',');
        sizes = new long[parts.Length];
        for (var i = 0; i < parts.Length; i++)
            if (!MemorySize.TryParse(parts[i], out sizes[i], MemorySize.Gigabyte)) return false;
        return true;
    }

    private static void Check(OptionResult result, bool isValid, string message)
    {
        if (!isValid) result.AddError(message);
    }

    private static string Path(CommandResult result)
    {
        var names = "";
        for (SymbolResult? at = result; at is CommandResult { Command: not RootCommand } command; at = at.Parent) names = command.Command.Name + " " + names;
        return names;
    }

    private static string Version()
    {
        var text = typeof(Commands).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion ?? "unknown";
        return text.Split('+')[0];
    }
}
