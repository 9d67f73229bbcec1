using System.Numerics;

namespace Privy.Hypervisor.Processes;

/// <summary>Times of the snapshots taken, in nanoseconds. However many there are, they take the same memory: times that differ by less than a sixteenth may share a counter.</summary>
internal sealed class SnapshotStatistics
{
    private const int Steps = 16;

    private readonly int[] _counts = new int[64 * Steps];
    private int _count;
    private long _max;

    internal void Add(long nanoseconds)
    {
        lock (_counts)
        {
            _counts[Bucket(nanoseconds)]++;
            _count++;
            _max = Math.Max(_max, nanoseconds);
        }
    }

    /// <summary>Count, median (a sixteenth too low at most) and maximum.</summary>
    internal (int Count, long Median, long Max) Summarise()
    {
        lock (_counts)
        {
            if (_count == 0)
                return default;
            var left = _count / 2;
            var bucket = 0;
            while (left >= _counts[bucket])
                left -= _counts[bucket++];
            return (_count, Least(bucket), _max);
        }
    }

    private static int Bucket(long value)
    {
        if (value < Steps)
            return (int)Math.Max(value, 0);
        var shift = BitOperations.Log2((ulong)value) - BitOperations.Log2(Steps);
        return (shift * Steps) + (int)(value >> shift);
    }

    private static long Least(int bucket)
    {
        if (bucket < Steps)
            return bucket;
        var shift = (bucket / Steps) - 1;
        return (long)(bucket - (shift * Steps)) << shift;
    }
}
