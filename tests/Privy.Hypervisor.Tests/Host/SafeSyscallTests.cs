using System.Diagnostics;
using Privy.Hypervisor.Host;

namespace Privy.Hypervisor.Tests.Host;

public unsafe class SafeSyscallTests
{
    private static (int Read, int Write) Pipe()
    {
        int* ends = stackalloc int[2];
        Assert.Equal(0, HostSyscall.Raw(293, (ulong)ends, 0x80000));
        return (ends[0], ends[1]);
    }

    [Fact]
    public void A_call_runs_and_returns_what_the_kernel_returns()
    {
        using var thread = new HostThread();
        Assert.Equal(Environment.ProcessId, thread.Invoke(39));
        Assert.Equal(-Errno.EBADF, thread.Invoke(0, ulong.MaxValue));
        // pwrite of 6 arguments: mmap reports a bad descriptor only if the fifth argument arrives.
        Assert.Equal(-Errno.EBADF, thread.Invoke(9, 0, 4096, 1, 2, 1000, 0));
        Assert.Equal(-Errno.EINVAL, thread.Invoke(9, 0, 4096, 1, 2, 0, 1));
        Assert.Equal(-Errno.EINVAL, HostSyscall.Raw(9, 0, 4096, 1, 2, 0, 1));
    }

    [Fact]
    public void A_pending_interrupt_prevents_the_call()
    {
        using var thread = new HostThread();
        thread.Interrupt();
        Assert.Equal(-Errno.ERESTARTSYS, thread.Invoke(39));
        Assert.True(thread.InterruptPending);
        thread.ClearInterrupt();
        Assert.Equal(Environment.ProcessId, thread.Invoke(39));
    }

    /// <summary>A lost wake-up leaves the reader in an empty pipe for ever. The garbage collector runs along, so that kicks also meet the runtime's own signal.</summary>
    [Theory]
    [InlineData(false, 20_000)]
    [InlineData(true, 5_000)]
    public void No_kick_is_lost_whenever_it_comes(bool collect, int most)
    {
        (int read, _) = Pipe();
        HostThread? reader = null;
        int seen = 0, aborted = 0, rounds = 0;
        bool stop = false;
        var ready = new ManualResetEventSlim();
        var thread = new Thread(() =>
        {
            using var self = new HostThread();
            reader = self;
            ready.Set();
            byte buffer;
            while (!Volatile.Read(ref stop))
            {
                long result = self.Invoke(0, (ulong)read, (ulong)&buffer, 1);
                if (result == -Errno.ERESTARTSYS)
                    Interlocked.Increment(ref aborted);
                else
                    Assert.Equal(-Errno.EINTR, result);
                if (self.InterruptPending)
                {
                    self.ClearInterrupt();
                    Interlocked.Increment(ref seen);
                }
                GC.KeepAlive(new byte[16]);
            }
        });
        thread.Start();
        ready.Wait();
        var collector = new Thread(() =>
        {
            while (collect && !Volatile.Read(ref stop))
            {
                GC.Collect(0);
                Thread.Sleep(1);
            }
        });
        collector.Start();

        var random = new Random(1);
        long begin = Stopwatch.GetTimestamp();
        for (; rounds < most && Stopwatch.GetElapsedTime(begin).TotalSeconds < 10; rounds++)
        {
            int before = Volatile.Read(ref seen);
            for (int spin = random.Next(400); spin > 0; spin--)
                Thread.SpinWait(1);
            reader!.Interrupt();
            long start = Stopwatch.GetTimestamp();
            while (Volatile.Read(ref seen) == before)
            {
                if (Stopwatch.GetElapsedTime(start).TotalSeconds > 10)
                    Assert.Fail($"Round {rounds}: the reader did not come back.");
                Thread.Yield();
            }
        }
        Volatile.Write(ref stop, true);
        reader!.Interrupt();
        Assert.True(thread.Join(10_000));
        collector.Join();
        Assert.True(rounds > 100, $"only {rounds} rounds");
    }
}
