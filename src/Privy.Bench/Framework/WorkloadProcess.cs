using System.Diagnostics;
using System.Globalization;
using Privy.Bench.Workloads;

namespace Privy.Bench.Framework;

/// <summary>A run of a measured program.</summary>
public sealed class WorkloadProcess
{
    private static readonly TimeSpan DefaultLimit = TimeSpan.FromMinutes(4);

    private readonly Dictionary<string, List<double[]>> _results = [];

    /// <summary>All values of a name, line after line.</summary>
    public IEnumerable<double> All(string name) => _results.TryGetValue(name, out var lines) ? lines.SelectMany(l => l) : [];

    /// <summary>The lines of a name.</summary>
    public IReadOnlyList<double[]> Lines(string name) => _results.TryGetValue(name, out var lines) ? lines : [];

    /// <summary>The only value of a name.</summary>
    public double One(string name) => All(name).Single();

    /// <summary>Starts the program on a side and reads what it prints until it ends.</summary>
    /// <param name="context">The run.</param>
    /// <param name="side">Natively or under Privy.</param>
    /// <param name="program">Its name in <see cref="Workload"/>.</param>
    /// <param name="arguments">Its arguments, "name=value".</param>
    /// <param name="phase">Is told each phase the program says it begins.</param>
    /// <param name="limit">How long it may take; it is killed then.</param>
    public static WorkloadProcess Run(BenchmarkContext context, Side side, string program, IEnumerable<string> arguments, Action<string>? phase = null, TimeSpan? limit = null)
    {
        ArgumentNullException.ThrowIfNull(context);
        ArgumentNullException.ThrowIfNull(side);
        context.Cancellation.ThrowIfCancellationRequested();
        string[] command = [.. side.Launcher, .. context.Self, Workload.Command, program, .. arguments];
        using var process = RedisServer.StartProcess(new ProcessStartInfo(command[0], command.Skip(1)) { RedirectStandardOutput = true, RedirectStandardError = true });
        using var killing = context.Cancellation.Register(() => process.Kill(entireProcessTree: true));
        using var patience = new CancellationTokenSource(limit ?? DefaultLimit);
        using var givingUp = patience.Token.Register(() => process.Kill(entireProcessTree: true));
        var errors = process.StandardError.ReadToEndAsync(CancellationToken.None);
        var run = new WorkloadProcess();
        while (process.StandardOutput.ReadLine() is { } line)
        {
            if (line.StartsWith("# ", StringComparison.Ordinal)) phase?.Invoke(line[2..]);
            else run.Keep(line);
        }

        process.WaitForExit();
        context.Cancellation.ThrowIfCancellationRequested();
        if (patience.IsCancellationRequested) throw new BenchException($"the measured program '{program}' did not end within {(limit ?? DefaultLimit).TotalSeconds:0} s ({side.Name}: {string.Join(' ', arguments)})");
        if (process.ExitCode != 0) throw new BenchException($"the measured program '{program}' failed ({side.Name}, status {process.ExitCode}): {errors.Result.Trim()}");
        return run;
    }

    private void Keep(string line)
    {
        var words = line.Split(' ');
        if (!_results.TryGetValue(words[0], out var lines)) _results[words[0]] = lines = [];
        lines.Add([.. words.Skip(1).Select(w => double.Parse(w, CultureInfo.InvariantCulture))]);
    }
}
