using Privy.Hypervisor.Syscalls;

namespace Privy.Hypervisor.Tests.Syscalls;

public unsafe class SyscallArenaTests
{
    [Fact]
    public void Memory_stays_where_it_is_until_reset()
    {
        using var arena = new SyscallArena();
        var random = new Random(1);
        for (var round = 0; round < 20; round++)
        {
            var pieces = new List<(nint Address, int Length, byte Fill)>();
            for (var i = 0; i < 200; i++)
            {
                var length = random.Next(0, i % 50 == 0 ? 3_000_000 : 5_000);
                var fill = (byte)random.Next(256);
                var alignment = i % 3 == 0 ? 4096 : 16;
                var memory = arena.Allocate(length, alignment);
                Assert.Equal(0, (nint)memory & alignment - 1);
                Assert.True(memory != null);
                new Span<byte>(memory, length).Fill(fill);
                pieces.Add(((nint)memory, length, fill));
            }
            foreach (var (address, length, fill) in pieces)
                Assert.Equal(-1, new ReadOnlySpan<byte>((void*)address, length).IndexOfAnyExcept(fill));
            arena.Reset();
        }
    }

    [Fact]
    public void Small_calls_reuse_the_same_memory()
    {
        using var arena = new SyscallArena();
        var first = (nint)arena.Allocate(100);
        arena.Reset();
        Assert.Equal(first, (nint)arena.Allocate(100));
        Assert.Throws<ArgumentOutOfRangeException>(() => arena.Allocate(-1));
    }
}
