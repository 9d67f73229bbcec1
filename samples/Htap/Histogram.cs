using System.Numerics;

namespace Htap;

/// <summary>Times in nanoseconds, by size: 16 steps for each power of two, so at most 6% off.</summary>
internal sealed class Histogram
{
    private readonly long[] _counts = new long[64 * 16];

    internal long Count { get; private set; }

    internal long Max { get; private set; }

    internal void Add(long nanoseconds)
    {
        _counts[Index(nanoseconds)]++;
        Count++;
        Max = Math.Max(Max, nanoseconds);
    }

    internal void Add(Histogram other)
    {
        for (int i = 0; i < _counts.Length; i++)
            _counts[i] += other._counts[i];
        Count += other.Count;
        Max = Math.Max(Max, other.Max);
    }

    /// <summary>The time that a share of all stays below, in microseconds.</summary>
    internal double Microseconds(double share)
    {
        long wanted = (long)Math.Ceiling(Count * share);
        long seen = 0;
        for (int i = 0; i < _counts.Length; i++)
        {
            seen += _counts[i];
            if (seen >= wanted && seen > 0)
                return Math.Min(Upper(i), Max) / 1000.0;
        }
        return 0;
    }

    private static int Index(long value)
    {
        if (value < 16)
            return (int)Math.Max(value, 0);
        int log = BitOperations.Log2((ulong)value);
        return (log - 3) * 16 + (int)(value >> (log - 4) & 15);
    }

    private static long Upper(int index) => index < 16 ? index : (long)(16 + index % 16 + 1) << (index / 16 - 1);
}
