namespace Privy.Hypervisor.Processes;

/// <summary>Times of the snapshots taken, in nanoseconds.</summary>
internal sealed class SnapshotStatistics
{
    private readonly List<long> _times = [];

    internal void Add(long nanoseconds)
    {
        lock (_times)
            _times.Add(nanoseconds);
    }

    /// <summary>Count, median and maximum.</summary>
    internal (int Count, long Median, long Max) Summarise()
    {
        lock (_times)
        {
            if (_times.Count == 0)
                return default;
            var sorted = _times.Order().ToArray();
            return (sorted.Length, sorted[sorted.Length / 2], sorted[^1]);
        }
    }
}
