namespace Privy.Engines;

/// <summary>Sets of pages as bits.</summary>
internal static class PageSets
{
    /// <summary>Sets the bits from <paramref name="first"/> up to, without, <paramref name="end"/>.</summary>
    internal static void Fill(Span<ulong> set, long first, long end)
    {
        for (long page = first; page < end;)
        {
            long next = Math.Min(end, (page | 63) + 1);
            ulong mask = ulong.MaxValue >> (int)(64 - (next - page));
            set[(int)(page >> 6)] |= mask << (int)(page & 63);
            page = next;
        }
    }
}
