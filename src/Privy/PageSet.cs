using System.Collections;
using System.Numerics;

namespace Privy;

/// <summary>A run of pages.</summary>
/// <param name="Offset">Where it starts in the region, in bytes; a multiple of <see cref="SnapshotRegion.PageSize"/>.</param>
/// <param name="Length">Its length in bytes, a multiple of <see cref="SnapshotRegion.PageSize"/>.</param>
public readonly record struct PageRange(long Offset, long Length)
{
    /// <summary>The first byte after it, as an offset in the region.</summary>
    public long End => Offset + Length;
}

/// <summary>A set of pages of a region. Enumerates them as runs, in ascending order, as long as possible.</summary>
public sealed class PageSet : IEnumerable<PageRange>
{
    private readonly ulong[] _words;

    internal PageSet(ulong[] words)
    {
        _words = words;
        long count = 0;
        foreach (ulong word in words)
            count += BitOperations.PopCount(word);
        Count = count;
    }

    /// <summary>How many pages are in the set.</summary>
    public long Count { get; }

    /// <summary>Bytes of all pages in the set.</summary>
    public long Bytes => Count * SnapshotRegion.PageSize;

    /// <summary>Is the page in the set that holds the byte at <paramref name="offset"/>?</summary>
    /// <param name="offset">An offset in the region, in bytes.</param>
    /// <returns>False for offsets outside of the region, too.</returns>
    public bool Contains(long offset)
    {
        long page = offset / SnapshotRegion.PageSize;
        return offset >= 0 && page >> 6 < _words.Length && (_words[page >> 6] >> (int)(page & 63) & 1) != 0;
    }

    /// <inheritdoc/>
    public IEnumerator<PageRange> GetEnumerator()
    {
        long page = 0;
        long pages = (long)_words.Length << 6;
        while (true)
        {
            long start = Next(page, pages, 0);
            if (start == pages)
                yield break;
            page = Next(start, pages, ulong.MaxValue);
            yield return new PageRange(start * SnapshotRegion.PageSize, (page - start) * SnapshotRegion.PageSize);
        }
    }

    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();

    /// <summary>The first page from <paramref name="page"/> on that is in the set, or, with all bits in <paramref name="invert"/>, that is not.</summary>
    private long Next(long page, long pages, ulong invert)
    {
        while (page < pages)
        {
            ulong word = (_words[page >> 6] ^ invert) >> (int)(page & 63);
            if (word != 0)
                return page + BitOperations.TrailingZeroCount(word);
            page = ((page >> 6) + 1) << 6;
        }
        return pages;
    }
}
