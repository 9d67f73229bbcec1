using Privy.Hypervisor.Host;
using Privy.Hypervisor.Syscalls;
using static Privy.Hypervisor.Syscalls.SyscallNumber;

namespace Privy.Hypervisor.Tests.Syscalls;

/// <summary>Real calls, by a program whose pointers the kernel may use (main) and by one whose pointers it may not (a snapshot).</summary>
public class MarshallerTests
{
    private static (int Read, int Write) Pipe()
    {
        using var context = new FakeContext(translates: false);
        var pair = context.Allocate(8);
        Assert.Equal(0, context.Call(pipe2, pair, 0x800));
        return (context.At<int>(pair), context.At<int>(pair + 4));
    }

    private static void Close(params ReadOnlySpan<int> descriptors)
    {
        foreach (var descriptor in descriptors) FakeContext.Raw(close, (ulong)descriptor);
    }

    [Theory, InlineData(false), InlineData(true)]
    public void Read_and_write(bool translates)
    {
        using var context = new FakeContext(translates);
        var (input, output) = Pipe();
        Assert.Equal(5, context.Call(write, (ulong)output, context.Put("hello"), 5));
        var buffer = context.Put("..........");
        Assert.Equal(5, context.Call(read, (ulong)input, buffer, 10));
        Assert.Equal("hello....."u8, context.Bytes(buffer, 10));
        if (!translates) Assert.Contains((buffer, 10ul), context.PreparedAtCall);
        Assert.Equal(-Errno.EAGAIN, context.Call(read, (ulong)input, buffer, 10));
        Assert.Equal("hello....."u8, context.Bytes(buffer, 10));
        Close(input, output);
    }

    [Theory, InlineData(false), InlineData(true)]
    public void Vectors(bool translates)
    {
        using var context = new FakeContext(translates);
        var (input, output) = Pipe();
        var vectors = context.Words(context.Put("abc"), 3ul, 0ul, 0ul, context.Put("defg"), 4ul);
        Assert.Equal(7, context.Call(writev, (ulong)output, vectors, 3));
        ulong first = context.Put("...."), second = context.Put("......");
        vectors = context.Words(first, 4ul, second, 6ul);
        Assert.Equal(7, context.Call(readv, (ulong)input, vectors, 2));
        Assert.Equal("abcd"u8, context.Bytes(first, 4));
        Assert.Equal("efg..."u8, context.Bytes(second, 6));
        if (!translates) Assert.Equal([(first, 4ul), (second, 6ul)], context.PreparedAtCall);
        Assert.Equal(-Errno.EINVAL, context.Call(readv, (ulong)input, vectors, 1025));
        Assert.Equal(-Errno.EFAULT, context.Call(readv, (ulong)input, context.End - 8, 1));
        Close(input, output);
    }

    [Theory, InlineData(false), InlineData(true)]
    public void Bad_pointers_fail_with_EFAULT(bool translates)
    {
        using var context = new FakeContext(translates);
        var (input, output) = Pipe();
        Assert.Equal(1, context.Call(write, (ulong)output, context.Put("x"), 1));
        Assert.Equal(-Errno.EFAULT, context.Call(read, (ulong)input, context.End, 8));
        Assert.Equal(-Errno.EFAULT, context.Call(read, (ulong)input, ulong.MaxValue - 3, 8));
        Assert.Equal(-Errno.EFAULT, context.Call(fstat, (ulong)input, context.End - 100));
        Assert.Equal(-Errno.EFAULT, context.Call(pipe2, context.End - 4, 0));
        Assert.Equal(-Errno.EFAULT, context.Call(openat, unchecked((ulong)-100L), translates ? context.End : 8ul, 0));
        Close(input, output);
    }

    [Theory, InlineData(false), InlineData(true)]
    public void Messages(bool translates)
    {
        using var context = new FakeContext(translates);
        var pair = context.Allocate(8);
        Assert.Equal(0, context.Call(socketpair, 1, 2, 0, pair));
        ulong left = (ulong)context.At<int>(pair), right = (ulong)context.At<int>(pair + 4);

        // Data in two pieces and a descriptor beside it.
        var control = context.Words(20ul, 1ul | 1ul << 32, left);
        var vectors = context.Words(context.Put("one "), 4ul, context.Put("two"), 3ul);
        var header = context.Words(0ul, 0ul, vectors, 2ul, control, 24ul, 0ul);
        Assert.Equal(7, context.Call(sendmsg, left, header, 0));

        var data = context.Put("..........");
        var room = context.Allocate(64);
        var name = context.Allocate(128);
        header = context.Words(name, 128ul, context.Words(data, 10ul), 1ul, room, 64ul, 0xffff_fffful);
        Assert.Equal(7, context.Call(recvmsg, right, header, 0));
        Assert.Equal("one two..."u8, context.Bytes(data, 10));
        Assert.Equal(24ul, context.At<ulong>(header + 40));
        Assert.Equal(0, context.At<int>(header + 48));
        Assert.Equal(0, context.At<int>(header + 8));
        Assert.Equal(20ul, context.At<ulong>(room));
        var received = context.At<int>(room + 16);
        Assert.True(received > 2);
        Assert.Equal(data, context.At<ulong>(context.At<ulong>(header + 16)));
        if (!translates)
        {
            Assert.Contains((header, 56ul), context.PreparedAtCall);
            Assert.Contains((data, 10ul), context.PreparedAtCall);
            Assert.Contains((room, 64ul), context.PreparedAtCall);
            Assert.Contains((name, 128ul), context.PreparedAtCall);
        }

        // A descriptor of the hypervisor cannot be sent away.
        context.Reserved.Add((int)left);
        header = context.Words(0ul, 0ul, vectors, 2ul, control, 24ul, 0ul);
        Assert.Equal(-Errno.EBADF, context.Call(sendmsg, right, header, 0));
        Close((int)left, (int)right, received);
    }

    [Theory, InlineData(false), InlineData(true)]
    public void Epoll(bool translates)
    {
        using var context = new FakeContext(translates);
        var (input, output) = Pipe();
        var poll = context.Call(epoll_create1, 0);
        var @event = context.Allocate(12);
        context.At<uint>(@event) = 1;
        context.At<ulong>(@event + 4) = 0x1122334455667788;
        Assert.Equal(0, context.Call(epoll_ctl, (ulong)poll, 1, (ulong)input, @event));
        var events = context.Allocate(24);
        context.Bytes(events, 24).Fill(0xee);
        Assert.Equal(0, context.Call(epoll_wait, (ulong)poll, events, 2, 0));
        Assert.Equal(0xee, context.Bytes(events, 24)[0]);
        context.Call(write, (ulong)output, context.Put("x"), 1);
        Assert.Equal(1, context.Call(epoll_wait, (ulong)poll, events, 2, 0));
        Assert.Equal(1u, context.At<uint>(events));
        Assert.Equal(0x1122334455667788ul, context.At<ulong>(events + 4));
        Assert.Equal(0xee, context.Bytes(events, 24)[12]);
        if (!translates) Assert.Contains((events, 24ul), context.PreparedAtCall);
        Assert.Equal(-Errno.EINVAL, context.Call(epoll_wait, (ulong)poll, events, unchecked((ulong)-1L), 0));
        Close(input, output, (int)poll);
    }

    [Theory, InlineData(false), InlineData(true)]
    public void Several_messages(bool translates)
    {
        using var context = new FakeContext(translates);
        var pair = context.Allocate(8);
        Assert.Equal(0, context.Call(socketpair, 1, 2, 0, pair));
        ulong left = (ulong)context.At<int>(pair), right = (ulong)context.At<int>(pair + 4);
        var headers = context.Words(
            0, 0, context.Words(context.Put("first"), 5), 1, 0, 0, 0, 0,
            0, 0, context.Words(context.Put("second"), 6), 1, 0, 0, 0, 0);
        Assert.Equal(2, context.Call(sendmmsg, left, headers, 2, 0));
        Assert.Equal(5, context.At<int>(headers + 56));
        Assert.Equal(6, context.At<int>(headers + 64 + 56));

        ulong one = context.Put("........"), two = context.Put("........");
        headers = context.Words(
            0, 0, context.Words(one, 8), 1, 0, 0, 0, 0,
            0, 0, context.Words(two, 8), 1, 0, 0, 0, 0,
            0, 0, context.Words(two, 8), 1, 0, 0, 0, 0xee);
        Assert.Equal(2, context.Call(recvmmsg, right, headers, 3, 0x40, 0));
        Assert.Equal("first..."u8, context.Bytes(one, 8));
        Assert.Equal("second.."u8, context.Bytes(two, 8));
        Assert.Equal(6, context.At<int>(headers + 64 + 56));
        Assert.Equal(0xee, context.At<int>(headers + 128 + 56));
        Close((int)left, (int)right);
    }

    [Theory, InlineData(false), InlineData(true)]
    public void Socket_addresses_and_options(bool translates)
    {
        using var context = new FakeContext(translates);
        var listener = (ulong)context.Call(socket, 2, 1, 0);
        var address = context.PutBytes([2, 0, 0, 0, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        Assert.Equal(0, context.Call(bind, listener, address, 16));
        Assert.Equal(-Errno.EINVAL, context.Call(bind, listener, address, 200));
        Assert.Equal(0, context.Call(listen, listener, 1));
        var room = context.Allocate(32);
        var length = context.Words(32);
        context.Bytes(room, 32).Fill(0xee);
        Assert.Equal(0, context.Call(getsockname, listener, room, length));
        Assert.Equal(16, context.At<int>(length));
        Assert.Equal(2, context.At<ushort>(room));
        Assert.Equal(0xee, context.Bytes(room, 32)[16]);

        var client = (ulong)context.Call(socket, 2, 1, 0);
        Assert.Equal(0, context.Call(connect, client, room, 16));
        // Less room than the address is long: cut, but its whole length is told.
        var peer = context.PutBytes([0xee, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee]);
        length = context.Words(4);
        var server = context.Call(accept4, listener, peer, length, 0x80000);
        Assert.True(server > 2);
        Assert.Equal(16, context.At<int>(length));
        Assert.Equal(2, context.At<ushort>(peer));
        Assert.Equal(0xeeeeeeee, context.At<uint>(peer + 4));
        if (!translates) Assert.Equal([(peer, 4ul), (length, 4ul)], context.PreparedAtCall);

        var value = context.Words(1);
        Assert.Equal(0, context.Call(setsockopt, client, 6, 1, value, 4));
        var option = context.Words(0xeeeeeeee_eeeeeeee);
        length = context.Words(8);
        Assert.Equal(0, context.Call(getsockopt, client, 6, 1, option, length));
        Assert.Equal(4, context.At<int>(length));
        Assert.Equal(0xeeeeeeee_00000001, context.At<ulong>(option));
        Assert.Equal(-Errno.EFAULT, context.Call(getsockopt, client, 6, 1, option, context.End));

        // Without an address.
        Assert.Equal(-Errno.EAGAIN, Nonblocking(context, listener));
        Close((int)listener, (int)client, (int)server);

        static long Nonblocking(FakeContext context, ulong descriptor)
        {
            Assert.Equal(0, context.Call(fcntl, descriptor, 4, 0x800));
            return context.Call(accept, descriptor, 0, 0);
        }
    }

    [Fact]
    public void Descriptors_that_cannot_be_delivered_are_closed()
    {
        using var context = new FakeContext(translates: true);
        // The page vanishes while the call runs.
        var pair = context.Allocate(8);
        context.Kernel = (number, arguments) =>
        {
            var result = FakeContext.Raw(number, arguments[0], arguments[1], arguments[2]);
            if (number == pipe2) context.Unwritable = true;
            return result;
        };
        Assert.Equal(-Errno.EFAULT, context.Call(pipe2, pair, 0));
        Assert.Equal([pipe2, close, close], context.HostCalls.Select(c => (int)c.Number));
    }

    [Theory, InlineData(false), InlineData(true)]
    public void Select_and_poll(bool translates)
    {
        using var context = new FakeContext(translates);
        var (input, output) = Pipe();
        var count = Math.Max(input, output) + 1;
        var words = (count + 63) / 64;
        var readable = context.Allocate(words * 8 + 8);
        var writable = context.Allocate(words * 8 + 8);
        Set(readable, input);
        Set(readable, words * 64 + 5); // beyond: untouched
        Set(writable, output);
        var timeout = context.Words(1, 0);
        Assert.Equal(1, context.Call(select, (ulong)count, readable, writable, 0, timeout));
        Assert.False(IsSet(readable, input));
        Assert.True(IsSet(readable, words * 64 + 5));
        Assert.True(IsSet(writable, output));
        if (!translates) Assert.Contains((readable, (ulong)words * 8), context.PreparedAtCall);

        var descriptors = context.Words((uint)input | 1ul << 32, (uint)output | 4ul << 32);
        Assert.Equal(1, context.Call(poll, descriptors, 2, 0));
        Assert.Equal(4, context.At<short>(descriptors + 8 + 6));
        Assert.Equal(0, context.At<short>(descriptors + 6));
        Close(input, output);

        void Set(ulong set, int bit) => context.Bytes(set, words * 8 + 8)[bit / 8] |= (byte)(1 << bit % 8);
        bool IsSet(ulong set, int bit) => (context.Bytes(set, words * 8 + 8)[bit / 8] >> bit % 8 & 1) != 0;
    }

    [Theory, InlineData(false), InlineData(true)]
    public void Files(bool translates)
    {
        using var context = new FakeContext(translates);
        var path = context.Put($"/tmp/privy-test-{Environment.ProcessId}-{translates}");
        var file = (ulong)context.Call(open, path, 0x42, 0x180);
        Assert.Equal(5, context.Call(pwrite64, file, context.Put("12345"), 5, 100));
        var buffer = context.Allocate(16);
        Assert.Equal(3, context.Call(pread64, file, buffer, 16, 102));
        Assert.Equal("345"u8, context.Bytes(buffer, 3));

        var @lock = context.Words(1, 10, 5, 0); // F_WRLCK at 10, 5 bytes
        Assert.Equal(0, context.Call(fcntl, file, 6, @lock));
        Assert.Equal(0, context.Call(fcntl, file, 5, @lock));
        Assert.Equal(2, context.At<short>(@lock)); // F_UNLCK: our own does not conflict

        var other = (ulong)context.Call(open, context.Put("/dev/null"), 2);
        var offset = context.Words(101);
        Assert.Equal(4, context.Call(sendfile, other, file, offset, 100));
        Assert.Equal(105, context.At<long>(offset));

        var stats = context.Allocate(256);
        Assert.Equal(0, context.Call(statx, unchecked((ulong)-100L), path, 0, 0xfff, stats));
        Assert.Equal(105, context.At<long>(stats + 40));
        Assert.Equal(0, context.Call(unlink, path));
        Assert.Equal(-Errno.ENOENT, context.Call(access, path, 0));

        Assert.Equal(0, context.Call(symlink, context.Put("/proc/self/exe"), path));
        Assert.Equal(14, context.Call(readlink, path, stats, 100));
        Assert.Equal("/proc/self/exe"u8, context.Bytes(stats, 14));
        Assert.Equal(0, context.Call(unlink, path));

        var directory = (ulong)context.Call(open, context.Put("/proc/self"), 0x10000);
        var entries = context.Allocate(4096);
        Assert.True(context.Call(getdents64, directory, entries, 4096) > 0);
        Assert.Equal(-Errno.ENOTTY, context.Call(ioctl, file, 0x5401, context.Allocate(64)));
        Close((int)file, (int)other, (int)directory);
    }

    [Theory, InlineData(false), InlineData(true)]
    public void Time_left_is_written_when_a_sleep_is_interrupted(bool translates)
    {
        using var context = new FakeContext(translates);
        context.Kernel = static (_, arguments) =>
        {
            unsafe { *(long*)arguments[1] = 42; }
            return -Errno.EINTR;
        };
        var left = context.Words(7, 8);
        Assert.Equal(-Errno.ERESTARTNOHAND, context.Call(nanosleep, context.Words(100, 0), left));
        Assert.Equal(42, context.At<long>(left));
        Assert.Equal(8, context.At<long>(left + 8));
    }

    [Fact]
    public void Outputs_of_a_failed_call_are_left_alone()
    {
        using var context = new FakeContext(translates: true);
        context.Kernel = static (_, arguments) =>
        {
            unsafe { *(long*)arguments[1] = 1; }
            return -Errno.EBADF;
        };
        var setting = context.Words(0xeeee, 0, 0, 0);
        Assert.Equal(-Errno.EBADF, context.Call(timerfd_gettime, 1, setting));
        Assert.Equal(0xeeee, context.At<int>(setting));
    }

    [Fact]
    public void A_huge_transfer_of_a_snapshot_is_partial()
    {
        using var context = new FakeContext(translates: true, 80 << 20);
        var buffer = context.Allocate(70 << 20);
        var zero = (ulong)context.Call(open, context.Put("/dev/zero"), 0);
        var sink = (ulong)context.Call(open, context.Put("/dev/null"), 1);
        Assert.Equal(64 << 20, context.Call(write, sink, buffer, 70 << 20));
        Assert.Equal(64 << 20, context.Call(writev, sink, context.Words(buffer, 40 << 20, buffer, 30 << 20), 2));
        context.Bytes(buffer, 70 << 20).Fill(1);
        Assert.Equal(64 << 20, context.Call(readv, zero, context.Words(buffer, 40 << 20, buffer + (40 << 20), 30 << 20), 2));
        Assert.Equal(64 << 20, context.Bytes(buffer, 70 << 20).IndexOfAnyExcept((byte)0));
        Close((int)zero, (int)sink);
    }

    [Fact]
    public void Hot_calls_of_main_allocate_nothing()
    {
        using var context = new QuietContext();
        int[] numbers = [read, write, pread64, readv, writev, epoll_wait, epoll_ctl, fstat, clock_gettime, fcntl, close, openat, sendto, recvfrom];
        foreach (var number in numbers)
        {
            // Twice: what is allocated once for all (static tables, the arena's block) does not count.
            Run(number);
            var before = GC.GetAllocatedBytesForCurrentThread();
            Run(number);
            var allocated = GC.GetAllocatedBytesForCurrentThread() - before;
            Assert.True(allocated == 0, $"{SyscallTable.NameOf(number)}: {allocated} bytes");
        }

        unsafe void Run(int number)
        {
            var memory = stackalloc ulong[64];
            var address = (ulong)memory;
            memory[0] = memory[2] = address + 128;
            memory[1] = memory[3] = 16;
            var second = number == fcntl ? 3 : address;
            for (var i = 0; i < 100; i++) SyscallDispatcher.Execute(context, number, new SyscallArguments(1, second, 2, 0, 0, 0));
        }
    }

    /// <summary>A context that costs nothing.</summary>
    private sealed unsafe class QuietContext : ISyscallContext, IDisposable
    {
        public bool Translates => false;
        public int ProcessId => 1;
        public string ProgramPath => "/";
        public SyscallArena Arena { get; } = new();
        public bool PrepareOutput(ulong address, ulong length) => true;
        public void EndOutputs() { }
        public bool TryRead(ulong address, Span<byte> destination)
        {
            new ReadOnlySpan<byte>((void*)address, destination.Length).CopyTo(destination);
            return true;
        }
        public bool TryWrite(ulong address, ReadOnlySpan<byte> source) => true;
        public long HostCall(long number, ulong a0, ulong a1, ulong a2, ulong a3, ulong a4, ulong a5) => 0;
        public void RaiseSigpipe() { }
        public string ListMemory(MemoryReport report) => "";

        public bool IsReservedDescriptor(int descriptor) => false;

        public int NextReservedDescriptor(int first, int last) => last + 1;

        public bool IsReachable(ulong address) => true;
        public void SetTemporarySignalMask(ulong mask) { }
        public void Dispose() => Arena.Dispose();
    }
}
