using System.Diagnostics;

namespace Privy.Bench.Workloads;

/// <summary>
/// A loop of a known number of instructions, by the clock and by the cycle counter. In an emulated machine whose time is the number of instructions it has
/// executed, each must take one nanosecond: the proof that what the other programs measure there are counts.
/// </summary>
internal static unsafe class CountedLoop
{
    private const int Rounds = 1_000_000;
    private const int Instructions = 2 * Rounds + 2;

    public static void Run()
    {
        // mov ecx, Rounds; dec ecx; jnz to the one before; ret
        ReadOnlySpan<byte> code = [0xB9, Rounds & 0xFF, Rounds >> 8 & 0xFF, Rounds >> 16 & 0xFF, Rounds >> 24, 0xFF, 0xC9, 0x75, 0xFC, 0xC3];
        var page = Kernel.Map(4096, Kernel.Private);
        code.CopyTo(new Span<byte>(page, code.Length));
        Kernel.Protect(page, 4096, Kernel.PROT_READ | Kernel.PROT_EXEC);
        var loop = (delegate* unmanaged[SuppressGCTransition]<void>)page;
        var (time, cycles) = (double.MaxValue, double.MaxValue);
        // The least of several: an interrupt would count as part of the loop.
        for (var i = 0; i < 20; i++)
        {
            var (beginTime, beginCycles) = (Stopwatch.GetTimestamp(), TimestampCounter.Read());
            loop();
            var (endCycles, endTime) = (TimestampCounter.Read(), Stopwatch.GetTimestamp());
            cycles = Math.Min(cycles, endCycles - beginCycles);
            time = Math.Min(time, Stopwatch.GetElapsedTime(beginTime, endTime).TotalNanoseconds);
        }

        Workload.Result("nanoseconds", time / Instructions);
        Workload.Result("cycles", cycles / Instructions);
    }
}
