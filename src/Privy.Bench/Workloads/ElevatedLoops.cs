using System.Diagnostics;

namespace Privy.Bench.Workloads;

/// <summary>Programs that hardly use the kernel: one waits for memory, one computes.</summary>
internal static unsafe class ElevatedLoops
{
    private const int Line = 64;
    private const int Side = 192;

    public static void Run(WorkloadArguments arguments)
    {
        var region = Region.Create(arguments.Number("bytes"), arguments.Text("pages") == "huge");
        Workload.Result("huge", region.HugeShare());
        MakeChain(region);
        var rounds = arguments.Number("rounds");
        var steps = arguments.Number("steps");
        for (var round = -1; round < rounds; round++)
        {
            var chase = Time(() => Chase(region, steps)) / steps;
            var scan = Time(() => region.Scan(0, region.Bytes)) / (region.Bytes / Line);
            var multiply = Time(Multiply) / ((long)Side * Side * Side);
            if (round < 0) continue;
            Workload.Result("chase", chase);
            Workload.Result("scan", scan);
            Workload.Result("compute", multiply);
        }
    }

    /// <summary>Links all cache lines in one random circle (Sattolo's algorithm).</summary>
    private static void MakeChain(Region region)
    {
        var lines = region.Bytes / Line;
        for (long i = 0; i < lines; i++) *(long*)(region.Start + i * Line) = i;
        var random = new FastRandom(3);
        for (var i = lines - 1; i > 0; i--)
        {
            var j = random.Next(i);
            var a = (long*)(region.Start + i * Line);
            var b = (long*)(region.Start + j * Line);
            (*a, *b) = (*b, *a);
        }
    }

    private static double Chase(Region region, long steps)
    {
        long at = 0;
        for (long i = 0; i < steps; i++) at = *(long*)(region.Start + at * Line);
        return at;
    }

    /// <summary>Multiplies two matrices that fit into the cache.</summary>
    private static double Multiply()
    {
        var (a, b, c) = (new double[Side * Side], new double[Side * Side], new double[Side * Side]);
        for (var i = 0; i < a.Length; i++) (a[i], b[i]) = (i % 7, i % 5);
        for (var i = 0; i < Side; i++)
            for (var k = 0; k < Side; k++)
                for (var j = 0; j < Side; j++) c[i * Side + j] += a[i * Side + k] * b[k * Side + j];
        return c[Side + 1];
    }

    private static double Time(Func<double> work)
    {
        var begin = Stopwatch.GetTimestamp();
        s_sink = work();
        return Stopwatch.GetTimestamp() - begin;
    }

    private static double s_sink;
}
