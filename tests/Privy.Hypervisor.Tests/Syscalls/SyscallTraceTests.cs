using Privy.Hypervisor.Host;
using Privy.Hypervisor.Syscalls;
using static Privy.Hypervisor.Syscalls.SyscallNumber;

namespace Privy.Hypervisor.Tests.Syscalls;

public sealed class SyscallTraceTests : IDisposable
{
    private const ulong CurrentDirectory = unchecked((ulong)-100L);

    private readonly FakeContext _context = new(translates: true);

    public void Dispose() => _context.Dispose();

    private string Line(long number, long? result, params ReadOnlySpan<ulong> a)
    {
        Span<ulong> all = stackalloc ulong[6];
        a.CopyTo(all);
        return SyscallTrace.Format(_context, 42, number, new SyscallArguments(all[0], all[1], all[2], all[3], all[4], all[5]), result);
    }

    [Fact]
    public void Files()
    {
        Assert.Equal("[42] openat(AT_FDCWD, \"/etc/passwd\", O_RDONLY|O_CLOEXEC) = 3", Line(openat, 3, CurrentDirectory, _context.Put("/etc/passwd"), 0x80000, 0));
        Assert.Equal("[42] open(\"dump.rdb\", O_WRONLY|O_CREAT|O_TRUNC, 0644) = -1 EACCES (Permission denied)", Line(open, -Errno.EACCES, _context.Put("dump.rdb"), 0x241, 0x1a4));
        var longPath = "/" + new string('d', 100);
        Assert.Equal($"[42] chdir(\"{longPath}\") = 0", Line(chdir, 0, _context.Put(longPath)));
        Assert.Equal("[42] read(3, \"ab\\n\\0\\1\\0019\\377\\\"\\\\\", 4096) = 10", Line(read, 10, 3, _context.PutBytes([.. "ab\n"u8, 0, 1, 1, (byte)'9', 255, (byte)'"', (byte)'\\']), 4096));
        Assert.Equal("[42] write(1, \"0123456789012345678901234567890x\", 32) = 32", Line(write, 32, 1, _context.Put("0123456789012345678901234567890x"), 32));
        Assert.Equal("[42] write(1, \"0123456789012345678901234567890x\"..., 33) = 33", Line(write, 33, 1, _context.Put("0123456789012345678901234567890xy"), 33));
        var buffer = _context.Allocate(16);
        Assert.Equal($"[42] read(3, 0x{buffer:x}, 16) = -1 EAGAIN (Resource temporarily unavailable)", Line(read, -Errno.EAGAIN, 3, buffer, 16));
        Assert.Equal("[42] read(3, NULL, 16) = -1 EFAULT (Bad address)", Line(read, -Errno.EFAULT, 3, 0, 16));
        Assert.Equal($"[42] access(0x{_context.End:x}, R_OK) = -1 EFAULT (Bad address)", Line(access, -Errno.EFAULT, _context.End, 4));
        Assert.Equal("[42] access(\"x\", F_OK) = 0", Line(access, 0, _context.Put("x"), 0));
        Assert.Equal("[42] lseek(3, -1, SEEK_END) = 99", Line(lseek, 99, 3, ulong.MaxValue, 2));
        Assert.Equal("[42] fcntl(3, F_SETFL, O_RDWR|O_NONBLOCK) = 0", Line(fcntl, 0, 3, 4, 0x802));
        Assert.Equal("[42] fcntl(3, F_GETFD) = 1", Line(fcntl, 1, 3, 1, 999));
        Assert.Equal("[42] fcntl(3, F_SETSIG, 0xa) = -1 EINVAL (Invalid argument)", Line(fcntl, -Errno.EINVAL, 3, 10, 10));
        Assert.Equal("[42] ioctl(3, FIONREAD, [7]) = 0", Line(ioctl, 0, 3, 0x541B, _context.Words(7)));
        Assert.Equal("[42] ioctl(3, 0xabcd, 0x10) = -1 ENOTTY (Inappropriate ioctl for device)", Line(ioctl, -Errno.ENOTTY, 3, 0xabcd, 0x10));
        Assert.Equal("[42] pipe2([5, 6], O_CLOEXEC) = 0", Line(pipe2, 0, _context.Words(5 | 6ul << 32), 0x80000));
        Assert.Equal("[42] flock(3, LOCK_EX|LOCK_NB) = 0", Line(flock, 0, 3, 6));
        var stats = _context.Allocate(144);
        _context.At<uint>(stats + 24) = 0x81a4;
        _context.At<long>(stats + 48) = 1234;
        Assert.Equal("[42] fstat(3, {st_mode=S_IFREG|0644, st_size=1234, ...}) = 0", Line(fstat, 0, 3, stats));
        Assert.Equal("[42] unlinkat(AT_FDCWD, \"d\", AT_REMOVEDIR) = 0", Line(unlinkat, 0, CurrentDirectory, _context.Put("d"), 0x200));
        Assert.Equal("[42] sendfile(5, 4, [100], 50) = 50", Line(sendfile, 50, 5, 4, _context.Words(100), 50));
        Assert.Equal("[42] getcwd(\"/tmp\", 100) = 5", Line(getcwd, 5, _context.Put("/tmp"), 100).Replace("\\0", "", StringComparison.Ordinal));
    }

    [Fact]
    public void Vectors_and_messages()
    {
        var vectors = _context.Words(_context.Put("abc"), 3, _context.Put("defg"), 4);
        Assert.Equal("[42] writev(1, [{iov_base=\"abc\", iov_len=3}, {iov_base=\"defg\", iov_len=4}], 2) = 7", Line(writev, 7, 1, vectors, 2));
        Assert.Equal("[42] readv(1, [{iov_base=\"abc\", iov_len=3}, {iov_base=\"d\", iov_len=4}], 2) = 4", Line(readv, 4, 1, vectors, 2));
        var name = _context.PutBytes([2, 0, 0x18, 0xeb, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        var message = _context.Words(name, 16, vectors, 2, 0, 0, 0x20);
        const string Text = "{msg_name={sa_family=AF_INET, sin_port=htons(6379), sin_addr=inet_addr(\"127.0.0.1\")}, msg_namelen=16, msg_iov=[{iov_base=\"abc\", iov_len=3}, {iov_base=\"defg\", iov_len=4}], msg_iovlen=2, msg_controllen=0, msg_flags=MSG_TRUNC}";
        Assert.Equal($"[42] sendmsg(3, {Text}, MSG_NOSIGNAL) = 7", Line(sendmsg, 7, 3, message, 0x4000));
        Assert.Equal($"[42] recvmsg(3, {Text}, 0) = 7", Line(recvmsg, 7, 3, message, 0));
        Assert.Contains("msg_iov=[{iov_base=0x", Line(recvmsg, -Errno.EAGAIN, 3, message, 0), StringComparison.Ordinal);
        var several = _context.Words(0, 0, vectors, 1, 0, 0, 0, 3, 0, 0, vectors, 1, 0, 0, 0, 0);
        Assert.Contains("= 1", Line(recvmmsg, 1, 3, several, 2, 0, 0), StringComparison.Ordinal);
        Assert.Contains("msg_len=3}]", Line(recvmmsg, 1, 3, several, 2, 0, 0), StringComparison.Ordinal);
    }

    [Fact]
    public void Sockets_and_polling()
    {
        Assert.Equal("[42] socket(AF_INET6, SOCK_STREAM|SOCK_NONBLOCK|SOCK_CLOEXEC, 6) = 3", Line(socket, 3, 10, 0x80801, 6));
        Assert.Equal("[42] bind(3, {sa_family=AF_UNIX, sun_path=\"/tmp/s\"}, 110) = 0", Line(bind, 0, 3, _context.PutBytes([1, 0, .. "/tmp/s"u8, .. new byte[102]]), 110));
        Assert.Equal("[42] connect(3, {sa_family=AF_UNIX, sun_path=@\"abc\"}, 6) = 0", Line(connect, 0, 3, _context.PutBytes([1, 0, 0, .. "abc"u8]), 6));
        Assert.Equal("[42] bind(3, {sa_family=AF_INET6, sin6_port=htons(80), sin6_addr=\"::1\"}, 28) = 0",
            Line(bind, 0, 3, _context.PutBytes([10, 0, 0, 80, 0, 0, 0, 0, .. new byte[15], 1, 0, 0, 0, 0]), 28));
        Assert.Equal("[42] accept4(3, NULL, NULL, SOCK_NONBLOCK) = 5", Line(accept4, 5, 3, 0, 0, 0x800));
        Assert.Equal("[42] setsockopt(3, SOL_SOCKET, SO_REUSEADDR, [1], 4) = 0", Line(setsockopt, 0, 3, 1, 2, _context.Words(1), 4));
        Assert.Equal("[42] setsockopt(3, SOL_TCP, TCP_NODELAY, [1], 4) = 0", Line(setsockopt, 0, 3, 6, 1, _context.Words(1), 4));
        Assert.Equal("[42] epoll_ctl(5, EPOLL_CTL_ADD, 6, [{events=EPOLLIN|EPOLLET, data=0x7}]) = 0", Line(epoll_ctl, 0, 5, 1, 6, _context.Words(0x7_8000_0001)));
        Assert.Equal("[42] epoll_wait(5, [{events=EPOLLIN, data=0x7}], 1024, 100) = 1", Line(epoll_wait, 1, 5, _context.Words(0x7_0000_0001, 0), 1024, 100));
        Assert.Equal("[42] epoll_wait(5, [], 1024, -1) = 0", Line(epoll_wait, 0, 5, _context.Words(0), 1024, unchecked((ulong)-1L)));
        Assert.Equal("[42] poll([{fd=3, events=POLLIN, revents=POLLIN|POLLHUP}], 1, 0) = 1", Line(poll, 1, _context.Words(3 | 1ul << 32 | 0x11ul << 48), 1, 0));
        Assert.Equal("[42] select(10, [1 9], NULL, NULL, {tv_sec=1, tv_usec=5}) = 2", Line(select, 2, 10, _context.Words(0x202), 0, 0, _context.Words(1, 5)));
        Assert.Equal("[42] shutdown(3, SHUT_RDWR) = 0", Line(shutdown, 0, 3, 2));
    }

    [Fact]
    public void Memory_processes_and_signals()
    {
        Assert.Equal("[42] mmap(NULL, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x100000000000",
            Line(mmap, 0x1000_0000_0000, 0, 8192, 3, 0x22, unchecked((ulong)-1L), 0));
        Assert.Equal("[42] mmap(0x1000, 4096, PROT_NONE, MAP_SHARED|MAP_FIXED, 4, 0x2000) = -1 ENOMEM (Cannot allocate memory)", Line(mmap, -Errno.ENOMEM, 0x1000, 4096, 0, 0x11, 4, 0x2000));
        Assert.Equal("[42] madvise(0x1000, 4096, MADV_DONTNEED) = 0", Line(madvise, 0, 0x1000, 4096, 4));
        Assert.Equal("[42] brk(NULL) = 0x5000", Line(brk, 0x5000, 0));
        Assert.Equal("[42] clone(CLONE_VM|CLONE_THREAD|SIGCHLD, 0x1000, 0, 0, 0) = 43", Line(clone, 43, 0x10111, 0x1000));
        Assert.Equal("[42] clone(SIGCHLD, 0, 0, 0, 0) = 43", Line(clone, 43, 17));
        Assert.Equal("[42] kill(43, SIGKILL) = -1 ESRCH (No such process)", Line(kill, -Errno.ESRCH, 43, 9));
        Assert.Equal("[42] kill(43, SIGRT_2) = 0", Line(kill, 0, 43, 34));
        Assert.Equal("[42] rt_sigprocmask(SIG_BLOCK, [INT CHLD RT_1], NULL, 8) = 0", Line(rt_sigprocmask, 0, 0, _context.Words(0x1_0001_0002), 0, 8));
        Assert.Equal("[42] rt_sigprocmask(SIG_SETMASK, ~[KILL STOP], NULL, 8) = 0", Line(rt_sigprocmask, 0, 2, _context.Words(~(1ul << 8 | 1ul << 18)), 0, 8));
        Assert.Equal("[42] rt_sigaction(SIGINT, {sa_handler=0x401000, sa_mask=[TERM], sa_flags=SA_RESTORER|SA_RESTART}, NULL, 8) = 0", Line(rt_sigaction, 0, 2, _context.Words(0x401000, 0x14000000, 0x402000, 0x4000), 0, 8));
        Assert.Equal("[42] rt_sigaction(SIGPIPE, {sa_handler=SIG_IGN, sa_mask=[], sa_flags=0}, NULL, 8) = 0", Line(rt_sigaction, 0, 13, _context.Words(1, 0, 0, 0), 0, 8));
        Assert.Equal("[42] futex(0x1000, FUTEX_WAIT_BITSET_PRIVATE|FUTEX_CLOCK_REALTIME, 2, 0, 0, -1) = 0", Line(futex, 0, 0x1000, 0x189, 2, 0, 0, uint.MaxValue));
        Assert.Equal("[42] wait4(-1, [256], WNOHANG, NULL) = 43", Line(wait4, 43, unchecked((ulong)-1L), _context.Words(256), 1, 0));
        Assert.Equal("[42] prctl(PR_SET_NAME, \"bio_close\") = 0", Line(prctl, 0, 15, _context.Put("bio_close")));
        Assert.Equal("[42] prlimit64(0, RLIMIT_NOFILE, NULL, {rlim_cur=1024, rlim_max=RLIM64_INFINITY}) = 0", Line(prlimit64, 0, 0, 7, 0, _context.Words(1024, ulong.MaxValue)));
        Assert.Equal("[42] clock_gettime(CLOCK_MONOTONIC, {tv_sec=5, tv_nsec=6}) = 0", Line(clock_gettime, 0, 1, _context.Words(5, 6)));
        Assert.Equal("[42] exit_group(0) = ?", Line(exit_group, null, 0));
        Assert.Equal("[42] nanosleep({tv_sec=1, tv_nsec=0}, NULL) = ? ERESTARTNOHAND (To be restarted if no handler)", Line(nanosleep, -Errno.ERESTARTNOHAND, _context.Words(1, 0), 0));
        Assert.Equal("[42] vmsplice(0x1, 0x2, 0, 0, 0, 0) = -1 ENOSYS (Function not implemented)", Line(vmsplice, -Errno.ENOSYS, 1, 2));
        Assert.Equal("[42] syscall_999(0, 0, 0, 0, 0, 0) = -1 ENOSYS (Function not implemented)", Line(999, -Errno.ENOSYS));
    }

    [Fact]
    public void Calls_that_have_only_begun()
    {
        var buffer = _context.Allocate(16);
        Assert.Equal($"[42] read(3, 0x{buffer:x}, 16 <unfinished ...>", SyscallTrace.Enter(_context, 42, read, new SyscallArguments(3, buffer, 16, 0, 0, 0)));
        var strings = _context.Words(_context.Put("sh"), _context.Put("-c"), 0);
        Assert.Equal("[42] execve(\"/bin/sh\", [\"sh\", \"-c\"], 0x20 <unfinished ...>", SyscallTrace.Enter(_context, 42, execve, new SyscallArguments(_context.Put("/bin/sh"), strings, 0x20, 0, 0, 0)));
    }

    /// <summary>Whatever the arguments, a trace gives a line: it must not bring the program down.</summary>
    [Fact]
    public void Every_call_has_a_line_for_any_arguments()
    {
        var random = new Random(7);
        ulong[] values = [0, 1, 3, 8, 100, 4096, ulong.MaxValue, _context.Put("text"), _context.Words(1, 2, 3, 4, 5, 6, 7, 8), _context.End - 8, _context.End, 0x7fff_ffff, 0x8000_0000];
        long?[] results = [0, 1, 7, 1 << 20, -Errno.EINTR, -Errno.EFAULT, -4095, long.MinValue, long.MaxValue, null];
        for (var number = -1; number <= SyscallTable.Count; number++)
        {
            for (var i = 0; i < 40; i++)
            {
                ulong Pick() => values[random.Next(values.Length)];
                var arguments = new SyscallArguments(Pick(), Pick(), Pick(), Pick(), Pick(), Pick());
                Assert.StartsWith("[42] ", SyscallTrace.Enter(_context, 42, number, in arguments));
                Assert.Contains(" = ", SyscallTrace.Format(_context, 42, number, in arguments, results[random.Next(results.Length)]), StringComparison.Ordinal);
            }
        }
    }

    [Fact]
    public void Errors_have_names()
    {
        Assert.Equal("ENOENT", ErrnoText.NameOf(2));
        Assert.Equal("No such file or directory", ErrnoText.TextOf(2));
        Assert.Equal("EHWPOISON", ErrnoText.NameOf(133));
        Assert.Equal("41", ErrnoText.NameOf(41));
        Assert.Equal("Unknown error", ErrnoText.TextOf(4000));
        for (var error = 1; error < 134; error++)
            if (error is not (41 or 58)) Assert.StartsWith("E", ErrnoText.NameOf(error));
        foreach (var field in typeof(Errno).GetFields()) Assert.Equal(field.Name == nameof(Errno.ENOTSUP) ? "EOPNOTSUPP" : field.Name, ErrnoText.NameOf((int)field.GetRawConstantValue()!));
    }
}
