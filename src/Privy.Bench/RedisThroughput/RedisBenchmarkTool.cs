using System.Diagnostics;
using System.Globalization;
using Privy.Hypervisor;

namespace Privy.Bench.RedisThroughput;

/// <summary>The load generator that comes with Redis.</summary>
internal static class RedisBenchmarkTool
{
    /// <summary>Its program, or null.</summary>
    public static string? Find() => ((IEnumerable<string>)["redis-benchmark", "valkey-benchmark"]).FirstOrDefault(name => ProgramSearch.Find(name, out _) is not null);

    /// <summary>Runs one test and returns requests per second.</summary>
    public static double Run(string program, int port, string test, int pipeline, int connections, long requests, CancellationToken cancellation)
    {
        // Random keys out of as many as fit into the caches of neither side.
        string[] arguments = ["-h", "127.0.0.1", "-p", Text(port), "-t", test, "-P", Text(pipeline), "-c", Text(connections), "-n", Text(requests), "-r", "100000", "--csv"];
        using var process = RedisServer.StartProcess(new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true });
        using var killing = cancellation.Register(() => process.Kill());
        var errors = process.StandardError.ReadToEndAsync(CancellationToken.None);
        var output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        cancellation.ThrowIfCancellationRequested();
        // "SET","61728.39",...; newer ones print a line of heads before it.
        foreach (var line in output.Split('\n').Reverse())
        {
            var cells = line.Split("\",\"");
            if (cells.Length > 1 && double.TryParse(cells[1].Trim('"'), NumberStyles.Float, CultureInfo.InvariantCulture, out var rate) && rate > 0) return rate;
        }

        throw new BenchException($"{program} -t {test} -P {pipeline} gave no result (status {process.ExitCode}): {(output + errors.Result).Trim()}");
    }

    private static string Text(long number) => number.ToString(CultureInfo.InvariantCulture);
}
