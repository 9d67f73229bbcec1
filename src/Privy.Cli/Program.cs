using System.Runtime.CompilerServices;
using Privy.Bench.Workloads;

namespace Privy.Cli;

internal static class Program
{
    private static int Main(string[] args) => args switch
    {
        ["run", ..] => RunCommand.Run(args.AsSpan(1)),
        // Not in the help: the programs that benchmarks measure, natively and under Privy.
        [Workload.Command, ..] => Workload.Run(args.AsSpan(1)),
        _ => RunOther(args),
    };

    // A method of its own: the JIT loads the types a method mentions when it compiles it, and `run` must not pay for these.
    [MethodImpl(MethodImplOptions.NoInlining)]
    private static int RunOther(string[] args) => Commands.Invoke(args);
}
