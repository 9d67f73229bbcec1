using Privy.Kernel.Tests.Simulation;

namespace Privy.Kernel.Tests;

/// <summary>A snapshot whose reads meet main's writes again and again reads copies of its own.</summary>
public sealed unsafe class ReaderCopiesTests : IDisposable
{
    private const ulong Start = SmallProgram.Start;
    private const ulong Second = Start + Layout.LargePageSize;
    private const int After = 3;

    private readonly SmallProgram _program = new();

    public ReaderCopiesTests()
    {
        // Frames that are ready have a memory slot.
        K->SlotBitmap[0] = ulong.MaxValue;
        K->PoolReady = ulong.MaxValue;
        K->AheadLimit = 100_000;
        K->CopyReadsAfter = After;
        for (ulong i = 0; i < 2 * 512; i++)
            _program.Write(0, Start + (i << 12), i + 1);
    }

    private KernelState* K => _program.K;

    private int Kicks => _program.Machine.Kicks;

    public void Dispose() => _program.Dispose();

    [Fact]
    public void After_a_few_shootdowns_there_are_no_more()
    {
        int s = AnnoyedSnapshot();
        Assert.Equal(After, Kicks);
        _program.Read(s, Second + 0x5000);
        // All of the 2 MB, by the one fault.
        Assert.Equal(512UL, K->CopiedForReaders);
        for (ulong i = 0; i < 512; i++)
        {
            Assert.Equal(PageKind.Redirect, _program.Kind(s, Second + (i << 12)));
            Assert.Equal(512 + i + 1, _program.Read(s, Second + (i << 12)));
            _program.Write(0, Second + (i << 12), 0);
            Assert.Equal(512 + i + 1, _program.Read(s, Second + (i << 12)));
        }
        Assert.Equal(After, Kicks);
        // What the reader copied main need not.
        Assert.Equal(After + 512UL, K->FramesInUse);
        _program.Release(s);
        Assert.Equal(0UL, K->FramesInUse);
    }

    [Fact]
    public void Before_that_nothing_is_copied()
    {
        int s = _program.Snapshot();
        for (ulong i = 0; i < 2 * 512; i++)
            _program.Read(s, Start + (i << 12));
        Assert.Equal(0UL, K->FramesInUse);
        Assert.Equal(0, K->Spaces[s].CopyReads);
    }

    [Fact]
    public void What_was_read_before_is_copied_when_it_is_read_again()
    {
        int s = _program.Snapshot();
        for (ulong i = 0; i < 2 * 512; i++)
            _program.Read(s, Start + (i << 12));
        Annoy(s);
        Assert.Equal(0, SmallProgram.On(_program.Of(s), v => KernelEntry.ForgetLinear(v, s)));
        Assert.Equal(1, _program.Of(s).Area->FlushPending);
        _program.Of(s).Enter();
        Assert.Equal(PageKind.Absent, _program.Kind(s, Second));
        Assert.Equal(PageKind.Absent, _program.Kind(s, Start + 0x100000));
        // Its copies stay.
        Assert.Equal(PageKind.Redirect, _program.Kind(s, Start));
        Assert.Equal(After + 2UL, _program.Read(s, Start + 0x1000 * (After + 1)));
        _program.Write(0, Start + 0x100000, 0);
        _program.Write(0, Second, 0);
        Assert.Equal(After, Kicks);
        Assert.Equal(0x100UL + 1, _program.Read(s, Start + 0x100000));
    }

    [Fact]
    public void Entries_stay_while_another_vcpu_of_the_snapshot_runs()
    {
        int s = _program.Snapshot();
        _program.Machine.Vcpus[9].Assign(s);
        K->Spaces[s].Vcpus[0] |= 1UL << 9;
        Assert.Equal(0, _program.Machine.Vcpus[9].Touch(Start, Access.Read, out _));
        Assert.Equal(-16, SmallProgram.On(_program.Of(s), v => KernelEntry.ForgetLinear(v, s)));
        Assert.Equal(PageKind.Linear, _program.Kind(s, Start));
    }

    [Fact]
    public void What_main_cannot_write_is_not_copied()
    {
        int s = AnnoyedSnapshot();
        K->Spaces->Vmas[0].Flags = Vma.Read;
        ulong before = K->FramesInUse;
        _program.Read(s, Second);
        Assert.Equal(before, K->FramesInUse);
        Assert.Equal(PageKind.Linear, _program.Kind(s, Second));
    }

    [Theory]
    [InlineData(0u, Vma.TagFile)]
    [InlineData(Vma.Shared, 0u)]
    [InlineData(Vma.Region, 0u)]
    public void Some_mappings_are_never_copied_for_a_reader(uint flags, uint tag)
    {
        int s = AnnoyedSnapshot();
        K->Spaces[s].Vmas[0].Flags |= flags;
        K->Spaces[s].Vmas[0].HostTag |= tag;
        _program.Read(s, Second);
        Assert.Equal(0UL, K->CopiedForReaders);
        Assert.Equal(PageKind.Linear, _program.Kind(s, Second));
    }

    [Fact]
    public void Without_memory_for_copies_the_snapshot_shares_mains_pages()
    {
        int s = AnnoyedSnapshot();
        K->AheadLimit = K->FramesInUse + 10;
        _program.Read(s, Second);
        Assert.InRange(K->CopiedForReaders, 10UL, 11UL);
        for (ulong i = 0; i < 512; i++)
            Assert.Equal(512 + i + 1, _program.Read(s, Second + (i << 12)));
        Assert.InRange(K->CopiedForReaders, 10UL, 11UL);
        // With the shootdowns that this takes.
        _program.Write(0, Second + (511 << 12), 0);
        Assert.Equal(After + 1, Kicks);
        Assert.Equal(1024UL, _program.Read(s, Second + (511 << 12)));
    }

    [Fact]
    public void The_host_makes_frames_ready_when_there_are_none()
    {
        int s = AnnoyedSnapshot();
        K->PoolReady = 0;
        int retries = _program.Machine.Retries;
        ulong value = _program.Read(s, Second);
        Assert.Equal(513UL, value);
        Assert.True(_program.Machine.Retries > retries, "the host was not asked");
    }

    private int AnnoyedSnapshot()
    {
        int s = _program.Snapshot();
        Annoy(s);
        Assert.Equal(0, SmallProgram.On(_program.Of(s), v => KernelEntry.ForgetLinear(v, s)));
        return s;
    }

    /// <summary>Main writes what the snapshot has just read.</summary>
    private void Annoy(int s)
    {
        ulong limit = K->AheadLimit;
        for (ulong i = 0; K->Spaces[s].CopyReads == 0; i++)
        {
            Assert.True(i < After, "no end");
            _program.Read(s, Start + (i << 12));
            K->AheadLimit = 0;
            _program.Write(0, Start + (i << 12), 0);
            K->AheadLimit = limit;
        }
    }
}
