namespace Privy.Bench.Workloads;

/// <summary>Memory of a measured program.</summary>
internal readonly unsafe struct Region
{
    public const int Page = 4096;

    private Region(byte* start, long bytes)
    {
        Start = start;
        Bytes = bytes;
    }

    public byte* Start { get; }

    public long Bytes { get; }

    public long Pages => Bytes / Page;

    /// <summary>Memory with something in every page, by huge pages if asked for and possible; never by them if not asked for.</summary>
    public static Region Create(long bytes, bool huge)
    {
        // A huge page must begin at a multiple of its size.
        const long Large = 2 << 20;
        var start = (byte*)(((nint)Kernel.Map(bytes + Large, Kernel.Private) + (nint)Large - 1) & ~(nint)(Large - 1));
        Kernel.Advise(start, bytes, huge ? Kernel.MADV_HUGEPAGE : Kernel.MADV_NOHUGEPAGE);
        for (long at = 0; at < bytes; at += Page) *(long*)(start + at) = at + 1;
        return new Region(start, bytes);
    }

    /// <summary>Memory that a child shares, touched beforehand: for results and for words between parent and child.</summary>
    public static Region Shared(long bytes)
    {
        bytes = (bytes + Page - 1) / Page * Page;
        var start = (byte*)Kernel.Map(bytes, Kernel.Shared);
        for (long at = 0; at < bytes; at += Page) start[at] = 0;
        return new Region(start, bytes);
    }

    /// <summary>Reads a word of every cache line of a part.</summary>
    public long Scan(long from, long bytes)
    {
        long sum = 0;
        for (var at = from; at < from + bytes; at += 64) sum += Volatile.Read(ref *(long*)(Start + at));
        return sum;
    }

    /// <summary>The share of this program's memory that is in huge pages now, as the kernel says; 0 if it does not say.</summary>
    public double HugeShare()
    {
        var text = Machine.Field("/proc/self/smaps_rollup", "AnonHugePages")?.Split(' ')[0];
        return long.TryParse(text, out var kilobytes) ? Math.Min(1, kilobytes * 1024.0 / Bytes) : 0;
    }
}
