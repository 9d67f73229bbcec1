using System.Runtime.CompilerServices;
using Privy.Hypervisor;

namespace Privy.Cli;

/// <summary>
/// <c>privy run</c>. Nothing here, or reached from here, may touch the types of the other commands (command-line parser, terminal,
/// plots), and not even System.Console, whose first use costs several milliseconds: the aim is to be a program's start-up away from native.
/// </summary>
internal static class RunCommand
{
    public const int UsageError = 2;

    public static int Run(ReadOnlySpan<string> arguments)
    {
        var parsed = RunArguments.Parse(arguments);
        if (parsed.ShowHelp)
        {
            Console.Out.WriteLine(RunArguments.Help);
            return 0;
        }

        if (parsed.Error is { } error)
        {
            Console.Error.WriteLine("privy run: " + error);
            return UsageError;
        }

        var options = parsed.Options!;
        return parsed.Engine == Engine.Native ? NativeEngine.Run(options) : RunPrivileged(options);
    }

    // Kept out of line so that the native engine does not load the hypervisor.
    [MethodImpl(MethodImplOptions.NoInlining)]
    private static int RunPrivileged(RunOptions options) => PrivilegedProcess.Run(options);
}
