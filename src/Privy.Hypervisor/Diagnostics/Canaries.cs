using Privy.Hypervisor.Host;

namespace Privy.Hypervisor.Diagnostics;

/// <summary>
/// Pages with a pattern beside the ranges that guest and hypervisor work in, for tests (the variable PRIVY_CANARIES): a write that misses its range hits one of
/// them. They are looked at when the program has ended.
/// </summary>
internal static unsafe class Canaries
{
    private const int PagesEach = 16;
    private const ulong Length = PagesEach * 4096UL;

    private static readonly List<ulong> s_places = [];

    /// <summary>How many pages there are.</summary>
    internal static int Pages => s_places.Count * PagesEach;

    /// <summary>Puts pages before and behind each of the ranges, if the variable is set.</summary>
    internal static void Place(ReadOnlySpan<(ulong Start, ulong End)> ranges)
    {
        if (Environment.GetEnvironmentVariable("PRIVY_CANARIES") is not { Length: > 0 })
            return;
        foreach (var (start, end) in ranges)
        {
            Add(start - Length);
            Add(end);
        }

        // Where Linux puts programs, libraries and stacks natively: what a mistaken address of the program might be.
        foreach (var address in (ReadOnlySpan<ulong>)[0x5555_5555_4000, 0x7FFF_F7FC_0000, 0x2AAA_AAAA_A000])
            Add(address);
    }

    /// <summary>The first byte that is not as it was; 0: none.</summary>
    internal static ulong FindDamage()
    {
        foreach (var place in s_places)
        {
            for (ulong i = 0; i < Length; i += sizeof(ulong))
            {
                if (*(ulong*)(place + i) != Pattern(place + i))
                    return place + i;
            }
        }

        return 0;
    }

    private static void Add(ulong address)
    {
        const int readWrite = HostMemory.PROT_READ | HostMemory.PROT_WRITE;
        if (HostMemory.Map(address, Length, readWrite, HostMemory.MAP_PRIVATE | HostMemory.MAP_ANONYMOUS | HostMemory.MAP_FIXED_NOREPLACE) != (long)address)
            return;
        for (ulong i = 0; i < Length; i += sizeof(ulong))
            *(ulong*)(address + i) = Pattern(address + i);
        s_places.Add(address);
    }

    private static ulong Pattern(ulong address) => address * 0x9E3779B97F4A7C15;
}
