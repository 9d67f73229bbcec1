using System.Numerics;
using System.Runtime.InteropServices;

namespace Privy.Hypervisor.Host;

/// <summary>
/// Which processor a thread runs on, as the kernel keeps it in the thread's restartable-sequences area (rseq(2)), which the C library registers for
/// each thread. Can be read from other threads without a call.
/// </summary>
internal static unsafe class ThreadPlacement
{
    private const int MaxProcessors = 1024;
    private static readonly nint s_offset = FindOffset();

    /// <summary>Held while a thread is confined (<see cref="YieldTo"/>): whoever asks for a thread's processors, or sets them, takes it too.</summary>
    internal static Lock Confinement { get; } = new();

    /// <summary>Address of the calling thread's processor number; null where the C library registers none (glibc before 2.35).</summary>
    internal static int* OfThisThread()
    {
        if (s_offset == 0)
            return null;
        const ulong getFs = 0x1003;
        ulong thread;
        if (HostSyscall.RawQuick(Syscalls.SyscallNumber.arch_prctl, getFs, (ulong)&thread) != 0)
            return null;
        const int processorField = 4;
        return (int*)((nint)thread + s_offset + processorField);
    }

    /// <summary>Processors that the calling thread may run on.</summary>
    internal static int AllowedProcessors()
    {
        var mask = stackalloc ulong[MaxProcessors / 64];
        return Allowed(mask, 0);
    }

    /// <summary>Moves the calling thread off a processor, to any other of those that another thread may use.</summary>
    internal static void Avoid(int processor, int likeThread)
    {
        var mask = stackalloc ulong[MaxProcessors / 64];
        if ((uint)processor >= MaxProcessors || Allowed(mask, likeThread) < 2)
            return;
        mask[processor / 64] &= ~(1UL << (processor % 64));
        _ = HostSyscall.RawQuick(Syscalls.SyscallNumber.sched_setaffinity, 0, MaxProcessors / 8, (ulong)mask);
    }

    /// <summary>
    /// Lets another thread run on the calling one's processor, where it would otherwise wait on a busy one: it is confined to this processor
    /// while the calling thread yields.
    /// </summary>
    internal static void YieldTo(int thread)
    {
        if (!Confinement.TryEnter())
        {
            _ = HostSyscall.Raw(Syscalls.SyscallNumber.sched_yield);
            return;
        }

        try
        {
            YieldWhileConfined(thread);
        }
        finally
        {
            Confinement.Exit();
        }
    }

    private static void YieldWhileConfined(int thread)
    {
        var mask = stackalloc ulong[MaxProcessors / 64];
        var here = stackalloc ulong[MaxProcessors / 64];
        uint processor = 0;
        new Span<ulong>(here, MaxProcessors / 64).Clear();
        var moves = Allowed(mask, thread) > 1 && HostSyscall.RawQuick(Syscalls.SyscallNumber.getcpu, (ulong)(&processor)) == 0
            && processor < MaxProcessors && (mask[processor / 64] >> (int)(processor % 64) & 1) != 0;
        if (moves)
        {
            here[processor / 64] = 1UL << (int)(processor % 64);
            _ = HostSyscall.RawQuick(Syscalls.SyscallNumber.sched_setaffinity, (ulong)thread, MaxProcessors / 8, (ulong)here);
        }

        _ = HostSyscall.Raw(Syscalls.SyscallNumber.sched_yield);
        if (moves)
            _ = HostSyscall.RawQuick(Syscalls.SyscallNumber.sched_setaffinity, (ulong)thread, MaxProcessors / 8, (ulong)mask);
    }

    private static int Allowed(ulong* mask, int thread)
    {
        new Span<ulong>(mask, MaxProcessors / 64).Clear();
        if (HostSyscall.RawQuick(Syscalls.SyscallNumber.sched_getaffinity, (ulong)thread, MaxProcessors / 8, (ulong)mask) < 0)
            return 0;
        var count = 0;
        for (var i = 0; i < MaxProcessors / 64; i++)
            count += BitOperations.PopCount(mask[i]);
        return count;
    }

    private static nint FindOffset() =>
        NativeLibrary.TryLoad("libc.so.6", out var library) && NativeLibrary.TryGetExport(library, "__rseq_offset", out var offset)
        && NativeLibrary.TryGetExport(library, "__rseq_size", out var size) && *(uint*)size != 0
            ? *(nint*)offset
            : 0;
}
