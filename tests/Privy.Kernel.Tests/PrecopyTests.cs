using Privy.Kernel.Tests.Simulation;

namespace Privy.Kernel.Tests;

public sealed unsafe class PrecopyTests : IDisposable
{
    private const ulong Start = SmallProgram.Start;
    private const ulong End = SmallProgram.End;

    private readonly SmallProgram _program = new();

    public PrecopyTests()
    {
        K->PoolReady = ulong.MaxValue;
        K->AheadLimit = 100_000;
    }

    private KernelState* K => _program.K;

    public void Dispose() => _program.Dispose();

    private long Precopy(ulong start, ulong end) => SmallProgram.On(_program.Machine.Vcpus[9], v => KernelEntry.Precopy(v, start, end));

    [Fact]
    public void Main_takes_no_fault_where_it_was_copied_ahead()
    {
        for (ulong a = Start; a < End; a += 0x1000)
            _program.Write(0, a, a);
        int s = _program.Snapshot();
        Assert.Equal(0, Precopy(Start, End));
        Assert.Equal((End - Start) >> 12, K->FramesInUse);
        Assert.Equal(0, _program.Machine.Kicks);
        _program.Write(0, Start, 0); // the new tree is loaded
        ulong before = _program.Main.Area->Faults;
        for (ulong a = Start; a < End; a += 0x1000)
            _program.Write(0, a, 0);
        Assert.Equal(before, _program.Main.Area->Faults);
        for (ulong a = Start; a < End; a += 0x1000)
            Assert.Equal(a, _program.Read(s, a));
        // All of it was copied, so that it is mapped in large pages again.
        Assert.Equal(4UL, K->Collapsed);
        Assert.Equal(0, Precopy(Start, End));
    }

    [Fact]
    public void It_ends_with_the_snapshot_and_with_the_memory()
    {
        Assert.Equal(1, Precopy(Start, End));
        int s = _program.Snapshot();
        K->AheadLimit = 100;
        Assert.Equal(1, Precopy(Start, End));
        Assert.InRange(K->FramesInUse, 100UL, 115UL);
        K->AheadLimit = 100_000;
        K->PoolReady = K->PoolNext;
        Assert.Equal(2, Precopy(Start, End));
        _program.Release(s);
        Assert.Equal(1, Precopy(Start, End));
        Assert.Equal(0UL, K->FramesInUse);
    }

    [Fact]
    public void What_the_snapshot_has_cached_is_left_alone()
    {
        int s = _program.Snapshot();
        _program.Write(0, Start, 1);
        _program.Read(s, Start + 0x3000);
        Assert.Equal(0, Precopy(Start, Start + Layout.LargePageSize));
        Assert.Equal(0, _program.Machine.Kicks);
        Assert.Equal(PageKind.Linear, _program.Kind(s, Start + 0x3000));
        Assert.Equal(PageKind.Redirect, _program.Kind(s, Start + 0x4000));
    }

    [Theory]
    [InlineData(Vma.Read | Vma.Write, Vma.TagFile)]
    [InlineData(Vma.Read | Vma.Write | Vma.Shared, 0u)]
    [InlineData(Vma.Read, 0u)]
    public void Files_shared_and_read_only_memory_are_not_copied(uint flags, uint tag)
    {
        K->Spaces->Vmas[0].Flags = flags;
        K->Spaces->Vmas[0].HostTag = tag;
        _program.Snapshot();
        Assert.Equal(0, Precopy(Start, End));
        Assert.Equal(0UL, K->FramesInUse);
        Assert.Equal(0, Precopy(0x10_0000_0000, 0x10_0020_0000)); // no memory of the program at all
    }

    [Fact]
    public void A_fault_copies_no_more_of_a_file_than_was_written()
    {
        K->AheadMost = 64;
        K->AheadGrowth = 8;
        K->Spaces->Vmas[0].HostTag = Vma.TagFile;
        _program.Snapshot();
        for (ulong i = 0; i < 5; i++)
            _program.Write(0, Start + (i << 12), i);
        Assert.Equal(5UL, K->FramesInUse);
    }

    [Fact]
    public void After_the_last_snapshot_one_fault_restores_the_large_pages_of_the_gigabyte()
    {
        int s = _program.Snapshot();
        for (ulong a = Start; a < End; a += Layout.LargePageSize)
            _program.Write(0, a, 1);
        _program.Release(s);
        _program.Write(0, Start + 0x5000, 1);
        for (ulong a = Start; a < End; a += Layout.LargePageSize)
            Assert.Equal(Entry.Large | Entry.Writable, _program.DirectoryEntry(0, a) & (Entry.Large | Entry.Writable));
    }
}
