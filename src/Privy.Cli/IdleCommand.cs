using System.Globalization;
using Privy.Bench;
using Spectre.Console;

namespace Privy.Cli;

/// <summary><c>privy bench idle</c>.</summary>
internal static class IdleCommand
{
    public static int Run(int seconds, CancellationToken cancellation)
    {
        var program = RedisServer.FindInstalled() ?? throw new BenchException("no redis-server in PATH; install it (Debian: apt-get install redis-server)");
        Terminal.Out.WriteLine($"{program} {RedisServer.Version(program)}, nobody connected, {seconds} s each, {DateTime.UtcNow:yyyy-MM-dd}");
        Terminal.Out.WriteLine(Machine.Describe());
        foreach (var (name, launcher) in (ReadOnlySpan<(string, IReadOnlyList<string>)>)[("native", []), ("Privy", Launcher.Run())])
        {
            var result = IdleBenchmark.Run(program, launcher, TimeSpan.FromSeconds(seconds), cancellation);
            Terminal.Out.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"{name,-6} {result.Processor.TotalMilliseconds,6:0} ms of processor time ({result.Processor.TotalSeconds / seconds:P2}), {result.Switches / (double)seconds:0} context switches a second"));
        }

        return 0;
    }
}
