using System.Diagnostics;
using Iced.Intel;
using Privy.Hypervisor.Host;
using static Iced.Intel.AssemblerRegisters;

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
        // Six arguments: mmap reports a bad descriptor only if the fifth argument arrives.
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

    /// <summary>The window is three instructions long, too short to be hit at random: the handler is called with every address around it.</summary>
    [Fact]
    public void The_handler_moves_the_program_counter_within_the_window_only()
    {
        SafeSyscall.Install();
        Assert.InRange(SafeSyscall.Call - SafeSyscall.Check, 1ul, 16ul);
        Assert.Equal([0x0f, 0x05], new ReadOnlySpan<byte>((byte*)SafeSyscall.Call, 2).ToArray()); // syscall
        byte* info = stackalloc byte[128], context = stackalloc byte[1024];
        new Span<byte>(info, 128).Clear();
        for (ulong rip = SafeSyscall.Check - 64; rip < SafeSyscall.Call + 64; rip++)
        {
            *(ulong*)(context + 168) = rip; // uc_mcontext.gregs[REG_RIP]
            SafeSyscall.Handler(SafeSyscall.KickSignal, info, context);
            Assert.Equal(rip >= SafeSyscall.Check && rip <= SafeSyscall.Call ? SafeSyscall.Abort : rip, *(ulong*)(context + 168));
        }
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
        Assert.True(rounds > 20, $"only {rounds} rounds");
    }

    /// <summary>
    /// The runtime suspends threads by a signal. A kick that meets its handler cannot see the call beneath, which the kernel then restarts: here by a handler
    /// that takes so long that every kick meets it.
    /// </summary>
    [Fact]
    public void A_kick_that_meets_another_handler_is_repeated()
    {
        const int Other = 55;
        var c = new Assembler(64);
        Label handler = c.CreateLabel(), spin = c.CreateLabel(), restorer = c.CreateLabel();
        c.Label(ref handler);
        c.mov(ecx, 20_000_000);
        c.Label(ref spin);
        c.dec(ecx);
        c.jne(spin);
        c.ret();
        c.Label(ref restorer);
        c.mov(eax, 15);
        c.syscall();
        byte* page = (byte*)HostSyscall.Raw(9, 0, 4096, 7, 0x22, ulong.MaxValue);
        using var stream = new UnmanagedMemoryStream(page, 0, 4096, FileAccess.Write);
        AssemblerResult code = c.Assemble(new StreamCodeWriter(stream), (ulong)page, BlockEncoderOptions.ReturnNewInstructionOffsets);
        ulong* action = stackalloc ulong[4];
        action[0] = code.GetLabelRIP(handler);
        action[1] = 0x14000004; // SA_RESTART | SA_RESTORER | SA_SIGINFO, as the runtime's
        action[2] = code.GetLabelRIP(restorer);
        action[3] = 0;
        Assert.Equal(0, HostSyscall.Raw(13, Other, (ulong)action, 0, 8));

        (int read, _) = Pipe();
        HostThread? reader = null;
        using var ready = new SemaphoreSlim(0);
        using var back = new SemaphoreSlim(0);
        const int Rounds = 20;
        var thread = new Thread(() =>
        {
            using var self = new HostThread();
            reader = self;
            byte buffer;
            for (int round = 0; round < Rounds; round++)
            {
                ready.Release();
                while (!self.InterruptPending)
                    self.Invoke(0, (ulong)read, (ulong)&buffer, 1);
                self.ClearInterrupt();
                back.Release();
            }
        });
        thread.Start();
        for (int round = 0; round < Rounds; round++)
        {
            ready.Wait();
            Thread.Sleep(2);
            HostSyscall.Raw(234, (ulong)Environment.ProcessId, (ulong)reader!.ThreadId, Other);
            Thread.Sleep(1);
            reader.Interrupt();
            Assert.True(back.Wait(20_000), $"Round {round}: the reader did not come back.");
        }
        thread.Join();
    }
}
