using System.Globalization;
using Privy.Bench.Framework;

namespace Privy.Bench.SnapshotLatency;

/// <summary>The measurements of <see cref="SnapshotLatencyBenchmark"/>.</summary>
internal sealed class SnapshotLatencyRun(BenchmarkContext context, IReadOnlyList<Side> sides)
{
    public IReadOnlyList<Side> Sides { get; } = sides;

    public CsvTable Csv { get; } = new("memory_bytes", "side", "round", "nanoseconds");

    public Dictionary<(string Side, long Size), Sample> Times { get; } = [];

    /// <summary>The smallest share of memory that was in huge pages where they were asked for.</summary>
    public double? HugeShare { get; private set; }

    public Sample Sample(Side side, long size) => Times.GetValueOrDefault((side.Key, size)) ?? new Sample();

    public void Measure(long[] sizes, int rounds, int forks)
    {
        // A large memory takes long to fill, and tells as much in fewer rounds.
        int Rounds(long size) => size > 1L << 30 ? Math.Max(1, rounds - 1) : rounds;
        var total = sizes.Sum(s => s * Rounds(s)) * Sides.Count;
        long done = 0;
        foreach (var size in sizes)
        {
            for (var round = 0; round < Rounds(size); round++)
            {
                foreach (var side in Sides)
                {
                    context.Progress($"{Format.Bytes(size)}, {side.Name}", (double)done / total);
                    Measure(side, size, round, forks);
                    done += size;
                }
            }
        }
    }

    private void Measure(Side side, long size, int round, int forks)
    {
        var pages = side.Key == Side.Native.Key ? "small" : "huge";
        var protect = side.Key == Side.Native.Key && round == 0 ? "yes" : "no";
        var run = WorkloadProcess.Run(context, side, "fork-times", [Number("bytes", size), Number("count", forks), $"pages={pages}", $"protect={protect}"]);
        if (side.Key == Side.NativeHuge.Key) HugeShare = Math.Min(HugeShare ?? 1, run.One("huge"));
        Keep(side.Key, run.All("fork"));
        if (protect == "yes") Keep("write-protect", run.All("protect"));

        void Keep(string key, IEnumerable<double> times)
        {
            if (!Times.TryGetValue((key, size), out var sample)) Times[(key, size)] = sample = new Sample();
            foreach (var time in times)
            {
                sample.Add(time);
                Csv.Add(size, key, round, time);
            }
        }
    }

    private static string Number(string name, long value) => string.Create(CultureInfo.InvariantCulture, $"{name}={value}");
}
