using Privy.Kernel;

namespace Privy.Hypervisor.Sites;

/// <summary>
/// Where trampolines lie: at the two ends of the window, and at the end of the addresses of programs that are not position-independent. All are kept from the program for that. Each is in a jump's reach of what lies
/// there, the program itself or its libraries.
/// </summary>
/// <param name="windowEnd">The window's end.</param>
internal sealed class TrampolinePages(ulong windowEnd)
{
    /// <summary>Bytes that a page has for one.</summary>
    internal const int Room = 80;

    /// <summary>Before them: the stub's address, and the probe.</summary>
    internal const int FirstOffset = 32, ProbeOffset = 16;

    private readonly ulong[] _pages = [Layout.LowWindowEnd - Layout.PageSize, Layout.WindowBase, windowEnd - Layout.PageSize];

    /// <summary>The pages' addresses, ascending.</summary>
    internal ReadOnlySpan<ulong> All => _pages;

    /// <summary>Whether a range is not all the program's.</summary>
    internal bool Overlap(ulong start, ulong end)
    {
        foreach (var page in _pages)
        {
            if (start < page + Layout.PageSize && page < end)
                return true;
        }

        return false;
    }

    /// <summary>The page that jumps of a site can reach; 0: none.</summary>
    internal ulong ReachableFrom(ulong site)
    {
        const long reach = int.MaxValue - (2 * (long)Layout.PageSize);
        foreach (var page in _pages)
        {
            if (Math.Abs((long)(page - site)) < reach)
                return page;
        }

        return 0;
    }
}
