using System.Globalization;

namespace Privy.Bench.Workloads;

/// <summary>
/// The measured programs: this very executable, started again with a hidden command, natively and under Privy. So both sides run the same code,
/// and no compiler is needed. They print lines "name number number …" and "# what they are doing".
/// </summary>
public static class Workload
{
    /// <summary>The hidden command.</summary>
    public const string Command = "workload";

    /// <summary>Runs the program that the words name.</summary>
    /// <returns>The exit status.</returns>
    public static int Run(ReadOnlySpan<string> words)
    {
        try
        {
            var arguments = new WorkloadArguments(words.Length > 1 ? words[1..].ToArray() : []);
            TimestampCounter.Initialize();
            switch (words.IsEmpty ? "" : words[0])
            {
                case "fork-times":
                    ForkTimes.Run(arguments);
                    break;
                case "first-writes":
                    FirstWrites.Run(arguments);
                    break;
                case "writers-and-snapshots":
                    WritersAndSnapshots.Run(arguments);
                    break;
                case "syscall-costs":
                    SyscallCosts.Run(arguments);
                    break;
                case "counted-loop":
                    CountedLoop.Run();
                    break;
                case "elevated-loops":
                    ElevatedLoops.Run(arguments);
                    break;
                case "library-costs":
                    LibraryCosts.Run(arguments);
                    break;
                case "htap":
                    HtapLoad.Run(arguments);
                    break;
                default:
                    throw new ArgumentException("there is no such workload");
            }

            return 0;
        }
        catch (Exception e) when (e is InvalidOperationException or ArgumentException or IOException or PlatformNotSupportedException or InsufficientMemoryException)
        {
            Console.Error.WriteLine("privy workload: " + e.Message);
            return 1;
        }
    }

    /// <summary>Prints a result.</summary>
    internal static void Result(string name, params ReadOnlySpan<double> values)
    {
        var line = name;
        foreach (var value in values) line += " " + value.ToString("R", CultureInfo.InvariantCulture);
        Console.Out.WriteLine(line);
        Console.Out.Flush();
    }

    /// <summary>Says that a phase begins.</summary>
    internal static void Phase(string name)
    {
        Console.Out.WriteLine("# " + name);
        Console.Out.Flush();
    }
}

/// <summary>Arguments "name=value".</summary>
internal sealed class WorkloadArguments(string[] words)
{
    public long Number(string name) => long.Parse(Text(name), CultureInfo.InvariantCulture);

    public string Text(string name) =>
        words.FirstOrDefault(w => w.StartsWith(name + "=", StringComparison.Ordinal))?[(name.Length + 1)..] ?? throw new ArgumentException($"argument {name} is missing");
}
