using System.Diagnostics;

namespace Privy.Bench.Workloads;

/// <summary>The processor's cycle counter: the only clock that is cheap enough to put around a single store.</summary>
internal static unsafe class TimestampCounter
{
    private static delegate* unmanaged[SuppressGCTransition]<ulong> s_read;

    /// <summary>Cycles in a nanosecond.</summary>
    public static double PerNanosecond { get; private set; }

    /// <summary>Makes the code and compares the counter with the clock for 50 ms.</summary>
    public static void Initialize()
    {
        // lfence; rdtsc; shl rdx, 32; or rax, rdx; ret: what was measured has ended before the counter is read.
        ReadOnlySpan<byte> code = [0x0F, 0xAE, 0xE8, 0x0F, 0x31, 0x48, 0xC1, 0xE2, 0x20, 0x48, 0x09, 0xD0, 0xC3];
        var page = Kernel.Map(4096, Kernel.Private);
        code.CopyTo(new Span<byte>(page, code.Length));
        Kernel.Protect(page, 4096, Kernel.PROT_READ | Kernel.PROT_EXEC);
        s_read = (delegate* unmanaged[SuppressGCTransition]<ulong>)page;
        var (time, cycles) = (Stopwatch.GetTimestamp(), Read());
        while (Stopwatch.GetElapsedTime(time).TotalMilliseconds < 50)
        {
        }

        PerNanosecond = (Read() - cycles) / (Stopwatch.GetElapsedTime(time).TotalSeconds * 1e9);
    }

    public static ulong Read() => s_read();
}
