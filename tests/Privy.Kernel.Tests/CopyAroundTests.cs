using Privy.Kernel.Tests.Simulation;

namespace Privy.Kernel.Tests;

public sealed unsafe class CopyAroundTests : IDisposable
{
    private const ulong Start = SmallProgram.Start;
    private const int Most = 64;

    private readonly SmallProgram _program = new();

    public CopyAroundTests()
    {
        K->PoolReady = ulong.MaxValue;
        K->AheadLimit = 100_000;
        K->AheadMost = Most;
        K->AheadGrowth = 4;
    }

    private KernelState* K => _program.K;

    private ulong Faults => _program.Main.Area->Faults;

    public void Dispose() => _program.Dispose();

    [Fact]
    public void Pages_written_one_after_the_other_take_few_faults()
    {
        const int pages = 4 * 512;
        for (ulong i = 0; i < pages; i++)
            _program.Write(0, Start + (i << 12), i + 1);
        int s = _program.Snapshot();
        ulong before = Faults;
        for (ulong i = 0; i < pages; i++)
            _program.Write(0, Start + (i << 12), 0);
        // The window grows from 4 to 64 pages and stays there from one page table to the next.
        Assert.InRange(Faults - before, 1UL, (ulong)((pages / Most) + 8));
        for (ulong i = 0; i < pages; i++)
            Assert.Equal(i + 1, _program.Read(s, Start + (i << 12)));
        Assert.Equal((ulong)pages, K->FramesInUse);
    }

    [Fact]
    public void A_single_write_copies_few_pages_more()
    {
        _program.Snapshot();
        _program.Write(0, Start + 0x10000, 1);
        Assert.Equal(5UL, K->FramesInUse);
        Assert.Equal(4UL, K->CopiedAhead);
        // Behind the last page of the table there is none: the ones before it.
        _program.Write(0, Start + Layout.LargePageSize - 0x1000, 1);
        Assert.NotEqual(0UL, *Walk.Page(K, K->Spaces, Start + Layout.LargePageSize - 0x2000) & Entry.Writable);
    }

    [Fact]
    public void Main_gets_its_large_page_back_once_all_of_it_is_copied()
    {
        int s = _program.Snapshot();
        for (ulong i = 0; i < 512; i++)
            _program.Write(0, Start + (i << 12), i);
        Assert.Equal(1UL, K->Collapsed);
        ulong entry = _program.DirectoryEntry(0, Start);
        Assert.Equal(Entry.Large | Entry.Writable, entry & (Entry.Large | Entry.Writable));
        Assert.Equal(LinearMap.Physical(K, Start), entry & Entry.LargeAddressMask);
        Assert.Equal(0UL, _program.Read(s, Start + 0x1000));
        // The next snapshot must see writes through it.
        int t = _program.Snapshot();
        _program.Write(0, Start + 0x1000, 99);
        Assert.Equal(1UL, _program.Read(t, Start + 0x1000));
        Assert.Equal(0UL, _program.Read(s, Start + 0x1000));
    }

    [Fact]
    public void A_page_that_a_snapshot_may_have_cached_is_not_copied_ahead()
    {
        int s = _program.Snapshot();
        // Splits the snapshot's large page, so that A is kept a page.
        _program.Write(0, Start, 1);
        _program.Read(s, Start + 0x6000);
        _program.Write(0, Start + 0x5000, 1);
        Assert.Equal(0, _program.Machine.Kicks);
        Assert.Equal(PageKind.Linear, _program.Kind(s, Start + 0x6000));
        Assert.Equal(PageKind.Redirect, _program.Kind(s, Start + 0x7000));
        _program.Write(0, Start + 0x6000, 1);
        Assert.Equal(1, _program.Machine.Kicks);
        Assert.Equal(0UL, _program.Read(s, Start + 0x6000));
    }

    [Theory]
    [InlineData(0UL, ulong.MaxValue)]
    [InlineData(100_000UL, 0UL)]
    public void Nothing_is_copied_ahead_without_memory_for_it(ulong limit, ulong ready)
    {
        K->AheadLimit = limit;
        K->PoolReady = ready;
        _program.Snapshot();
        for (ulong i = 0; i < 20; i++)
            _program.Write(0, Start + (i << 12), i);
        Assert.Equal(20UL, K->FramesInUse);
        Assert.Equal(0UL, K->CopiedAhead);
    }

    [Fact]
    public void What_a_snapshot_mapped_for_itself_stays_as_it_is()
    {
        int s = _program.Snapshot();
        Vma* vmas = K->Spaces[s].Vmas;
        vmas[1] = vmas[0];
        vmas[0].End = vmas[1].Start = Start + 0x2000;
        vmas[1].Flags |= Vma.Pooled;
        K->Spaces[s].VmaCount = 2;
        Assert.Equal(0, SmallProgram.On(_program.Of(s), v => KernelEntry.Unmap(v, s, Start + 0x2000, SmallProgram.End)));
        _program.Write(0, Start, 1);
        Assert.Equal(1UL, K->CopiedAhead);
        Assert.Equal(PageKind.Absent, _program.Kind(s, Start + 0x3000));
        _program.Write(0, Start + 0x3000, 7);
        Assert.Equal(0UL, _program.Read(s, Start + 0x3000));
    }

    [Fact]
    public void The_pool_starts_over_when_no_frame_is_in_use()
    {
        int s = _program.Snapshot();
        int t = _program.Snapshot();
        for (ulong i = 0; i < 100; i++)
            _program.Write(0, Start + (i << 12), i);
        Assert.NotEqual(K->PoolStart, K->PoolNext);
        _program.Release(s);
        Assert.NotEqual(K->PoolStart, K->PoolNext);
        _program.Release(t);
        Assert.Equal(K->PoolStart, K->PoolNext);
        Assert.Equal(0UL, K->FreeFrames);
        Assert.Equal(0UL, K->FreeFrameCount);
    }
}
