namespace Privy.Bench.Workloads;

/// <summary>A forked child that keeps a snapshot: computing without touching it (idle), blocked in a system call (host), or reading it again and again (scan).</summary>
internal readonly unsafe struct SnapshotReader
{
    private readonly int _child;
    private readonly int* _stop;
    private readonly int _wake;

    private SnapshotReader(int child, int* stop, int wake)
    {
        _child = child;
        _stop = stop;
        _wake = wake;
    }

    /// <summary>Forks, and waits until the child is at what it is to do.</summary>
    public static SnapshotReader Start(Region region, string mode)
    {
        if (s_words is null) s_words = (int*)Region.Shared(Region.Page).Start;
        var stop = s_words;
        var ready = s_words + 64;
        *stop = *ready = 0;
        if (s_pipe == default) s_pipe = Kernel.Pipe();
        var child = Kernel.Fork();
        if (child == 0)
        {
            Volatile.Write(ref *ready, 1);
            Serve(region, mode, ref *stop);
            Kernel.Exit();
        }

        if (child < 0) throw new InvalidOperationException("fork: no further snapshot can be had");
        while (Volatile.Read(ref *ready) == 0) Thread.Sleep(1);
        Thread.Sleep(5);
        return new SnapshotReader(child, stop, s_pipe.Write);
    }

    /// <summary>Ends the child and so the snapshot.</summary>
    public void End()
    {
        Volatile.Write(ref *_stop, 1);
        byte token = 0;
        Kernel.Write(_wake, &token, 1);
        Kernel.Wait(_child);
        // Whether or not the child has read it.
        Kernel.Drain(s_pipe.Read);
    }

    private static int* s_words;
    private static (int Read, int Write) s_pipe;

    private static void Serve(Region region, string mode, ref int stop)
    {
        switch (mode)
        {
            case "host":
                byte token;
                Kernel.Read(s_pipe.Read, &token, 1);
                break;
            case "scan":
                while (Volatile.Read(ref stop) == 0)
                    for (long at = 0; at < region.Bytes && Volatile.Read(ref stop) == 0; at += 1 << 20) region.Scan(at, 1 << 20);
                break;
            default:
                while (Volatile.Read(ref stop) == 0) Thread.SpinWait(20);
                break;
        }
    }
}
