using System.Numerics;

namespace Privy.Bench.Workloads;

/// <summary>What the first write to each page costs while a forked child holds a snapshot.</summary>
internal static unsafe class FirstWrites
{
    private static Region s_region;
    private static ulong* s_cycles;
    private static long s_writers;
    private static bool s_inOrder;
    private static int s_bits;
    private static ulong s_limit;

    public static void Run(WorkloadArguments arguments)
    {
        s_region = Region.Create(arguments.Number("bytes"), arguments.Text("pages") == "huge");
        if (!BitOperations.IsPow2(s_region.Pages)) throw new ArgumentException("bytes must be a power of two");
        s_bits = BitOperations.Log2((ulong)s_region.Pages);
        s_writers = arguments.Number("writers");
        s_limit = (ulong)(arguments.Number("limit") * 1e6 * TimestampCounter.PerNanosecond);
        s_inOrder = arguments.Text("order") == "sequential";
        // Shared with the child, so that keeping the results costs no fault.
        s_cycles = (ulong*)Region.Shared(s_region.Pages * sizeof(ulong)).Start;
        var (start, end) = (Kernel.Pipe(), Kernel.Pipe());
        for (var writer = 1; writer < s_writers; writer++)
        {
            var own = writer;
            new Thread(() => Serve(own, start.Read, end.Write)) { IsBackground = true }.Start();
        }

        var reader = arguments.Text("reader");
        Workload.Result("frequency", TimestampCounter.PerNanosecond);
        var rounds = arguments.Number("rounds");
        // The first round, not counted, is where everything is used for the first time.
        for (var round = -1; round < rounds; round++)
        {
            var snapshot = SnapshotReader.Start(s_region, reader);
            byte token = 0;
            for (var i = 1; i < s_writers; i++) Kernel.Write(start.Write, &token, 1);
            Write(0, round);
            for (var i = 1; i < s_writers; i++) Kernel.ReadBlocking(end.Read, &token, 1);
            snapshot.End();
            if (round >= 0) Report();
            // 0 stands for a page that was not written because time was up.
            new Span<ulong>(s_cycles, (int)s_region.Pages).Clear();
        }
    }

    private static void Serve(int writer, int start, int end)
    {
        byte token;
        for (var round = 0; Kernel.ReadBlocking(start, &token, 1) == 1; round++)
        {
            Write(writer, round);
            Kernel.Write(end, &token, 1);
        }
    }

    /// <summary>Writes to this writer's share of the pages, each once, and times each write, until all are written or time is up.</summary>
    private static void Write(long writer, int round)
    {
        var started = TimestampCounter.Read();
        for (var i = writer; i < s_region.Pages; i += s_writers)
        {
            var page = s_region.Start + (s_inOrder ? i : Scatter(i)) * Region.Page;
            var begin = TimestampCounter.Read();
            if (begin - started > s_limit) break;
            *(int*)page = round;
            s_cycles[i] = TimestampCounter.Read() - begin;
        }
    }

    /// <summary>An order that jumps about: each step of it maps the page numbers one to one.</summary>
    private static long Scatter(long i)
    {
        var mask = (1UL << s_bits) - 1;
        var x = (ulong)i;
        for (var step = 0; step < 3; step++)
        {
            x = x * 0x9E3779B97F4A7C15 & mask;
            x ^= x >> (s_bits + 1) / 2;
        }

        return (long)x;
    }

    private static void Report()
    {
        var cycles = new Span<ulong>(s_cycles, (int)s_region.Pages);
        double sum = 0;
        foreach (var value in cycles) sum += value;
        cycles.Sort();
        cycles = cycles[cycles.IndexOfAnyExcept(0UL)..];
        Workload.Result("write", cycles.Length, sum / cycles.Length, At(cycles, 0.5), At(cycles, 0.99), At(cycles, 0.999), cycles[^1]);
    }

    private static double At(Span<ulong> sorted, double share) => sorted[Math.Clamp((int)Math.Ceiling(share * sorted.Length) - 1, 0, sorted.Length - 1)];
}
