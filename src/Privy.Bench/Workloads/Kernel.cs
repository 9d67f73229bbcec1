using System.Runtime.InteropServices;

namespace Privy.Bench.Workloads;

/// <summary>System calls of the measured programs, made directly: what a library would add is not to be measured.</summary>
internal static unsafe partial class Kernel
{
    public const int PROT_READ = 1, PROT_WRITE = 2, PROT_EXEC = 4;
    public const int Shared = 0x21, Private = 0x22; // anonymous
    public const int MADV_HUGEPAGE = 14, MADV_NOHUGEPAGE = 15;
    public const int O_RDWR = 2, O_DIRECT = 0x4000;

    private const int SYS_read = 0, SYS_write = 1, SYS_close = 3, SYS_poll = 7, SYS_lseek = 8, SYS_mmap = 9, SYS_mprotect = 10, SYS_pread64 = 17, SYS_pwrite64 = 18, SYS_madvise = 28;
    private const int SYS_fork = 57, SYS_wait4 = 61, SYS_kill = 62, SYS_getppid = 110, SYS_prctl = 157, SYS_gettid = 186, SYS_clock_gettime = 228, SYS_clock_nanosleep = 230, SYS_exit_group = 231;
    private const int SYS_epoll_wait = 232, SYS_epoll_ctl = 233, SYS_openat = 257, SYS_eventfd2 = 290, SYS_epoll_create1 = 291, SYS_pipe2 = 293;
    private const int EAGAIN = 11, EINTR = 4, WNOHANG = 1, SIGKILL = 9, PR_SET_TIMERSLACK = 29, CLOCK_MONOTONIC = 1, TIMER_ABSTIME = 1, CLOCK_THREAD_CPUTIME_ID = 3;

    public static void* Map(long bytes, int kind) => (void*)Checked("mmap", Call(SYS_mmap, 0, (nint)bytes, PROT_READ | PROT_WRITE, kind, -1, 0));

    public static void Protect(void* at, long bytes, int rights) => Checked("mprotect", Call(SYS_mprotect, (nint)at, (nint)bytes, rights, 0, 0, 0));

    /// <summary>Advice that the kernel may not know is no error.</summary>
    public static void Advise(void* at, long bytes, int advice) => _ = Call(SYS_madvise, (nint)at, (nint)bytes, advice, 0, 0, 0);

    /// <summary>
    /// 0 in the child, which may then do nothing but compute and call this class until <see cref="Exit"/>: the runtime's other threads are not there.
    /// -1 if there cannot be another snapshot just now.
    /// </summary>
    public static int Fork()
    {
        var id = CallQuick(SYS_fork, 0, 0, 0, 0, 0, 0);
        return id >= 0 || Marshal.GetLastSystemError() == EAGAIN ? (int)id : (int)Checked("fork", id);
    }

    /// <summary>Processor time that the calling thread has had, in nanoseconds.</summary>
    public static long ThreadTime()
    {
        var time = stackalloc long[2];
        Checked("clock_gettime", Call(SYS_clock_gettime, CLOCK_THREAD_CPUTIME_ID, (nint)time, 0, 0, 0, 0));
        return (time[0] * 1_000_000_000) + time[1];
    }

    public static void Exit() => CallQuick(SYS_exit_group, 0, 0, 0, 0, 0, 0);

    public static void Kill(int process) => Call(SYS_kill, process, SIGKILL, 0, 0, 0, 0);

    /// <summary>Waits for a child, and fails unless it ended with status 0.</summary>
    public static void Wait(int child)
    {
        int status;
        while (Call(SYS_wait4, child, (nint)(&status), 0, 0, 0, 0) != child)
            if (Marshal.GetLastSystemError() != EINTR) throw Failure("wait4");
        if (status != 0) throw new InvalidOperationException($"a child ended with status {status}");
    }

    /// <summary>Whether a child has ended; it is then gone.</summary>
    public static bool HasEnded(int child)
    {
        int status;
        return Checked("wait4", Call(SYS_wait4, child, (nint)(&status), WNOHANG, 0, 0, 0)) == child;
    }

    public static (int Read, int Write) Pipe()
    {
        var pair = stackalloc int[2];
        Checked("pipe2", Call(SYS_pipe2, (nint)pair, 0, 0, 0, 0, 0));
        return (pair[0], pair[1]);
    }

    public static long Read(int descriptor, void* buffer, long bytes) => CallQuick(SYS_read, descriptor, (nint)buffer, (nint)bytes, 0, 0, 0);

    /// <summary>For a read that waits long: other threads of the runtime need not wait for it.</summary>
    public static long ReadBlocking(int descriptor, void* buffer, long bytes) => Call(SYS_read, descriptor, (nint)buffer, (nint)bytes, 0, 0, 0);

    /// <summary>Reads what there is to read of a pipe, if anything.</summary>
    public static void Drain(int pipe)
    {
        var poll = new PollEntry { Descriptor = pipe, Events = 1 };
        byte token;
        while (Call(SYS_poll, (nint)(&poll), 1, 0, 0, 0, 0) == 1) ReadBlocking(pipe, &token, 1);
    }

    public static long Write(int descriptor, void* buffer, long bytes) => CallQuick(SYS_write, descriptor, (nint)buffer, (nint)bytes, 0, 0, 0);

    public static long ReadAt(int descriptor, void* buffer, long bytes, long at) => CallQuick(SYS_pread64, descriptor, (nint)buffer, (nint)bytes, (nint)at, 0, 0);

    public static long WriteAt(int descriptor, void* buffer, long bytes, long at) => CallQuick(SYS_pwrite64, descriptor, (nint)buffer, (nint)bytes, (nint)at, 0, 0);

    public static long ThreadId() => CallQuick(SYS_gettid, 0, 0, 0, 0, 0, 0);

    /// <summary>The calling process' id, by the C library's function: that has a SYSCALL of its own, where the others here share one.</summary>
    [LibraryImport("libc", EntryPoint = "getpid")]
    [SuppressGCTransition]
    public static partial int LibraryProcessId();

    public static long ParentId() => CallQuick(SYS_getppid, 0, 0, 0, 0, 0, 0);

    /// <summary>Where a file is read next: the least that the host's kernel can be asked.</summary>
    public static long Position(int descriptor) => CallQuick(SYS_lseek, descriptor, 0, 1 /* SEEK_CUR */, 0, 0, 0);

    public static void Close(int descriptor) => _ = Call(SYS_close, descriptor, 0, 0, 0, 0, 0);

    /// <summary>A descriptor, or a negative error number.</summary>
    public static int Open(string path, int flags)
    {
        var text = Marshal.StringToCoTaskMemUTF8(path);
        var descriptor = (int)Call(SYS_openat, -100, text, flags, 0, 0, 0);
        var error = Marshal.GetLastSystemError();
        Marshal.FreeCoTaskMem(text);
        return descriptor >= 0 ? descriptor : -error;
    }

    public static int EventDescriptor() => (int)Checked("eventfd", Call(SYS_eventfd2, 0, 0, 0, 0, 0, 0));

    /// <summary>An epoll descriptor that waits for input on another.</summary>
    public static int Poll(int descriptor)
    {
        var poll = (int)Checked("epoll_create1", Call(SYS_epoll_create1, 0, 0, 0, 0, 0, 0));
        var wanted = stackalloc uint[3] { 1 /* EPOLLIN */, 0, 0 };
        Checked("epoll_ctl", Call(SYS_epoll_ctl, poll, 1 /* EPOLL_CTL_ADD */, descriptor, (nint)wanted, 0, 0));
        return poll;
    }

    public static long PollWait(int poll, void* events) => CallQuick(SYS_epoll_wait, poll, (nint)events, 1, -1, 0, 0);

    /// <summary>Wakes up at the time that was asked for and not up to 50 µs later.</summary>
    public static void BePunctual() => _ = Call(SYS_prctl, PR_SET_TIMERSLACK, 1, 0, 0, 0, 0);

    /// <summary>Sleeps until a <see cref="System.Diagnostics.Stopwatch"/> time stamp, which on Linux counts the nanoseconds of CLOCK_MONOTONIC.</summary>
    public static void SleepUntil(long nanoseconds)
    {
        var time = stackalloc long[2] { nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000 };
        _ = Call(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, (nint)time, 0, 0, 0);
    }

    private static nint Checked(string name, nint result) => result == -1 ? throw Failure(name) : result;

    private static InvalidOperationException Failure(string name) => new($"{name}: {Marshal.GetPInvokeErrorMessage(Marshal.GetLastSystemError())}");

    [StructLayout(LayoutKind.Sequential)]
    private struct PollEntry
    {
        public int Descriptor;
        public short Events;
        public short Returned;
    }

    [LibraryImport("libc", EntryPoint = "syscall")]
    private static partial nint Call(nint number, nint a, nint b, nint c, nint d, nint e, nint f);

    // For calls that are measured, and for those of a forked child. Nothing collects garbage meanwhile.
    [LibraryImport("libc", EntryPoint = "syscall")]
    [SuppressGCTransition]
    private static partial nint CallQuick(nint number, nint a, nint b, nint c, nint d, nint e, nint f);
}
