// Transactions and analysis on the same memory (HTAP): writers move money between accounts and insert orders at full speed, while every few
// milliseconds an analyst takes a snapshot and runs a query over all of it. In every snapshot the total must be what it always was and no transaction
// may be half done; if that is ever not so, the program fails.
//
//   Bank.cs   the data, transactions, the query and what must hold
//   Run.cs    writers and analyst
//
// It compares: no snapshots, copying the region, and the snapshots of the best engine there is.

using System.Globalization;
using Htap;
using Privy;

long memory = 256L << 20;
int writers = 1;
double seconds = 5;
double interval = 100;
ulong seed = (ulong)Random.Shared.NextInt64();
string? plot = null;
string? csv = null;
var names = new List<string> { "none", "copying", "best" };
try
{
    for (int i = 0; i < args.Length; i += 2)
    {
        string value = i + 1 < args.Length ? args[i + 1] : throw new FormatException($"{args[i]} needs a value.");
        switch (args[i])
        {
            case "--memory":
                int shift = char.ToLowerInvariant(value[^1]) switch { 'k' => 10, 'm' => 20, 'g' => 30, _ => 0 };
                memory = long.Parse(shift == 0 ? value : value[..^1], CultureInfo.InvariantCulture) << shift;
                break;
            case "--writers":
                writers = int.Parse(value, CultureInfo.InvariantCulture);
                break;
            case "--seconds":
                seconds = double.Parse(value, CultureInfo.InvariantCulture);
                break;
            case "--interval":
                interval = double.Parse(value, CultureInfo.InvariantCulture);
                break;
            case "--seed":
                seed = ulong.Parse(value, CultureInfo.InvariantCulture);
                break;
            case "--modes":
                names = [.. value.Split(',')];
                break;
            case "--plot":
                plot = value;
                break;
            case "--csv":
                csv = value;
                break;
            default:
                throw new FormatException($"There is no option {args[i]}; there are --memory SIZE, --writers N, --seconds S, --interval MS, --modes none,copying,portable,privileged,best, --seed N, --plot FILE.svg and --csv FILE.");
        }
    }
    if (memory < 1 << 20 || writers < 1 || seconds <= 0 || interval <= 0)
        throw new FormatException("--memory must be at least 1m; --writers, --seconds and --interval must be positive.");
}
catch (Exception e) when (e is FormatException or OverflowException)
{
    Console.Error.WriteLine($"privy-htap: {e.Message}");
    return 2;
}

try
{
    memory -= memory % SnapshotRegion.PageSize;
    var settings = new Settings(memory, writers, TimeSpan.FromSeconds(seconds), TimeSpan.FromMilliseconds(interval), seed);
    Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{memory >> 20} MB, {writers} writer(s), a snapshot every {interval} ms, {seconds} s each, seed {seed}"));
    Console.WriteLine("mode          trans/s    p50 µs   p99 µs  p99.9 µs    max µs | snapshots   take p50 µs   max µs   query p50 ms   age p50 ms   copies MB");
    var results = new List<Result>();
    foreach (string name in names)
    {
        Result r = Runner.Run(Find(name), settings);
        results.Add(r);
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"{r.Mode,-11} {r.TransactionsPerSecond,9:F0} {r.Latency.Microseconds(.5),9:F2} {r.Latency.Microseconds(.99),8:F2} {r.Latency.Microseconds(.999),9:F2} {r.Latency.Max / 1000.0,9:F0} | {r.Snapshots,9} {r.SnapshotTime.Microseconds(.5),13:F0} {r.SnapshotTime.Max / 1000.0,8:F0} {r.QueryTime.Microseconds(.5) / 1000,14:F1} {r.Freshness.Microseconds(.5) / 1000,12:F1} {r.CopyBytes / 1048576.0,11:F1}"));
    }
    if (plot is not null)
        Plot.Write(plot, results);
    if (csv is not null)
        File.WriteAllLines(csv, results.SelectMany(r => r.Series.Select((value, i) => string.Create(CultureInfo.InvariantCulture, $"{r.Mode},{(i + 1) * Runner.SeriesMilliseconds},{value:F0}"))).Prepend("mode,ms,transactions_per_second"));
    Console.WriteLine("Every snapshot was a state between transactions.");
    return 0;
}
catch (InvariantException e)
{
    Console.Error.WriteLine($"privy-htap: A snapshot is wrong (seed {seed}): {e.Message}");
    return 1;
}
catch (Exception e) when (e is IOException or ArgumentException or PlatformNotSupportedException or InsufficientMemoryException or UnauthorizedAccessException)
{
    Console.Error.WriteLine($"privy-htap: {e.Message}");
    return 1;
}

static Mode Find(string name) => name switch
{
    "none" => new Mode(name, null),
    "copying" => new Mode(name, SnapshotEngine.Copying),
    "portable" => new Mode(name, SnapshotEngine.Portable),
    "privileged" => new Mode(name, SnapshotEngine.Privileged),
    "best" when SnapshotRegion.IsAvailable(SnapshotEngine.Privileged, out _) => new Mode("privileged", SnapshotEngine.Privileged),
    "best" => new Mode("portable", SnapshotEngine.Portable),
    _ => throw new ArgumentException($"There is no mode '{name}'; there are none, copying, portable, privileged and best."),
};
