using Privy.Kernel.Tests.Simulation;

namespace Privy.Kernel.Tests;

/// <summary>Pages of regions that are copied ahead of main's writes, and what counts as changed.</summary>
public sealed unsafe class RegionWritesTests : IDisposable
{
    private const ulong Start = SmallProgram.Start;
    private const ulong End = SmallProgram.End;

    private readonly SmallProgram _program = new();

    public RegionWritesTests()
    {
        K->PoolReady = ulong.MaxValue;
        K->AheadLimit = 100_000;
        K->Spaces->Vmas[0].Flags |= Vma.Region;
        ulong gigabyte = LinearMap.Physical(K, Start) >> 30;
        K->RegionGigabytes[gigabyte >> 6] |= 1UL << (int)(gigabyte & 63);
    }

    private KernelState* K => _program.K;

    private ulong Faults => _program.Main.Area->Faults;

    public void Dispose() => _program.Dispose();

    [Fact]
    public void Pages_written_after_each_snapshot_take_few_faults_soon()
    {
        int before = View();
        var faults = new List<ulong>();
        for (ulong round = 1; round <= 5; round++)
        {
            ulong first = Faults;
            for (int i = 0; i < 64; i++)
                Write(Scattered(i), round);
            faults.Add(Faults - first);
            int view = View();
            Assert.Equal(64, Changed(before, view).Count);
            Assert.Equal(round, ReadView(view, Scattered(3)));
            Close(before);
            before = view;
        }
        Assert.True(faults[0] >= 64, string.Join(' ', faults));
        Assert.InRange(faults[4], 1UL, 10UL);
        Assert.Equal(16, K->PredictionsAtOnce);
    }

    [Fact]
    public void A_page_copied_ahead_and_not_written_is_not_changed()
    {
        int first = View();
        Write(Scattered(1), 1);
        Write(Scattered(2), 1);
        int second = View();
        // The first page faults, the second one is copied with it and only read.
        Write(Scattered(1), 2);
        Assert.Equal(1UL, K->CopiedAhead);
        Assert.Equal(PageKind.Redirect, Kind(second, Scattered(2)));
        Assert.Equal(1UL, _program.Read(0, Scattered(2)));
        Assert.Equal(1UL, ReadView(second, Scattered(2)));
        int third = View();
        Assert.Equal([Number(Scattered(1))], Changed(second, third));
        Assert.Equal(1UL, K->CopiesUndone);
        Assert.Equal(PageKind.Linear, Kind(second, Scattered(2)));
        // What is written later is in the views as it was, and changed from then on.
        Write(Scattered(2), 3);
        Assert.Equal(1UL, ReadView(second, Scattered(2)));
        Assert.Equal(1UL, ReadView(third, Scattered(2)));
        int fourth = View();
        Assert.Equal([Number(Scattered(2))], Changed(third, fourth));
        Assert.Equal(2, Changed(second, fourth).Count);
        Assert.Equal(2, Changed(first, second).Count);
        foreach (int view in (int[])[third, first, fourth, second])
            Close(view);
        Assert.Equal(0UL, K->FramesInUse);
    }

    [Fact]
    public void A_page_copied_ahead_and_written_after_it_was_read_is_changed()
    {
        Write(Scattered(1), 1);
        Close(View());
        int first = View();
        Write(Scattered(1), 1);
        Write(Scattered(2), 1);
        int second = View();
        Write(Scattered(1), 2);
        Assert.Equal(1UL, K->CopiedAhead);
        Assert.Equal(1UL, _program.Read(0, Scattered(2)));
        ulong faults = Faults;
        Write(Scattered(2), 2);
        Assert.Equal(faults, Faults);
        int third = View();
        Assert.Equal(2, Changed(second, third).Count);
        Assert.Equal(0UL, K->CopiesUndone);
        Assert.Equal(1UL, ReadView(second, Scattered(2)));
        Assert.Equal(2UL, ReadView(third, Scattered(2)));
        Assert.Equal(0UL, ReadView(first, Scattered(2)));
    }

    /// <summary>The host's kernel writes through its own mapping, which sets no bit of main's tables.</summary>
    [Fact]
    public void A_page_copied_ahead_and_written_by_the_host_is_changed()
    {
        View();
        Write(Scattered(1), 1);
        Write(Scattered(2), 1);
        int second = View();
        Write(Scattered(1), 2);
        Assert.Equal(1UL, K->CopiedAhead);
        Assert.Equal(0, SmallProgram.On(_program.Main, v => KernelEntry.PrepareWrite(v, 0, Scattered(2) + 8, Scattered(2) + 16)));
        *_program.Machine.Word(LinearMap.Physical(K, Scattered(2))) = 2;
        int third = View();
        Assert.Equal(2, Changed(second, third).Count);
        Assert.Equal(1UL, ReadView(second, Scattered(2)));
    }

    [Fact]
    public void A_fork_ends_the_time_between_two_views_as_well()
    {
        int first = View();
        Write(Scattered(1), 1);
        Write(Scattered(2), 1);
        int second = View();
        Write(Scattered(1), 2);
        int child = _program.Snapshot();
        // No fault has settled what was copied ahead, when another view is taken.
        int third = View();
        Assert.Equal([Number(Scattered(1))], Changed(second, third));
        Write(Scattered(2), 3);
        Assert.Equal(1UL, _program.Read(child, Scattered(2)));
        Assert.Equal(1UL, ReadView(third, Scattered(2)));
        Assert.Equal(2, Changed(first, third).Count);
        _program.Release(child);
    }

    [Fact]
    public void Wrong_predictions_become_few_and_right_ones_many_again()
    {
        View();
        int page = 0;
        for (int round = 0; round < 6; round++)
        {
            for (int i = 0; i < 32; i++)
                Write(Scattered(page++), 1);
            View();
        }
        Assert.Equal(1, K->PredictionsAtOnce);
        for (int round = 0; round < 6; round++)
        {
            for (int i = 0; i < 32; i++)
                Write(Scattered(i), 2);
            View();
        }
        Assert.Equal(16, K->PredictionsAtOnce);
    }

    [Fact]
    public void Pages_written_one_after_the_other_take_few_faults()
    {
        int before = View();
        ulong first = Faults;
        for (ulong i = 0; i < 1000; i++)
            Write(Start + (i << 12), i + 1);
        Assert.InRange(Faults - first, 1UL, (1000UL / 16) + 8);
        int after = View();
        // Those copied behind the last one were not written.
        Assert.Equal(1000, Changed(before, after).Count);
        Assert.NotEqual(0UL, K->CopiesUndone);
    }

    [Fact]
    public void A_page_that_a_view_may_have_cached_is_not_copied_ahead()
    {
        const ulong read = Start + Layout.LargePageSize;
        View();
        Write(Start, 1);
        Write(read, 1);
        int view = View();
        Assert.Equal(1UL, ReadView(view, read));
        Write(Start, 2);
        Assert.Equal(0UL, K->CopiedAhead);
        Assert.Equal(PageKind.Linear, Kind(view, read));
        Write(read, 2);
        Assert.Equal(1UL, ReadView(view, read));
    }

    [Fact]
    public void More_pages_than_there_is_room_to_remember_are_changed_all_the_same()
    {
        // As many as the mapping has: as many as can be remembered.
        K->Spaces->Vmas[0].End += 2 * Layout.LargePageSize;
        const int pages = 3000;
        int before = View(End + (2 * Layout.LargePageSize));
        for (int round = 1; round < 4; round++)
        {
            for (int i = 0; i < pages; i++)
                Write(Start + ((ulong)(i * 7 % pages) << 12), (ulong)round);
            int after = View(End + (2 * Layout.LargePageSize));
            Assert.Equal(KernelState.RegionWriteCapacity, K->RegionWritesUnsettled);
            Assert.Equal(pages, Changed(before, after, End + (2 * Layout.LargePageSize)).Count);
            before = after;
        }
    }

    /// <summary>Places that are neither neighbours nor in order.</summary>
    private static ulong Scattered(int number) => Start + ((ulong)(number * 37 % 2048) << 12);

    private static int Number(ulong address) => (int)((address - Start) >> 12);

    private void Write(ulong address, ulong value) => _program.Write(0, address, value);

    private PageKind Kind(int view, ulong address) => Translate.Lookup(K, K->Spaces + view, address, out _, out _);

    private int View(ulong end = End)
    {
        int view = (int)SmallProgram.On(_program.Main, v => KernelEntry.TakeView(v, Start, end));
        Assert.InRange(view, 1, Layout.MaxSpaces - 1);
        return view;
    }

    private void Close(int view) => Assert.Equal(0, SmallProgram.On(_program.Main, v => KernelEntry.CloseView(v, view)));

    private ulong ReadView(int view, ulong address) =>
        _program.Read(0, Layout.ViewBase + ((ulong)view * Layout.ViewSpan) + (address % Layout.ViewSpan));

    private List<int> Changed(int older, int newer, ulong end = End)
    {
        var bits = new ulong[((int)((end - Start) >> 12) / 64) + 1];
        fixed (ulong* words = bits)
        {
            ulong* set = words;
            Assert.Equal(0, SmallProgram.On(_program.Main, v => KernelEntry.Changed(v, ((ulong)older << 32) | (uint)newer, Start, end, set)));
        }
        return [.. Enumerable.Range(0, bits.Length * 64).Where(i => (bits[i >> 6] >> (i & 63) & 1) != 0)];
    }
}
