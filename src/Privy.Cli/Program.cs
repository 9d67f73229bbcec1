using System.Runtime.CompilerServices;

namespace Privy.Cli;

internal static class Program
{
    private static int Main(string[] args) => args is ["run", ..] ? RunCommand.Run(args.AsSpan(1)) : RunOther(args);

    // A method of its own: the JIT loads the types a method mentions when it compiles it, and `run` must not pay for these.
    [MethodImpl(MethodImplOptions.NoInlining)]
    private static int RunOther(string[] args) => Commands.Invoke(args);
}
