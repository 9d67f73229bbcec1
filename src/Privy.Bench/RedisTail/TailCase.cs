using System.Globalization;
using Privy.Bench.Framework;

namespace Privy.Bench.RedisTail;

/// <summary>A load on a server with data while it saves.</summary>
/// <param name="DataBytes">Bytes of values.</param>
/// <param name="Reads">GETs for each SET.</param>
/// <param name="Keys">How keys are picked.</param>
/// <param name="IsOpen">Requests at fixed times, instead of 1,000 always on the way.</param>
internal sealed record TailCase(long DataBytes, int Reads, KeyDistribution Keys, bool IsOpen)
{
    public string Ratio => string.Create(CultureInfo.InvariantCulture, $"{Reads}:1");

    public string KeysName => Keys == KeyDistribution.Gaussian ? "Gaussian" : "uniform";

    public string Loop => IsOpen ? "open" : "closed";

    public string Name => $"{Format.Bytes(DataBytes)}, read:write {Ratio}, {KeysName} keys, {Loop} loop";

    /// <summary>The case of the paper's Fig. 15, which the goals are about.</summary>
    public bool IsPlain => this is { Reads: 0, Keys: KeyDistribution.Uniform, IsOpen: false };

    /// <summary>What a run measures. All are grouped by size, as one loaded server serves all cases of its size; the closed loop comes first, as it tells the rate of the open one.</summary>
    public static IReadOnlyList<TailCase> Choose(BenchmarkContext context, Func<long, bool> fits)
    {
        const long Gigabyte = 1L << 30;
        if (context.Quick) return [Plain(32 << 20), new(32 << 20, 0, KeyDistribution.Uniform, true)];
        long[] sizes = [.. ((long[])[Gigabyte, 2 * Gigabyte, 4 * Gigabyte, 8 * Gigabyte]).Where(fits)];
        if (context.Full)
        {
            return [.. from size in sizes from keys in (KeyDistribution[])[KeyDistribution.Uniform, KeyDistribution.Gaussian] from reads in (int[])[0, 1, 4] from open in (bool[])[false, true] select new TailCase(size, reads, keys, open)];
        }

        // The smallest size shows what reads and the choice of keys change, a middle one the open loop; the plain case runs at all.
        var middle = sizes.LastOrDefault(s => s <= 4 * Gigabyte);
        var cases = new List<TailCase>();
        foreach (var size in sizes)
        {
            cases.Add(Plain(size));
            if (size == middle) cases.Add(Plain(size) with { IsOpen = true });
            if (size == sizes[0]) cases.AddRange([Plain(size) with { Reads = 1 }, Plain(size) with { Reads = 4 }, Plain(size) with { Keys = KeyDistribution.Gaussian }]);
        }

        return cases;
    }

    private static TailCase Plain(long bytes) => new(bytes, 0, KeyDistribution.Uniform, false);
}
