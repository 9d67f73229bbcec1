using System.Collections.Concurrent;
using System.Runtime.InteropServices;
using System.Text;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Syscalls;
using static Privy.Hypervisor.Syscalls.SyscallNumber;

namespace Privy.Hypervisor.Tests.Syscalls;

public class DispatcherTests
{
    private const ulong CurrentDirectory = unchecked((ulong)-100L);

    private static readonly ConcurrentQueue<string> s_warnings = new();

    static DispatcherTests() => SyscallWarnings.Write = s_warnings.Enqueue;

    [Fact]
    public void Unknown_calls_are_refused_with_one_warning_each()
    {
        using var context = new FakeContext(translates: false);
        context.Kernel = static (_, _) => throw new InvalidOperationException("The kernel was entered.");
        foreach (var number in new[] { vmsplice, io_setup, userfaultfd, -1, 400, 100000 })
        {
            Assert.Equal(-Errno.ENOSYS, context.Call(number));
            Assert.Equal(-Errno.ENOSYS, context.Call(number));
        }
        Assert.Single(s_warnings, w => w.Contains("vmsplice (278)", StringComparison.Ordinal));
        Assert.Single(s_warnings, w => w.Contains("io_setup", StringComparison.Ordinal));
        Assert.Single(s_warnings, w => w.Contains("syscall_400", StringComparison.Ordinal));
        Assert.Single(s_warnings, w => w.Contains("syscall_-1", StringComparison.Ordinal));
    }

    [Fact]
    public void Probed_calls_are_refused_in_silence()
    {
        using var context = new FakeContext(translates: false);
        Assert.Equal(-Errno.ENOSYS, context.Call(rseq));
        Assert.Equal(-Errno.ENOSYS, context.Call(clone3));
        Assert.Equal(0, context.Call(set_robust_list));
        Assert.DoesNotContain(s_warnings, w => w.Contains("rseq", StringComparison.Ordinal) || w.Contains("clone3", StringComparison.Ordinal));
        Assert.Empty(context.HostCalls);
    }

    [Fact]
    public void Handled_calls_go_to_their_handler()
    {
        using var context = new FakeContext(translates: false);
        Assert.Equal(-Errno.ENOSYS, context.Call(shmdt, 7));
        SyscallDispatcher.Register(shmdt, static (ISyscallContext _, in SyscallArguments arguments) => (long)arguments.A0 * 2);
        Assert.Equal(14, context.Call(shmdt, 7));
        const uint Request = 0x5429;
        SyscallDispatcher.RegisterCommand(ioctl, Request, static (ISyscallContext _, in SyscallArguments arguments) => 77);
        Assert.Equal(77, context.Call(ioctl, 0, Request));
        Assert.Throws<ArgumentOutOfRangeException>(() => SyscallDispatcher.Register(100000, static (ISyscallContext _, in SyscallArguments _) => 0));
        Assert.Throws<ArgumentOutOfRangeException>(() => SyscallDispatcher.RegisterCommand(read, 0, static (ISyscallContext _, in SyscallArguments _) => 0));
    }

    [Theory]
    [InlineData("/proc/self/maps", "Maps")]
    [InlineData("/proc/self/smaps", "Smaps")]
    [InlineData("/proc/thread-self/smaps_rollup", "Rollup")]
    [InlineData("/proc/self/task/{0}/maps", "Maps")]
    [InlineData("/proc/{0}/maps", "Maps")]
    [InlineData("/proc/self/status", null)]
    [InlineData("/proc/self/maps/", null)]
    [InlineData("/proc/1/maps", null)]
    public unsafe void Lists_of_memory_are_the_programs(string pattern, string? report)
    {
        const int capacity = 4096;
        using var context = new FakeContext(translates: false) { Memory = new string('m', 3 * capacity) };
        var path = string.Format(System.Globalization.CultureInfo.InvariantCulture, pattern, Environment.ProcessId);
        var file = context.Call(openat, CurrentDirectory, context.Put(path), 0);
        if (file < 0)
        {
            // there is no such file, or it is not for everyone
            Assert.Null(report);
            return;
        }

        var text = new StringBuilder();
        var buffer = new byte[capacity];
        fixed (byte* at = buffer)
        {
            for (long got; (got = FakeContext.Raw(read, (ulong)file, (ulong)at, capacity)) > 0;)
                text.Append(Encoding.UTF8.GetString(buffer, 0, (int)got));
        }

        _ = FakeContext.Raw(close, (ulong)file);
        if (report is null)
            Assert.DoesNotContain("mmmm", text.ToString(), StringComparison.Ordinal);
        else
            Assert.Equal($"{report}\n{context.Memory}", text.ToString());
    }

    [Theory, InlineData(false), InlineData(true)]
    public void Unknown_commands_are_refused(bool translates)
    {
        using var context = new FakeContext(translates);
        context.Kernel = static (_, _) => throw new InvalidOperationException("The kernel was entered.");
        Assert.Equal(-Errno.ENOTTY, context.Call(ioctl, 0, 0xdeadbeef, context.Allocate(8)));
        Assert.Equal(-Errno.EINVAL, context.Call(fcntl, 0, 10, 12));    // F_SETSIG
        Assert.Equal(-Errno.EINVAL, context.Call(prctl, 22, 1));       // PR_SET_SECCOMP
        Assert.Equal(-Errno.EINVAL, context.Call(prctl, 12345));
        Assert.Equal(0, context.Call(prctl, 41, 1));                   // PR_SET_THP_DISABLE
        Assert.Equal(-Errno.ENOPROTOOPT, context.Call(setsockopt, 0, 0, 64, context.Allocate(8), 8));
        Assert.Equal(-Errno.ENOTSUP, context.Call(setsockopt, 0, 1, 60, context.Allocate(4), 4));
        Assert.Single(s_warnings, w => w.Contains("0xdeadbeef", StringComparison.Ordinal));
    }

    [Fact]
    public void A_snapshot_does_not_change_what_belongs_to_the_host_process()
    {
        using var context = new FakeContext(translates: true) { Kernel = static (_, _) => throw new InvalidOperationException("The kernel was entered.") };
        var limit = context.Words(100, 100);
        Assert.Equal(-Errno.EPERM, context.Call(setrlimit, 7, limit));
        Assert.Equal(-Errno.EPERM, context.Call(prlimit64, 0, 7, limit, 0));
        Assert.Equal(0, context.Call(prctl, 1, 9));
        Assert.Equal(0, context.Call(prctl, 4, 0));
        context.Kernel = static (_, arguments) => (long)arguments[0];
        Assert.Equal(1, context.Call(getrusage, 0, context.Allocate(144)));
        Assert.Equal(3, context.Call(clock_gettime, 2, context.Allocate(16)));
        using var main = new FakeContext(translates: false) { Kernel = static (_, arguments) => (long)arguments[0] };
        Assert.Equal(0, main.Call(getrusage, 0, main.Allocate(144)));
        Assert.Equal(2, main.Call(clock_gettime, 2, main.Allocate(16)));
        Assert.Equal(-Errno.EPERM, main.Call(setrlimit, 9, main.Words(1, 1)));
        Assert.Equal(7, main.Call(setrlimit, 7, main.Words(1, 1)));
    }

    [Theory, InlineData(false), InlineData(true)]
    public void Sigpipe_follows_EPIPE(bool translates)
    {
        using var context = new FakeContext(translates) { Kernel = static (_, _) => -Errno.EPIPE };
        var buffer = context.Put("x");
        Assert.Equal(-Errno.EPIPE, context.Call(write, 5, buffer, 1));
        Assert.Equal(1, context.Sigpipes);
        context.Call(writev, 5, context.Words(buffer, 1), 1);
        context.Call(sendto, 5, buffer, 1, 0);
        context.Call(sendmsg, 5, context.Words(0, 0, 0, 0, 0, 0, 0), 0);
        context.Call(sendfile, 5, 6, 0, 1);
        Assert.Equal(5, context.Sigpipes);
        context.Call(sendto, 5, buffer, 1, 0x4000);
        context.Call(sendmsg, 5, context.Words(0, 0, 0, 0, 0, 0, 0), 0x4000);
        context.Call(read, 5, buffer, 1);
        Assert.Equal(5, context.Sigpipes);
    }

    [Fact]
    public void Interrupted_calls_say_how_they_are_made_again()
    {
        using var context = new FakeContext(translates: false) { Kernel = static (_, _) => -Errno.EINTR };
        var memory = context.Allocate(64);
        Assert.Equal(-Errno.ERESTARTSYS, context.Call(read, 0, memory, 8));
        Assert.Equal(-Errno.ERESTARTNOHAND, context.Call(epoll_wait, 0, memory, 1, 0));
        Assert.Equal(-Errno.ERESTARTNOHAND, context.Call(nanosleep, memory, memory));
        Assert.Equal(-Errno.EINTR, context.Call(close, 0));
        Assert.Equal(-Errno.ERESTARTNOHAND, context.Call(ppoll, 0, 0, 0, memory, 8));
        Assert.Equal(0ul, context.TemporaryMask);

        // Stopped before it began: made again, but not a wait under a mask of its own, which exists to be interrupted.
        context.Kernel = static (_, _) => -Errno.ERESTARTNOINTR;
        Assert.Equal(-Errno.ERESTARTNOINTR, context.Call(close, 0));
        Assert.Equal(-Errno.ERESTARTNOINTR, context.Call(ppoll, 0, 0, 0, 0, 0));
        Assert.Equal(-Errno.ERESTARTNOHAND, context.Call(ppoll, 0, 0, 0, memory, 8));
    }

    [Theory, InlineData(false), InlineData(true)]
    public void Signal_masks_are_emulated(bool translates)
    {
        using var context = new FakeContext(translates);
        var timeout = context.Words(0, 0);
        var mask = context.Words(0x4000);
        Assert.Equal(0, context.Call(ppoll, 0, 0, timeout, mask, 8));
        Assert.Equal(0x4000ul, context.TemporaryMask);
        Assert.Equal(0ul, context.HostCalls[^1].Arguments[3]);
        Assert.Equal(0, context.Call(pselect6, 0, 0, 0, 0, timeout, context.Words(context.Words(0x8000), 8)));
        Assert.Equal(0x8000ul, context.TemporaryMask);
        Assert.Equal(0ul, context.HostCalls[^1].Arguments[5]);
        Assert.Equal(-Errno.EINVAL, context.Call(ppoll, 0, 0, timeout, mask, 16));
        Assert.Equal(-Errno.EFAULT, context.Call(ppoll, 0, 0, timeout, context.End, 8));
        Assert.Equal(0, context.Call(pselect6, 0, 0, 0, 0, timeout, context.Words(0, 8)));
    }

    [Fact]
    public void Reserved_descriptors_survive_what_closes_descriptors()
    {
        using var context = new FakeContext(translates: false);
        var numbers = new List<int>();
        for (var i = 0; i < 6; i++) numbers.Add((int)FakeContext.Raw(fcntl, (ulong)FakeContext.Raw(dup, 0), 1030, 700));
        context.Reserved.Add(numbers[2]);
        context.Reserved.Add(numbers[4]);
        Assert.Equal(-Errno.EBADF, context.Call(close, (ulong)numbers[2]));
        Assert.Equal(-Errno.EBADF, context.Call(dup2, (ulong)numbers[0], (ulong)numbers[2]));
        Assert.Equal(-Errno.EBADF, context.Call(dup2, (ulong)numbers[2], (ulong)numbers[0]));
        Assert.Equal(-Errno.EBADF, context.Call(dup3, (ulong)numbers[0], (ulong)numbers[2], 0));
        Assert.Equal(-Errno.EBADF, context.Call(fcntl, (ulong)numbers[2], 1));
        Assert.Equal(-Errno.EBADF, context.Call(ioctl, (ulong)numbers[2], 0x5451));
        Assert.Equal(0, context.Call(close_range, (ulong)numbers[0], (ulong)numbers[^1], 0));
        for (var i = 0; i < 6; i++) Assert.Equal(i is 2 or 4 ? 1 : -Errno.EBADF, FakeContext.Raw(fcntl, (ulong)numbers[i], 1));
        Assert.Equal(-Errno.EINVAL, context.Call(close_range, 5, 4, 0));

        // A range without an end stops where descriptors do.
        context.Kernel = static (_, _) => 0;
        context.HostCalls.Clear();
        Assert.Equal(0, context.Call(close_range, 600, uint.MaxValue, 0));
        Assert.Equal([(600ul, (ulong)numbers[2] - 1), ((ulong)numbers[2] + 1, (ulong)numbers[4] - 1), ((ulong)numbers[4] + 1, (1ul << 20) - 1)],
            context.HostCalls.Select(c => (c.Arguments[0], c.Arguments[1])));
        FakeContext.Raw(close, (ulong)numbers[2]);
        FakeContext.Raw(close, (ulong)numbers[4]);
    }

    [Theory, InlineData(false), InlineData(true)]
    public void The_program_link_leads_to_the_program(bool translates)
    {
        using var context = new FakeContext(translates) { ProgramPath = "/usr/bin/env" };
        var expected = new FileInfo("/usr/bin/env").Length;
        foreach (var name in new[] { "/proc/self/exe", "/proc/thread-self/exe", $"/proc/{context.ProcessId}/exe" })
        {
            var path = context.Put(name);
            var buffer = context.Allocate(64);
            Assert.Equal(12, context.Call(readlink, path, buffer, 64));
            Assert.Equal("/usr/bin/env"u8, context.Bytes(buffer, 12));
            Assert.Equal(4, context.Call(readlinkat, CurrentDirectory, path, buffer, 4));
            Assert.Equal(-Errno.EINVAL, context.Call(readlink, path, buffer, 0));

            var stats = context.Allocate(144);
            Assert.Equal(0, context.Call(stat, path, stats));
            Assert.Equal(expected, context.At<long>(stats + 48));
            Assert.Equal(0, context.Call(newfstatat, CurrentDirectory, path, stats, 0));
            Assert.Equal(expected, context.At<long>(stats + 48));
            // The link itself, where the call does not follow.
            Assert.Equal(0, context.Call(newfstatat, CurrentDirectory, path, stats, 0x100));
            Assert.Equal(0xa000, context.At<int>(stats + 24) & 0xf000);
            Assert.Equal(-Errno.ELOOP, context.Call(open, path, 0x20000));
            Assert.Equal(0, context.Call(access, path, 1));

            var file = context.Call(openat, CurrentDirectory, path, 0x80000);
            Assert.True(file > 2);
            Assert.Equal(0, context.Call(fstat, (ulong)file, stats));
            Assert.Equal(expected, context.At<long>(stats + 48));
            context.Call(close, (ulong)file);
            Assert.Equal("/usr/bin/env", SyscallPaths.ResolveProgram(context, Encoding.ASCII.GetBytes(name)));
        }
        Assert.Null(SyscallPaths.ResolveProgram(context, "/proc/self/exec"u8));
        Assert.Null(SyscallPaths.ResolveProgram(context, "/proc/1/exe"u8));
    }

    [Fact]
    public void A_snapshot_sees_its_own_thread_in_proc()
    {
        using var context = new FakeContext(translates: true) { ProcessId = 4711 };
        var opened = new List<string>();
        context.Kernel = (_, arguments) =>
        {
            opened.Add(Marshal.PtrToStringUTF8((nint)arguments[0])!);
            return 3;
        };
        foreach (var path in new[] { "/proc/self/status", "/proc/self", "/proc/self/fd/3", "/dev/fd/7", "/dev/fd", "/dev/stdin", "/dev/stderr", "/proc/selfish", "/proc/4711/maps", "/tmp/x", "/dev/fdx" })
            Assert.Equal(3, context.Call(open, context.Put(path)));
        Assert.Equal(["/proc/4711/status", "/proc/4711", "/proc/4711/fd/3", "/proc/4711/fd/7", "/proc/4711/fd", "/proc/4711/fd/0", "/proc/4711/fd/2", "/proc/selfish", "/proc/4711/maps", "/tmp/x", "/dev/fdx"], opened);
        var buffer = context.Allocate(16);
        Assert.Equal(4, context.Call(readlink, context.Put("/proc/self"), buffer, 16));
        Assert.Equal("4711"u8, context.Bytes(buffer, 4));

        // Main is the host process.
        using var main = new FakeContext(translates: false);
        Assert.True(main.Call(readlink, main.Put("/proc/self"), main.Allocate(16), 16) > 0);
    }

    [Theory, InlineData(false), InlineData(true)]
    public void Reserved_descriptors_have_no_path(bool translates)
    {
        using var context = new FakeContext(translates);
        context.Reserved.Add(77);
        foreach (var path in new[] { "/proc/self/fd/77", "/dev/fd/77", $"/proc/{context.ProcessId}/fd/77", "/proc/self/fdinfo/77" })
            Assert.Equal(-Errno.ENOENT, context.Call(open, context.Put(path)));
        Assert.Equal(-Errno.ENOENT, context.Call(readlink, context.Put("/proc/self/fd/77"), context.Allocate(16), 16));
        Assert.Empty(context.HostCalls);
    }

    [Theory, InlineData(false), InlineData(true)]
    public void Paths_may_end_at_the_end_of_memory(bool translates)
    {
        using var context = new FakeContext(translates);
        var path = context.End - 5;
        "/tmp\0"u8.CopyTo(context.Bytes(path, 5));
        Assert.Equal(0, context.Call(access, path, 0));
        // Longer than PATH_MAX: the kernel's own error.
        var longPath = context.Put("/" + new string('x', 5000));
        Assert.Equal(-Errno.ENAMETOOLONG, context.Call(access, longPath, 0));
        if (translates)
        {
            "/tmpx"u8.CopyTo(context.Bytes(path, 5));
            Assert.Equal(-Errno.EFAULT, context.Call(access, path, 0));
        }
    }

    [Theory, InlineData(false), InlineData(true)]
    public void Interfaces_are_listed(bool translates)
    {
        using var context = new FakeContext(translates);
        var descriptor = (ulong)context.Call(socket, 2, 2, 0);
        var list = context.Allocate(4096);
        var request = context.Words(4096, list);
        Assert.Equal(0, context.Call(ioctl, descriptor, 0x8912, request));
        var length = context.At<int>(request);
        Assert.Equal(0, length % 40);
        Assert.Equal(list, context.At<ulong>(request + 8));
        if (length > 0)
        {
            // The flags of the first one.
            Assert.Equal(0, context.Call(ioctl, descriptor, 0x8913, list));
            Assert.NotEqual(0, context.At<short>(list + 16));
        }
        Assert.Equal(-Errno.EFAULT, context.Call(ioctl, descriptor, 0x8912, context.End));
        FakeContext.Raw(close, descriptor);
    }

    [Fact]
    public void A_snapshot_does_not_write_settings_of_the_host_process()
    {
        using var context = new FakeContext(translates: true) { ProcessId = (int)FakeContext.Raw(gettid) };
        var before = File.ReadAllText("/proc/self/oom_score_adj");
        var value = context.Put("500");
        foreach (var path in new[] { "/proc/self/oom_score_adj", $"/proc/{context.ProcessId}/oom_score_adj", "/proc/thread-self/oom_score_adj" })
        {
            var file = context.Call(open, context.Put(path), 1);
            Assert.True(file > 2, $"{path}: {file}");
            Assert.Equal(3, context.Call(write, (ulong)file, value, 3));
            context.Call(close, (ulong)file);
            Assert.Equal(before, File.ReadAllText("/proc/self/oom_score_adj"));

            file = context.Call(open, context.Put(path), 0);
            var text = context.Allocate(16);
            Assert.Equal(before.Length, context.Call(read, (ulong)file, text, 16));
            context.Call(close, (ulong)file);
        }
    }

    [Fact]
    public void Direct_io_works_from_a_snapshot()
    {
        using var context = new FakeContext(translates: true);
        var path = context.Put(Path.Combine(Path.GetTempPath(), $"privy-direct-{Environment.ProcessId}"));
        var file = context.Call(open, path, 0x4042, 0x180);
        if (file == -Errno.EINVAL) return; // a file system without it
        var buffer = context.Allocate(3 * 4096) + 4095 & ~4095ul;
        context.Bytes(buffer, 4096).Fill(0x5a);
        Assert.Equal(4096, context.Call(pwrite64, (ulong)file, buffer, 4096, 0));
        Assert.Equal(4096, context.Call(preadv, (ulong)file, context.Words(buffer + 4096, 4096), 1, 0));
        Assert.Equal(-1, context.Bytes(buffer + 4096, 4096).IndexOfAnyExcept((byte)0x5a));
        context.Call(close, (ulong)file);
        Assert.Equal(0, context.Call(unlink, path));
    }

    [Theory, InlineData(false), InlineData(true)]
    public void Memory_is_not_written_through_proc(bool translates)
    {
        using var context = new FakeContext(translates) { ProcessId = (int)FakeContext.Raw(gettid) };
        foreach (var path in new[] { "/proc/self/mem", $"/proc/{context.ProcessId}/mem", "/proc/thread-self/mem", $"/proc/self/task/{context.ProcessId}/mem" })
        {
            Assert.Equal(-Errno.EACCES, context.Call(open, context.Put(path), 2));
            Assert.Equal(-Errno.EACCES, context.Call(openat, CurrentDirectory, context.Put(path), 1));
            Assert.Equal(-Errno.EACCES, context.Call(openat2, CurrentDirectory, context.Put(path), context.Words(2, 0, 0), 24));
            Assert.Equal(-Errno.EACCES, context.Call(creat, context.Put(path), 0));
            Assert.Equal(translates ? -Errno.EACCES : 1, Math.Min(1, context.Call(open, context.Put(path), 0)));
        }
    }
}
