using System.Diagnostics;

namespace Privy.Bench.Workloads;

/// <summary>What system calls cost, one after the other in a loop.</summary>
internal static unsafe class SyscallCosts
{
    private const int Block = 4096;
    private const int Blocks = 256;
    private const int EnoughCalls = 200;

    private static void* s_buffer;
    private static int s_cached;
    private static int s_direct;
    private static int s_event;
    private static int s_poll;
    private static long s_batch;

    public static void Run(WorkloadArguments arguments)
    {
        s_batch = arguments.Number("milliseconds") * 1_000_000;
        var batches = arguments.Number("batches");
        // O_DIRECT wants an aligned buffer; a page is.
        s_buffer = Region.Shared(Block).Start;
        s_cached = Kernel.Open(arguments.Text("file"), Kernel.O_RDWR);
        if (s_cached < 0) throw new InvalidOperationException($"the file cannot be opened (error {-s_cached})");
        s_direct = Kernel.Open(arguments.Text("file"), Kernel.O_RDWR | Kernel.O_DIRECT);
        s_event = Kernel.EventDescriptor();
        s_poll = Kernel.Poll(s_event);
        Workload.Result("frequency", TimestampCounter.PerNanosecond);

        // What the guest answers itself, the hypervisor hears of by the next call that leaves it: enough of both for the code to be rewritten (privy run --rewrite-syscalls).
        for (var i = 0; i < EnoughCalls; i++)
        {
            _ = Kernel.LibraryProcessId();
            _ = Kernel.ParentId();
        }

        for (var batch = 0; batch < batches; batch++)
        {
            Measure("gettid", &ThreadId);
            Measure("getpid-library", &ProcessId);
            Measure("lseek", &Position);
            Measure("pread-cached", &ReadCached);
            Measure("pwrite-cached", &WriteCached);
            Measure("epoll", &RoundTrip);
            if (s_direct < 0) continue;
            Measure("pread-direct", &ReadDirect);
            Measure("pwrite-direct", &WriteDirect);
        }
    }

    /// <summary>Nanoseconds a call, from as many calls as fit into a batch.</summary>
    private static void Measure(string name, delegate*<long, long> call)
    {
        Expect(name, call(0));
        long calls = 0;
        var begin = Stopwatch.GetTimestamp();
        long elapsed;
        do
        {
            for (var i = 0; i < 32; i++) Expect(name, call(calls++));
            elapsed = Stopwatch.GetTimestamp() - begin;
        }
        while (elapsed < s_batch);
        Workload.Result(name, (double)elapsed / calls);
    }

    private static void Expect(string name, long result)
    {
        if (result < 0) throw new InvalidOperationException($"{name} failed");
    }

    private static long ThreadId(long i) => Kernel.ThreadId();

    private static long ProcessId(long i) => Kernel.LibraryProcessId();

    private static long Position(long i) => Kernel.Position(s_cached);

    private static long ReadCached(long i) => Kernel.ReadAt(s_cached, s_buffer, Block, i % Blocks * Block);

    private static long WriteCached(long i) => Kernel.WriteAt(s_cached, s_buffer, Block, i % Blocks * Block);

    private static long ReadDirect(long i) => Kernel.ReadAt(s_direct, s_buffer, Block, i % Blocks * Block);

    private static long WriteDirect(long i) => Kernel.WriteAt(s_direct, s_buffer, Block, i % Blocks * Block);

    /// <summary>Makes a descriptor readable, waits for it, and empties it: the three calls around each wake-up of a server.</summary>
    private static long RoundTrip(long i)
    {
        long one = 1;
        var events = stackalloc long[2];
        return Kernel.Write(s_event, &one, 8) == 8 && Kernel.PollWait(s_poll, events) == 1 && Kernel.Read(s_event, &one, 8) == 8 ? 0 : -1;
    }
}
