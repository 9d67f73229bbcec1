using Privy.Hypervisor.Host;
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
}
