namespace Privy.Hypervisor.Memory;

/// <summary>A set of page-aligned address ranges, kept sorted and merged; finds free room.</summary>
public sealed class RangeSet
{
    private readonly List<(ulong Start, ulong End)> _ranges = [];

    /// <summary>Number of separate ranges.</summary>
    public int Count => _ranges.Count;

    /// <summary>Adds [start, end).</summary>
    public void Add(ulong start, ulong end)
    {
        if (start >= end)
            return;
        var first = FirstEndingAtOrAfter(start);
        var last = first;
        while (last < _ranges.Count && _ranges[last].Start <= end)
        {
            start = Math.Min(start, _ranges[last].Start);
            end = Math.Max(end, _ranges[last].End);
            last++;
        }

        _ranges.RemoveRange(first, last - first);
        _ranges.Insert(first, (start, end));
    }

    /// <summary>Removes [start, end).</summary>
    public void Remove(ulong start, ulong end)
    {
        var i = FirstEndingAtOrAfter(start + 1);
        while (i < _ranges.Count && _ranges[i].Start < end)
        {
            var (from, to) = _ranges[i];
            _ranges.RemoveAt(i);
            if (to > end)
                _ranges.Insert(i, (end, to));
            if (from < start)
                _ranges.Insert(i++, (from, start));
        }
    }

    /// <summary>True when some byte of [start, end) is in the set.</summary>
    public bool Overlaps(ulong start, ulong end)
    {
        var i = FirstEndingAtOrAfter(start + 1);
        return i < _ranges.Count && _ranges[i].Start < end;
    }

    /// <summary>The highest free place for a length within [low, high), aligned; 0 when there is none.</summary>
    public ulong FindTopDown(ulong low, ulong high, ulong length, ulong alignment)
    {
        var ceiling = high;
        for (var i = _ranges.Count - 1; i >= -1; i--)
        {
            var floor = i >= 0 ? Math.Max(_ranges[i].End, low) : low;
            if (ceiling > floor && ceiling - floor >= length)
            {
                var candidate = (ceiling - length) & ~(alignment - 1);
                if (candidate >= floor)
                    return candidate;
            }

            if (i >= 0)
                ceiling = Math.Min(ceiling, _ranges[i].Start);
            if (ceiling <= low)
                break;
        }

        return 0;
    }

    /// <summary>The ranges, lowest first.</summary>
    public IReadOnlyList<(ulong Start, ulong End)> Ranges => _ranges;

    private int FirstEndingAtOrAfter(ulong address)
    {
        int low = 0, high = _ranges.Count;
        while (low < high)
        {
            var middle = (low + high) / 2;
            if (_ranges[middle].End < address)
                low = middle + 1;
            else
                high = middle;
        }

        return low;
    }
}
