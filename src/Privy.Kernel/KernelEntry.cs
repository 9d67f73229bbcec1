namespace Privy.Kernel;

/// <summary>
/// The functions the host calls on a vCPU and the page-fault stub calls, by the names of the image's exports. Results
/// are 0 or a negative errno unless said otherwise.
/// </summary>
public static unsafe class KernelEntry
{
    /// <summary>
    /// Makes main's empty tree (not exported; the host calls it before the first vCPU runs). The state's addresses,
    /// <see cref="KernelState.TemplateRoot"/>, the tables' and frames' metadata and each space's array of mappings must
    /// be set. The epoch starts at 1.
    /// </summary>
    public static long Initialize(KernelState* k)
    {
        if (k->Epoch == 0)
            k->Epoch = 1;
        k->MainEpoch = k->Epoch;
        if (Tables.PrepareRoots(k, 2) != Outcome.Done)
            return -Errno.NoMemory;
        SnapshotCreation.SetRoots(k, k->Spaces);
        k->Spaces->Active = Space.InUse;
        RegionWrites.Initialize(k);
        Tables.PrepareRoots(k, 4);
        return 0;
    }

    /// <summary>
    /// Handles the page fault in the vCPU's trap frame (<c>privy_page_fault</c>). A bad access is left in the vCPU's area
    /// with <see cref="ExitReason.Fault"/>, and the result is -EFAULT.
    /// </summary>
    public static long PageFault(VcpuArea* v) => PageFaultHandler.Handle(v);

    /// <summary>
    /// Takes a snapshot of a space whose vCPUs are all out of the program, or leave it now (<c>privy_create_snapshot</c>). Returns the new
    /// space's index, -EAGAIN when all are in use, -ENOMEM, -EBUSY when some do not leave soon.
    /// </summary>
    /// <remarks>
    /// After a snapshot of main the other vCPUs of main must stay out until this has returned: the caller still runs on
    /// main's former tree, which the first fault on the new one makes reusable.
    /// </remarks>
    public static long CreateSnapshot(VcpuArea* v, int parentSpace) => SnapshotCreation.Create(v, parentSpace);

    /// <summary>
    /// Ends a snapshot no vCPU has loaded (<c>privy_release</c>); the calling vCPU must run on main's root. -EBUSY if it
    /// runs on the snapshot's.
    /// </summary>
    public static long Release(VcpuArea* v, int space) => SnapshotRelease.Release(v, space);

    /// <summary>
    /// Drops the entries of a range whose mappings the host removed (<c>privy_unmap</c>) and frees a snapshot's private
    /// frames there. The host flushes main's vCPUs.
    /// </summary>
    public static long Unmap(VcpuArea* v, int space, ulong start, ulong end) => RangeEdit.Unmap(v, space, start, end);

    /// <summary>
    /// Brings the entries of a range up to date after the host changed its mappings' rights (<c>privy_protect</c>). The
    /// host flushes main's vCPUs.
    /// </summary>
    public static long Protect(VcpuArea* v, int space, ulong start, ulong end) => RangeEdit.Protect(v, space, start, end);

    /// <summary>
    /// Acts as if each page of the range had been written (<c>privy_prepare_write</c>). -EFAULT at the first bad page,
    /// whose address is left in <see cref="VcpuArea.FaultAddress"/>.
    /// </summary>
    public static long PrepareWrite(VcpuArea* v, int space, ulong start, ulong end)
    {
        if ((uint)space >= Layout.MaxSpaces || v->Kernel->Spaces[space].Active != Space.InUse)
            return -Errno.Invalid;
        return PageFaultHandler.PrepareWrite(v, space, start, end);
    }

    /// <summary>
    /// Lets the snapshots keep what they see of main's range (<c>privy_detach</c>): a copy where
    /// <paramref name="populated"/> (a byte a page) is not 0, else zeros. Main's entries there are dropped.
    /// </summary>
    public static long Detach(VcpuArea* v, ulong start, ulong end, byte* populated) =>
        Privy.Kernel.Detach.Run(v, start, end, populated);

    /// <summary>
    /// Takes a snapshot of [start, end) that main reads itself (<c>privy_take_view</c>); all of main's vCPUs are out of the program, or leave it now, and stay
    /// out until it has returned. Returns the new space's index, -EAGAIN when all are in use, -ENOMEM, -EBUSY when some do not leave soon.
    /// </summary>
    public static long TakeView(VcpuArea* v, ulong start, ulong end) => View.Take(v, start, end);

    /// <summary>Takes a view away from main and ends its snapshot (<c>privy_close_view</c>).</summary>
    public static long CloseView(VcpuArea* v, int space) => View.Close(v, space);

    /// <summary>
    /// The pages that main wrote between two snapshots (<c>privy_changed</c>): sets bits in <paramref name="bits"/>, which lies in the kernel region, from
    /// <paramref name="start"/> on. <paramref name="pair"/> is the older space's index in the upper half, the newer one's in the lower.
    /// </summary>
    public static long Changed(VcpuArea* v, ulong pair, ulong start, ulong end, ulong* bits) => View.Changed(v, pair, start, end, bits);

    /// <summary>
    /// Copies for the snapshots what they share of main's range, before main writes there (<c>privy_precopy</c>). Returns 0 when the range
    /// is through, 1 when there is nothing more to do, 2 when the frames at hand are used up.
    /// </summary>
    public static long Precopy(VcpuArea* v, ulong start, ulong end) => Privy.Kernel.Precopy.Run(v, start, end);

    /// <summary>
    /// Drops a snapshot's entries of memory that it shares with main (<c>privy_forget_linear</c>), on one of its vCPUs, once
    /// <see cref="Space.CopyReads"/> is set. -EBUSY while another vCPU of the snapshot is in the guest.
    /// </summary>
    public static long ForgetLinear(VcpuArea* v, int space) => ReaderCopies.ForgetLinear(v, space);

    /// <summary>
    /// Clears the A bits of a snapshot's entries (<c>privy_clear_accessed</c>). Returns 1 when the calling vCPU must
    /// flush before it runs the program (it is marked so), 0 when nothing was cleared.
    /// </summary>
    public static long ClearAccessed(VcpuArea* v, int space) => AccessedBits.Clear(v, space);
}
