using System.Globalization;
using Privy.Hypervisor;
using Privy.Hypervisor.Signals;

namespace Privy.Cli;

internal enum Engine
{
    Kvm,
    Native,
}

/// <summary>
/// The command line of <c>privy run</c>. Parsed by hand: the general parser costs tens of milliseconds of loading and compiling
/// at start-up, which every program run under Privy would pay.
/// </summary>
internal readonly struct RunArguments
{
    public const string Help = """
        Run a program as a privileged process: its fork() becomes an instant snapshot.

        Usage:
          privy run [options] [--] PROGRAM [ARGUMENTS...]

        Options (everything from PROGRAM on belongs to the program):
          --memory SIZE     The most memory the program may use, for example 512M or 8G
          --precopy SIZE    The most memory for pages copied before the program writes them, while a snapshot lives:
                            off, auto (default: half of the memory that is free), or for example 2G. With a size,
                            or on four processors and more, a thread copies in the background too
          --syscalls HOW    auto (default), exit (each leaves the VM) or ring (posted to a polling thread)
          --rewrite-syscalls on|off
                            on (default): where SYSCALL is slow, the code that a program's busiest calls are made from is
                            changed in memory to enter the VM's own handler without it
          --trace[=FILE]    Print a line per system call, to standard error or to FILE
          --stats           Print exits, faults, page copies and snapshot times when the program ends
          --engine ENGINE   kvm (default), or native: an ordinary process, for comparison
          --help            This text

        Exit status: the program's own; 128 + n if signal n ended it; 127 if it was not found, 126 if it
        cannot be executed; 2 if this command line is wrong.

        Examples:
          privy run -- redis-server --port 7777 --save ''
          privy run --memory 16G --stats redis-server /etc/redis/redis.conf
        """;

    public RunOptions? Options { get; private init; }
    public Engine Engine { get; private init; }
    public bool ShowHelp { get; private init; }

    /// <summary>What is wrong with the command line, or null.</summary>
    public string? Error { get; private init; }

    /// <summary>Parses what follows the word <c>run</c>.</summary>
    public static RunArguments Parse(ReadOnlySpan<string> arguments)
    {
        long? memory = null;
        long? precopy = null;
        string? trace = null;
        string? programName = null;
        (SignalSet, SignalSet)? signals = null;
        var stats = false;
        var rewrites = true;
        var engine = Engine.Kvm;
        var syscalls = SyscallPolicy.Auto;
        var i = 0;
        for (; i < arguments.Length; i++)
        {
            var argument = arguments[i];
            if (argument == "--")
            {
                i++;
                break;
            }

            // "-" alone is a name like any other.
            if (argument.Length < 2 || argument[0] != '-') break;

            var equals = argument.IndexOf('=', StringComparison.Ordinal);
            var name = equals < 0 ? argument : argument[..equals];
            var value = equals < 0 ? null : argument[(equals + 1)..];
            switch (name)
            {
                case "--help" or "-h" or "-?" when value is null:
                    return new RunArguments { ShowHelp = true };

                case "--stats" when value is null:
                    stats = true;
                    break;

                case "--trace":
                    if (value is { Length: 0 }) return Wrong("--trace= needs a file name; for standard error write --trace");
                    trace = value ?? "-";
                    break;

                // Not in the help: for a program that main starts by exec, whose argv[0] need not be its path.
                case "--argv0":
                    if (value is null && ++i < arguments.Length) value = arguments[i];
                    if (value is null) return Wrong("--argv0 needs a name");
                    programName = value;
                    break;

                // Not in the help: the signals that the program before has left blocked and ignored, as two hexadecimal numbers.
                case "--signals":
                    if (value is null && ++i < arguments.Length) value = arguments[i];
                    var comma = value?.IndexOf(',', StringComparison.Ordinal) ?? -1;
                    if (comma < 0 || !ulong.TryParse(value.AsSpan(0, comma), NumberStyles.HexNumber, CultureInfo.InvariantCulture, out var blocked)
                        || !ulong.TryParse(value.AsSpan(comma + 1), NumberStyles.HexNumber, CultureInfo.InvariantCulture, out var ignored))
                        return Wrong("--signals needs two hexadecimal numbers with a comma between them");
                    signals = (new SignalSet(blocked), new SignalSet(ignored));
                    break;

                case "--memory":
                    if (value is null && ++i < arguments.Length) value = arguments[i];
                    if (value is null) return Wrong("--memory needs a size, for example 8G");
                    if (!MemorySize.TryParse(value, out var bytes)) return Wrong($"--memory: '{value}' is not a size; write for example 512M or 8G");
                    memory = bytes;
                    break;

                case "--precopy":
                    if (value is null && ++i < arguments.Length) value = arguments[i];
                    if (value is null) return Wrong("--precopy needs off, auto or a size, for example 2G");
                    if (value is "off" or "auto")
                        precopy = value == "off" ? 0 : null;
                    else if (MemorySize.TryParse(value, out var ahead))
                        precopy = ahead;
                    else
                        return Wrong($"--precopy: '{value}' is not a size; write off, auto or for example 2G");
                    break;

                case "--syscalls":
                    if (value is null && ++i < arguments.Length) value = arguments[i];
                    switch (value)
                    {
                        case "auto":
                            syscalls = SyscallPolicy.Auto;
                            break;
                        case "exit":
                            syscalls = SyscallPolicy.Exit;
                            break;
                        case "ring":
                            syscalls = SyscallPolicy.Ring;
                            break;
                        case null:
                            return Wrong("--syscalls needs a word: auto, exit or ring");
                        default:
                            return Wrong($"--syscalls: '{value}' is not known; use auto, exit or ring");
                    }

                    break;

                case "--rewrite-syscalls":
                    if (value is null && ++i < arguments.Length) value = arguments[i];
                    if (value is null) return Wrong("--rewrite-syscalls needs a word: on or off");
                    if (value is not ("on" or "off")) return Wrong($"--rewrite-syscalls: '{value}' is not known; use on or off");
                    rewrites = value == "on";
                    break;

                case "--engine":
                    if (value is null && ++i < arguments.Length) value = arguments[i];
                    switch (value)
                    {
                        case "kvm":
                            engine = Engine.Kvm;
                            break;
                        case "native":
                            engine = Engine.Native;
                            break;
                        case null:
                            return Wrong("--engine needs a name: kvm or native");
                        default:
                            return Wrong($"--engine: '{value}' is not an engine; use kvm or native");
                    }

                    break;

                case "--stats" or "--help":
                    return Wrong($"{name} takes no value");

                default:
                    return Wrong($"unknown option '{argument}' (options of the program come after its name; see 'privy run --help')");
            }
        }

        if (i >= arguments.Length) return Wrong("no program given; for example: privy run -- redis-server --port 7777");
        if (arguments[i].Length == 0) return Wrong("the program's name is empty");

        return new RunArguments
        {
            Engine = engine,
            Options = new RunOptions
            {
                Program = arguments[i],
                Arguments = arguments[(i + 1)..].ToArray(),
                ProgramName = programName,
                Signals = signals,
                MemoryBytes = memory,
                PrecopyBytes = precopy,
                TraceFile = trace,
                Syscalls = syscalls,
                RewriteSyscalls = rewrites,
                Stats = stats,
            },
        };
    }

    private static RunArguments Wrong(string error) => new() { Error = error };
}
