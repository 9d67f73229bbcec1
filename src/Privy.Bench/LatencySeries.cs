using System.Numerics;

namespace Privy.Bench;

/// <summary>The requests that completed in one slot of time. Latencies in nanoseconds.</summary>
public readonly record struct LatencySlot(long Count, long Median, long P99, long Max);

/// <summary>Latency over time: requests are gathered in slots of equal width by when they completed.</summary>
public sealed class LatencySeries
{
    // The slot being filled is a histogram of 32 steps per power of two (3% wide); when time moves on it is reduced to three numbers.
    private const int StepBits = 5;
    private const int Steps = 1 << StepBits;

    private readonly int[] _histogram = new int[(64 - StepBits + 1) * Steps];
    private readonly long _slotTicks;
    private LatencySlot[] _slots;
    private int _current;
    private long _count;
    private long _max;
    private int _lowest = int.MaxValue;
    private int _highest = -1;

    internal LatencySeries(TimeSpan width, int expectedSlots)
    {
        Width = width;
        _slotTicks = (long)(width.TotalSeconds * 1e9);
        _slots = new LatencySlot[Math.Clamp(expectedSlots, 16, 1 << 20)];
    }

    /// <summary>The width of a slot.</summary>
    public TimeSpan Width { get; }

    /// <summary>The slots from the start of the run; one without a completed request has Count 0.</summary>
    public ReadOnlySpan<LatencySlot> Slots => _slots.AsSpan(0, _current + (_count > 0 ? 1 : 0));

    /// <summary>Adds requests with the same latency; times never go back by more than a slot's start.</summary>
    internal void Add(long sinceStart, long latency)
    {
        var slot = (int)(sinceStart / _slotTicks);
        if (slot > _current) MoveTo(slot);
        var bucket = Bucket(latency);
        _histogram[bucket]++;
        if (bucket < _lowest) _lowest = bucket;
        if (bucket > _highest) _highest = bucket;
        _count++;
        if (latency > _max) _max = latency;
    }

    /// <summary>Ends the slot being filled.</summary>
    internal void Complete()
    {
        if (_count > 0) MoveTo(_current + 1);
    }

    /// <summary>One series from those of several threads. A slot's median and p99 are the worst of any thread's: exact for one thread, an upper bound for more.</summary>
    internal static LatencySeries Merge(IReadOnlyList<LatencySeries> parts)
    {
        if (parts.Count == 1) return parts[0];
        var merged = new LatencySeries(parts[0].Width, parts.Max(p => p.Slots.Length));
        foreach (var part in parts)
        {
            var slots = part.Slots;
            if (slots.Length > merged._slots.Length) Array.Resize(ref merged._slots, slots.Length);
            for (var i = 0; i < slots.Length; i++)
            {
                ref var to = ref merged._slots[i];
                to = new LatencySlot(to.Count + slots[i].Count, Math.Max(to.Median, slots[i].Median), Math.Max(to.P99, slots[i].P99), Math.Max(to.Max, slots[i].Max));
            }

            merged._current = Math.Max(merged._current, slots.Length);
        }

        return merged;
    }

    internal static int Bucket(long value)
    {
        if (value < Steps) return (int)Math.Max(value, 0);
        var shift = BitOperations.Log2((ulong)value) - StepBits;
        return (shift + 1) * Steps + (int)(value >> shift) - Steps;
    }

    /// <summary>The largest value of a bucket.</summary>
    internal static long BucketEnd(int bucket)
    {
        if (bucket < Steps) return bucket;
        var shift = bucket / Steps - 1;
        return ((long)(bucket % Steps + Steps + 1) << shift) - 1;
    }

    private void MoveTo(int slot)
    {
        if (slot >= _slots.Length) Array.Resize(ref _slots, Math.Max(slot + 1, _slots.Length * 2));
        if (_count > 0) _slots[_current] = new LatencySlot(_count, Percentile(0.5), Percentile(0.99), _max);
        if (_highest >= 0) Array.Clear(_histogram, _lowest, _highest - _lowest + 1);
        (_lowest, _highest, _count, _max) = (int.MaxValue, -1, 0, 0);
        _current = slot;
    }

    private long Percentile(double p)
    {
        var rank = Math.Max(1, (long)Math.Ceiling(p * _count));
        long seen = 0;
        for (var i = _lowest; i <= _highest; i++)
        {
            seen += _histogram[i];
            if (seen >= rank) return Math.Min(BucketEnd(i), _max);
        }

        return _max;
    }
}
