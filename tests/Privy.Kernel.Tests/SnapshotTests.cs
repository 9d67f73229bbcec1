using Privy.Kernel.Tests.Simulation;

namespace Privy.Kernel.Tests;

public sealed unsafe class SnapshotTests : IDisposable
{
    private const ulong Start = SmallProgram.Start;
    private const ulong End = SmallProgram.End;

    private readonly SmallProgram _program = new();

    private KernelState* K => _program.K;

    public void Dispose() => _program.Dispose();

    [Fact]
    public void First_touch_maps_the_whole_mapping_in_large_pages()
    {
        _program.Write(0, Start + 0x5000, 1);
        for (ulong a = Start; a < End; a += Layout.LargePageSize)
            Assert.Equal(Entry.Large | Entry.Writable, _program.DirectoryEntry(0, a) & (Entry.Large | Entry.Writable));
        Assert.Equal(1UL, _program.Main.Area->Faults);
    }

    [Fact]
    public void One_copy_serves_all_snapshots()
    {
        _program.Write(0, Start, 1);
        int[] snapshots = [_program.Snapshot(), _program.Snapshot(), _program.Snapshot()];
        foreach (int s in snapshots)
            Assert.Equal(1UL, _program.Read(s, Start));
        _program.Write(0, Start, 2);
        Assert.Equal(1UL, K->FramesInUse);
        Assert.Equal(2UL, _program.Read(0, Start));
        foreach (int s in snapshots)
        {
            Assert.Equal(PageKind.Redirect, _program.Kind(s, Start));
            Assert.Equal(1UL, _program.Read(s, Start));
        }
        // It goes with the last of them, in whatever order.
        _program.Release(snapshots[2]);
        _program.Release(snapshots[0]);
        Assert.Equal(1UL, K->FramesInUse);
        Assert.Equal(1UL, _program.Read(snapshots[1], Start));
        _program.Release(snapshots[1]);
        Assert.Equal(0UL, K->FramesInUse);
    }

    [Fact]
    public void Creating_costs_four_tables_whatever_was_mapped()
    {
        _program.Write(0, Start, 1);
        ulong before = K->TablesInUse;
        _program.Snapshot();
        Assert.Equal(before, K->TablesInUse);
        Assert.Equal(0UL, K->ReadyRootCount);
        Assert.Equal(2UL, K->Spaces[0].Renewed.Count);
        Assert.Equal(2UL, K->Spaces[1].Tables.Count);
    }

    [Fact]
    public void Creating_marks_every_vcpu_of_main_for_a_flush()
    {
        K->Spaces->Vcpus[0] |= 1UL << 5;
        _program.Snapshot();
        Assert.Equal(1, _program.Machine.Vcpus[5].Area->FlushPending);
        Assert.Equal(1, _program.Main.Area->FlushPending);
    }

    [Fact]
    public void Main_gets_large_pages_back_after_the_last_snapshot()
    {
        int s = _program.Snapshot();
        _program.Write(0, Start, 1);
        Assert.Equal(0UL, _program.DirectoryEntry(0, Start) & Entry.Large);
        _program.Release(s);
        _program.Write(0, Start + 0x1000, 1);
        for (ulong a = Start; a < End; a += Layout.LargePageSize)
            Assert.Equal(Entry.Large | Entry.Writable, _program.DirectoryEntry(0, a) & (Entry.Large | Entry.Writable));
    }

    [Fact]
    public void A_page_the_snapshot_never_touched_is_copied_without_a_kick()
    {
        int s = _program.Snapshot();
        _program.Read(s, Start + (2 * Layout.LargePageSize));
        _program.Write(0, Start, 1);
        Assert.Equal(0, _program.Machine.Kicks);
        Assert.Equal(0UL, K->Shootdowns);
    }

    [Fact]
    public void A_page_the_snapshot_has_cached_costs_one_kick()
    {
        int s = _program.Snapshot();
        _program.Read(s, Start);
        _program.Write(0, Start, 1);
        Assert.Equal(1, _program.Machine.Kicks);
        Assert.Equal(0UL, _program.Read(s, Start));
    }

    [Fact]
    public void After_clearing_accessed_bits_there_is_no_kick()
    {
        int s = _program.Snapshot();
        _program.Read(s, Start);
        _program.Read(s, Start + Layout.LargePageSize);
        Assert.Equal(2, SmallProgram.On(_program.Of(s), v => KernelEntry.ClearAccessed(v, s)));
        Assert.Equal(1, _program.Of(s).Area->FlushPending);
        _program.Of(s).Enter();
        _program.Write(0, Start, 1);
        Assert.Equal(0, _program.Machine.Kicks);
        Assert.Equal(0UL, _program.Read(s, Start));
        // Nothing was touched since but the tables on the way and that page.
        _program.Write(0, Start + Layout.LargePageSize, 1);
        Assert.Equal(0, _program.Machine.Kicks);
    }

    [Fact]
    public void Accessed_bits_stay_while_another_vcpu_of_the_space_runs()
    {
        int s = _program.Snapshot();
        _program.Machine.Vcpus[9].Assign(s);
        K->Spaces[s].Vcpus[0] |= 1UL << 9;
        Assert.Equal(0, _program.Machine.Vcpus[9].Touch(Start, Access.Read, out _));
        Assert.Equal(0, SmallProgram.On(_program.Of(s), v => KernelEntry.ClearAccessed(v, s)));
        _program.Write(0, Start, 1);
        Assert.Equal(1, _program.Machine.Kicks);
    }

    // The fault of one vCPU splits a large page that another, and it itself, have cached.
    [Fact]
    public void Splitting_a_large_page_for_a_snapshots_write_remembers_who_cached_it()
    {
        int s = _program.Snapshot();
        _program.Read(s, Start);
        Assert.Equal(Entry.Large, _program.DirectoryEntry(s, Start) & Entry.Large);
        _program.Write(s, Start + 0x1000, 7);
        ulong* page = Walk.Page(K, K->Spaces + s, Start + 0x3000);
        Assert.NotEqual(0UL, *page & Entry.Accessed);
        _program.Write(0, Start + 0x3000, 1);
        Assert.Equal(1, _program.Machine.Kicks);
    }

    [Fact]
    public void Unmapping_part_of_a_cached_large_page_flushes_the_other_vcpus_first()
    {
        int s = _program.Snapshot();
        _program.Machine.Vcpus[9].Assign(s);
        K->Spaces[s].Vcpus[0] |= 1UL << 9;
        Assert.Equal(0, _program.Machine.Vcpus[9].Touch(Start + 0x3000, Access.Read, out _));
        K->Spaces[s].Vmas[0].Start += 0x1000;
        Assert.Equal(0, SmallProgram.On(_program.Of(s), v => KernelEntry.Unmap(v, s, Start, Start + 0x1000)));
        Assert.Equal(1, _program.Machine.Kicks);
    }

    [Fact]
    public void A_snapshot_of_a_snapshot_shares_copies_and_has_its_own_private_pages()
    {
        _program.Write(0, Start, 1);
        int s = _program.Snapshot();
        _program.Write(0, Start, 2);
        _program.Write(s, Start + 0x1000, 3);
        ulong frames = K->FramesInUse;
        int t = _program.Snapshot(s);
        Assert.Equal(K->Spaces[s].Epoch, K->Spaces[t].Epoch);
        Assert.Equal(frames + 1, K->FramesInUse);
        _program.Write(s, Start + 0x1000, 4);
        _program.Release(s);
        Assert.Equal(1UL, _program.Read(t, Start));
        Assert.Equal(3UL, _program.Read(t, Start + 0x1000));
        _program.Release(t);
        Assert.Equal(0UL, K->FramesInUse);
    }

    [Fact]
    public void Detaching_untouched_memory_costs_no_frames()
    {
        _program.Write(0, Start, 1);
        int s = _program.Snapshot();
        byte* populated = stackalloc byte[4];
        populated[0] = 1;
        Assert.Equal(0, SmallProgram.On(_program.Main, v => KernelEntry.Detach(v, Start, Start + 0x4000, populated)));
        Assert.Equal(1UL, K->FramesInUse);
        Assert.Equal(PageKind.Redirect, _program.Kind(s, Start));
        Assert.Equal(PageKind.Zero, _program.Kind(s, Start + 0x1000));
        Assert.Equal(0UL, _program.Read(s, Start + 0x1000));
        _program.Write(s, Start + 0x1000, 5);
        Assert.Equal(PageKind.Private, _program.Kind(s, Start + 0x1000));
        Assert.Equal(0UL, _program.Read(s, Start + 0x2000));
    }

    [Fact]
    public void Unmapping_in_a_snapshot_frees_its_frames()
    {
        int s = _program.Snapshot();
        for (ulong i = 0; i < 5; i++)
            _program.Write(s, Start + i * 0x1000, i);
        K->Spaces[s].Vmas[0].Start += 0x3000;
        Assert.Equal(0, SmallProgram.On(_program.Of(s), v => KernelEntry.Unmap(v, s, Start, Start + 0x3000)));
        Assert.Equal(2UL, K->Spaces[s].PrivateCount);
        Assert.Equal(2UL, K->FramesInUse);
        Assert.Equal(FaultCode.NotMapped, _program.Of(s).Touch(Start, Access.Read, out _));
        Assert.Equal(3UL, _program.Read(s, Start + 0x3000));
    }

    [Fact]
    public void Memory_mapped_after_the_snapshot_is_written_without_a_copy()
    {
        _program.Snapshot();
        K->Spaces->Vmas[1] = new Vma
        {
            Start = End, End = End + Layout.LargePageSize, Flags = Vma.Read | Vma.Write, Birth = K->Epoch,
        };
        K->Spaces->VmaCount = 2;
        _program.Write(0, End, 1);
        Assert.Equal(0UL, K->FramesInUse);
        Assert.Equal(Entry.Large | Entry.Writable, _program.DirectoryEntry(0, End) & (Entry.Large | Entry.Writable));
    }

    // The host has changed the mappings, another vCPU faults, and only then Unmap or Protect is called.
    [Fact]
    public void A_stale_large_page_of_main_is_not_upgraded_beyond_its_mapping()
    {
        int s = _program.Snapshot();
        _program.Read(0, Start);
        _program.Release(s);
        Assert.Equal(Entry.Large, _program.DirectoryEntry(0, Start) & (Entry.Large | Entry.Writable));
        K->Spaces->Vmas[0].Start += 0x1000;
        _program.Write(0, Start + 0x2000, 1);
        Assert.Equal(0UL, _program.DirectoryEntry(0, Start) & Entry.Large);
        Assert.Equal(0UL, *Walk.Page(K, K->Spaces, Start));
        Assert.NotEqual(0UL, *Walk.Page(K, K->Spaces, Start + 0x3000) & Entry.Writable);
    }

    [Fact]
    public void A_stale_large_page_of_a_snapshot_does_not_grow_beyond_its_mapping()
    {
        K->Spaces->Vmas[0].Flags = Vma.Read | Vma.Shared;
        int s = _program.Snapshot();
        _program.Read(s, Start);
        Vma* vmas = K->Spaces[s].Vmas;
        vmas[1] = vmas[0];
        vmas[0].End = vmas[1].Start = Start + 0x1000;
        vmas[0].Flags |= Vma.Write;
        K->Spaces[s].VmaCount = 2;
        _program.Write(s, Start, 1);
        Assert.Equal(FaultCode.Denied, _program.Of(s).Touch(Start + 0x1000, Access.Write, out _));
        Assert.Equal(1UL, _program.Read(0, Start));
    }

    [Fact]
    public void Execution_is_allowed_once_the_mapping_allows_it()
    {
        int s = _program.Snapshot();
        foreach (int space in new[] { 0, s })
        {
            _program.Read(space, Start);
            Assert.Equal(FaultCode.Denied, _program.Of(space).Touch(Start, Access.Fetch, out _));
            K->Spaces[space].Vmas[0].Flags |= Vma.Execute;
            Assert.Equal(0, _program.Of(space).Touch(Start, Access.Fetch, out _));
        }
    }

    [Fact]
    public void An_empty_pool_is_reported_as_no_memory()
    {
        int s = _program.Snapshot();
        K->PoolEnd = K->PoolNext;
        _program.Machine.FramesExhausted = true;
        Assert.Equal(FaultCode.NoMemory, _program.Of(s).Touch(Start, Access.Write, out _));
        Assert.Equal(FaultCode.NoMemory, _program.Main.Touch(Start, Access.Write, out _));
        Assert.Equal(-Errno.NoMemory, SmallProgram.On(_program.Main, v => KernelEntry.PrepareWrite(v, 0, Start, End)));
        _program.Machine.FramesExhausted = false;
        _program.Write(0, Start, 1);
        Assert.Equal(0UL, _program.Read(s, Start));
    }

    [Fact]
    public void A_failed_snapshot_of_a_snapshot_leaves_nothing()
    {
        int s = _program.Snapshot();
        for (ulong i = 0; i < 5; i++)
            _program.Write(s, Start + i * 0x1000, i);
        ulong tables = K->TablesInUse - K->ReadyRootCount;
        K->PoolEnd = K->PoolNext + 0x2000;
        _program.Machine.FramesExhausted = true;
        Assert.Equal(-Errno.NoMemory, SmallProgram.On(_program.Of(s), v => KernelEntry.CreateSnapshot(v, s)));
        Assert.Equal(5UL, K->FramesInUse);
        Assert.Equal(tables, K->TablesInUse - K->ReadyRootCount);
        Assert.Equal(0, K->Spaces[2].Active);
    }

    [Fact]
    public void Bad_arguments_are_refused()
    {
        int s = _program.Snapshot();
        Vcpu main = _program.Main;
        Assert.Equal(-Errno.Invalid, SmallProgram.On(main, v => KernelEntry.CreateSnapshot(v, 7)));
        Assert.Equal(-Errno.Invalid, SmallProgram.On(main, v => KernelEntry.Release(v, 0)));
        Assert.Equal(-Errno.Invalid, SmallProgram.On(main, v => KernelEntry.Release(v, 7)));
        Assert.Equal(-Errno.Busy, SmallProgram.On(_program.Of(s), v => KernelEntry.Release(v, s)));
        Assert.Equal(-Errno.Invalid, SmallProgram.On(main, v => KernelEntry.Unmap(v, 7, Start, End)));
        Assert.Equal(-Errno.Invalid, SmallProgram.On(main, v => KernelEntry.PrepareWrite(v, 64, Start, End)));
        Assert.Equal(-Errno.Invalid, SmallProgram.On(main, v => KernelEntry.ClearAccessed(v, 0)));
    }

    [Fact]
    public void When_all_spaces_are_in_use_the_caller_shall_try_again()
    {
        for (int i = 1; i < Layout.MaxSpaces; i++)
            Assert.Equal(i, SmallProgram.On(_program.Main, v => KernelEntry.CreateSnapshot(v, 0)));
        Assert.Equal(-Errno.Again, SmallProgram.On(_program.Main, v => KernelEntry.CreateSnapshot(v, 0)));
        Assert.Equal(0, SmallProgram.On(_program.Main, v => KernelEntry.Release(v, 9)));
        Assert.Equal(9, SmallProgram.On(_program.Main, v => KernelEntry.CreateSnapshot(v, 0)));
    }

    [Fact]
    public void Fault_inside_the_kernel_is_a_panic()
    {
        VcpuArea* v = _program.Main.Area;
        _program.Main.Enter();
        v->Trap->Rip = K->KernelBase + 0x10_0000;
        v->Trap->Cr2 = 0x1234;
        var error = Assert.Throws<SimulationException>(() => KernelEntry.PageFault(_program.Main.Area));
        Assert.Contains($"request {HostRequest.Panic} ({PanicCode.KernelFault:x}, 1234)", error.Message, StringComparison.Ordinal);
    }
}
