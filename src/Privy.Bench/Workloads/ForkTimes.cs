using System.Diagnostics;

namespace Privy.Bench.Workloads;

/// <summary>How long fork keeps its caller, how long until a child that does nothing has ended, and how long it takes to write-protect every page instead.</summary>
internal static unsafe class ForkTimes
{
    // Between two snapshots a program writes; so the page tables are those of a program at work, not of one that only forks.
    private const int WritesBetween = 1000;

    private const int Protections = 3;

    public static void Run(WorkloadArguments arguments)
    {
        var region = Region.Create(arguments.Number("bytes"), arguments.Text("pages") == "huge");
        Workload.Result("huge", region.HugeShare());
        var random = new FastRandom(1);
        var count = arguments.Number("count");
        // The first is not counted: it makes what later ones find ready.
        for (var i = -1; i < count; i++)
        {
            Thread.Sleep(20);
            for (var j = 0; j < WritesBetween; j++) region.Start[random.Next(region.Pages) * Region.Page] = (byte)i;
            var begin = Stopwatch.GetTimestamp();
            var child = Kernel.Fork();
            if (child == 0) Kernel.Exit();
            var end = Stopwatch.GetTimestamp();
            Kernel.Wait(child);
            var gone = Stopwatch.GetTimestamp();
            if (i < 0) continue;
            Workload.Result("fork", end - begin);
            Workload.Result("child", gone - begin);
        }

        if (arguments.Text("protect") != "yes") return;
        for (var i = -1; i < Protections; i++)
        {
            for (long at = 0; at < region.Bytes; at += Region.Page) region.Start[at] = (byte)i;
            var begin = Stopwatch.GetTimestamp();
            Kernel.Protect(region.Start, region.Bytes, Kernel.PROT_READ);
            var end = Stopwatch.GetTimestamp();
            Kernel.Protect(region.Start, region.Bytes, Kernel.PROT_READ | Kernel.PROT_WRITE);
            if (i >= 0) Workload.Result("protect", end - begin);
        }
    }
}
