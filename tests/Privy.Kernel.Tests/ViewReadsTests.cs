using Privy.Kernel.Tests.Simulation;

namespace Privy.Kernel.Tests;

/// <summary>Views that one vCPU of main reads while another one writes: what is forgotten, what is copied, and what counts as changed.</summary>
public sealed unsafe class ViewReadsTests : IDisposable
{
    private const ulong Start = SmallProgram.Start;
    private const ulong End = SmallProgram.End;
    private const ulong Area = Layout.LargePageSize;

    private readonly SmallProgram _program = new();

    public ViewReadsTests()
    {
        K->SlotBitmap[0] = ulong.MaxValue;
        K->PoolReady = ulong.MaxValue;
        K->AheadLimit = 100_000;
        // Guesses would be in the way of what is counted here.
        K->RegionWrites = null;
        K->Spaces->Vmas[0].Flags |= Vma.Region;
        ulong gigabyte = LinearMap.Physical(K, Start) >> 30;
        K->RegionGigabytes[gigabyte >> 6] |= 1UL << (int)(gigabyte & 63);
        K->Spaces->Vcpus[0] = 3;
        Reader.Assign(0);
        for (ulong page = Start; page < End; page += 4096)
            _program.Write(0, page, page);
    }

    private KernelState* K => _program.K;

    private Vcpu Reader => _program.Machine.Vcpus[1];

    private int Kicks => _program.Machine.Kicks;

    public void Dispose() => _program.Dispose();

    [Fact]
    public void A_shootdown_forgets_all_that_was_read()
    {
        int view = View();
        // Main has written a page of each 2 MB, so that the reader reads by 4 KB entries.
        for (ulong area = Start; area < End; area += Area)
            Write(area);
        for (ulong area = Start; area < End; area += Area)
        {
            for (ulong page = 0; page < 8; page++)
                Assert.Equal(area + (page << 12), Read(view, area + (page << 12)));
        }
        for (ulong area = Start; area < End; area += Area)
        {
            for (ulong page = 1; page < 8; page++)
                Write(area + (page << 12));
        }
        Assert.Equal(1, Kicks);
        for (ulong area = Start; area < End; area += Area)
            Assert.Equal(area + 0x3000, Read(view, area + 0x3000));
    }

    [Fact]
    public void What_was_forgotten_and_is_read_again_is_copied()
    {
        int view = View();
        Write(Start);
        Read(view, Start + 0x1000);
        Write(Start + 0x1000);
        Assert.Equal(1, Kicks);
        Assert.Equal(0UL, K->CopiedForReaders);
        Assert.Equal(Start + 0x2000, Read(view, Start + 0x2000));
        Assert.Equal(512UL, K->CopiedForReaders);
        WriteAll(Start);
        Assert.Equal(1, Kicks);
        ReadAll(view, Start);
        Close(view);
        Assert.Equal(0UL, K->FramesInUse);
    }

    [Fact]
    public void Where_main_writes_much_2_MB_are_copied_at_the_first_read()
    {
        int first = View();
        for (ulong page = 0; page < 8; page++)
            Write(Start + (page << 12));
        int second = View();
        Assert.Equal(Start + Area, Read(second, Start + Area));
        Assert.Equal(0UL, K->CopiedForReaders);
        Assert.Equal(~Start, Read(second, Start));
        Assert.Equal(512UL, K->CopiedForReaders);
        Assert.NotEqual(0UL, *Walk.Directory(K, K->Spaces + second, Start) & Entry.Large);
        Assert.Equal(PageKind.Redirect, Translate.Lookup(K, K->Spaces + second, Start + 0x5008, out _, out ulong physical));
        Assert.Equal(8UL, physical & 0xfff);
        // A copy is no write.
        Assert.Equal(8, Changed(first, second).Count);
        int third = View();
        Assert.Empty(Changed(second, third));
        // Writes there cost no shootdown, and count from then on.
        ulong value = Read(second, Start + 0x100000);
        Write(Start + 0x100000);
        Assert.Equal(0, Kicks);
        Assert.Equal(value, Read(second, Start + 0x100000));
        Assert.Empty(Changed(second, third));
        int fourth = View();
        Assert.Equal([0x100], Changed(third, fourth));
        Assert.Equal([0x100], Changed(second, fourth));
        Assert.Equal(9, Changed(first, fourth).Count);
        foreach (int view in (int[])[second, fourth, first, third])
        {
            ReadAll(view, Start, Start + 0x200000);
            Close(view);
        }
        Assert.Equal(0UL, K->FramesInUse);
    }

    [Fact]
    public void Copies_are_shared_with_older_views()
    {
        int older = View();
        for (ulong page = 0; page < 8; page++)
            Write(Start + Area + (page << 12));
        int newer = View();
        Read(newer, Start + Area + 0x8000);
        Assert.Equal(512UL, K->CopiedForReaders);
        ulong frames = K->FramesInUse;
        // The older one has pages of its own there: it is read by 4 KB entries, which are forgotten, and then has copies.
        Read(older, Start + Area + 0x8000);
        Read(older, Start);
        Write(Start);
        Assert.Equal(Start + Area + 0x9000, Read(older, Start + Area + 0x9000));
        Assert.InRange(K->FramesInUse, frames, frames + 1);
        Assert.Equal(Frame(newer, Start + Area + 0x9000), Frame(older, Start + Area + 0x9000));
        Assert.Equal(8, Changed(older, newer).Count);
        Write(Start + Area + 0x9000);
        Assert.Equal(8, Changed(older, newer).Count);
        // The newer one goes first: what the older one reads stays.
        Close(newer);
        Assert.Equal(Start + Area + 0x9000, Read(older, Start + Area + 0x9000));
        Assert.Equal(Start + Area + 0x8000, Read(older, Start + Area + 0x8000));
        Close(older);
        Assert.Equal(0UL, K->FramesInUse);
    }

    [Fact]
    public void One_write_gives_views_with_different_copies_the_same()
    {
        int older = View();
        Heat(Start);
        ReadAgain(older, Start);
        int newer = View();
        Heat(Start);
        ReadAgain(newer, Start);
        Assert.NotEqual(Frame(older, Start + 0x50000), Frame(newer, Start + 0x50000));
        Write(Start + 0x50000);
        Assert.Equal(Frame(older, Start + 0x50000), Frame(newer, Start + 0x50000));
        Assert.DoesNotContain(0x50, Changed(older, newer));
        int third = View();
        Assert.Contains(0x50, Changed(older, third));
        Assert.Contains(0x50, Changed(newer, third));
        Close(older);
        Assert.Equal(Start + 0x50000, Read(newer, Start + 0x50000));
        Close(newer);
        Close(third);
        Assert.Equal(0UL, K->FramesInUse);
    }

    [Fact]
    public void Without_memory_at_hand_views_share_mains_pages()
    {
        int first = View();
        for (ulong page = 0; page < 8; page++)
            Write(Start + (page << 12));
        K->PoolReady = 0;
        int retries = _program.Machine.Retries;
        int second = View();
        ReadAll(second, Start);
        // Nobody has waited for memory.
        Assert.Equal(0UL, K->CopiedForReaders);
        Assert.Equal(retries, _program.Machine.Retries);
        Write(Start + 0x10000);
        Assert.Equal(1, Kicks);
        Assert.Equal(Start + 0x10000, Read(second, Start + 0x10000));
        Assert.Equal([0x10], Changed(second, View()));
        Assert.Equal(8, Changed(first, second).Count);
    }

    [Fact]
    public void Free_blocks_become_single_frames_when_there_are_no_others()
    {
        int keeps = View();
        Heat(Start);
        int view = View();
        Read(view, Start);
        Assert.NotEqual(0UL, K->Spaces[view].Blocks);
        Close(view);
        Assert.NotEqual(0UL, K->FreeBlocks);
        while (K->FreeFrames != 0)
            Write(Start + Area + (K->FreeFrameCount << 12));
        K->PoolEnd = K->PoolNext;
        Write(Start + (2 * Area));
        Assert.Equal(0UL, K->FreeBlocks);
        Assert.Equal(511UL, K->FreeFrameCount);
        Close(keeps);
        Assert.Equal(0UL, K->FramesInUse);
    }

    /// <summary>Several pages of the 2 MB written, in the present epoch.</summary>
    private void Heat(ulong area)
    {
        for (ulong page = 0x100; page < 0x110; page++)
            Write(area + (page << 12));
    }

    /// <summary>Read, forgotten and read again, so that there is a copy.</summary>
    private void ReadAgain(int view, ulong area)
    {
        ulong copied = K->CopiedForReaders;
        for (ulong page = 0x10; page < 0x20 && K->CopiedForReaders == copied; page++)
        {
            Read(view, area + (page << 12));
            Write(area + (page << 12));
        }
        Read(view, area + 0x50000);
        Assert.NotEqual(copied, K->CopiedForReaders);
    }

    private void WriteAll(ulong area)
    {
        for (ulong page = area; page < area + Area; page += 4096)
            Write(page);
    }

    private void ReadAll(int view, ulong area, ulong end = 0)
    {
        // Some pages of the first 2 MB were written before the view.
        for (ulong page = area + 0x10000; page < (end != 0 ? end : area + Area); page += 4096)
        {
            ulong value = Read(view, page);
            Assert.True(value == page || (end != 0 && value == ~page && page == Start + 0x100000), $"{page:x} reads {value:x}");
        }
    }

    private ulong Frame(int view, ulong address)
    {
        Assert.Equal(PageKind.Redirect, Translate.Lookup(K, K->Spaces + view, address, out _, out ulong physical));
        return physical;
    }

    private void Write(ulong address) => _program.Write(0, address, ~address);

    private int View()
    {
        Reader.Exit();
        int view = (int)SmallProgram.On(_program.Main, v => KernelEntry.TakeView(v, Start, End));
        Assert.InRange(view, 1, Layout.MaxSpaces - 1);
        return view;
    }

    private void Close(int view) => Assert.Equal(0, SmallProgram.On(_program.Main, v => KernelEntry.CloseView(v, view)));

    private ulong Read(int view, ulong address)
    {
        Assert.Equal(0, Reader.Touch(Layout.ViewBase + ((ulong)view * Layout.ViewSpan) + (address % Layout.ViewSpan), Access.Read, out ulong physical));
        return *_program.Machine.Word(physical);
    }

    private List<int> Changed(int older, int newer)
    {
        var bits = new ulong[((int)((End - Start) >> 12) / 64) + 1];
        fixed (ulong* words = bits)
        {
            ulong* set = words;
            Assert.Equal(0, SmallProgram.On(_program.Main, v => KernelEntry.Changed(v, ((ulong)older << 32) | (uint)newer, Start, End, set)));
        }
        return [.. Enumerable.Range(0, bits.Length * 64).Where(i => (bits[i >> 6] >> (i & 63) & 1) != 0)];
    }
}
