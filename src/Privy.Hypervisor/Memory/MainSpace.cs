using Privy.Hypervisor.Boot;
using Privy.Hypervisor.Diagnostics;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Sites;
using Privy.Hypervisor.Syscalls;
using Privy.Kernel;
using static Privy.Hypervisor.Host.HostMemory;

namespace Privy.Hypervisor.Memory;

/// <summary>
/// The memory of the main process: host mappings at the same addresses. The guest's tables are filled by the kernel on first
/// touch, from the mappings kept here.
/// </summary>
internal sealed unsafe class MainSpace : AddressSpace
{
    private const ulong PopulatedOffset = 0x40000;
    private const ulong PopulatedPages = 0x40000;

    /// <summary>Room in the kernel region for what kernel calls are given or give; under <see cref="AddressSpace.Changes"/>.</summary>
    internal const ulong KernelBuffer = Layout.KernelBase + PopulatedOffset;

    /// <summary>Its length.</summary>
    internal const ulong KernelBufferBytes = PopulatedPages;

    private readonly ulong _windowEnd;
    private readonly RangeSet _occupied = new();
    private readonly Dictionary<ulong, ulong> _segments = [];
    private readonly List<(ulong Start, ulong End, ulong Epoch)> _kept = [];
    private readonly PageMap _pageMap = new();
    private bool _hides;

    private readonly ulong _limit;

    /// <summary>Makes the space of a machine's program.</summary>
    /// <param name="machine">The machine.</param>
    /// <param name="limit">Most bytes of private writable memory the program may map; 0: what the host allows.</param>
    internal MainSpace(Machine machine, ulong limit)
        : base(machine, 0)
    {
        _limit = limit;
        _windowEnd = Layout.WindowBase + machine.Map.WindowSize;
        foreach (var page in machine.Trampolines.All)
            _occupied.Add(page, page + Layout.PageSize);
    }

    internal override bool IsMain => true;

    /// <summary>Where the program calls the system often; null: nobody wants to know.</summary>
    internal SyscallSites? Sites { get; set; }

    /// <summary>Claims addresses for good (ELF images, heap); the lowest free ones first.</summary>
    internal bool Claim(ulong start, ulong end)
    {
        if (_occupied.Overlaps(start, end))
            return false;
        _occupied.Add(start, end);
        return true;
    }

    /// <summary>Makes the gap below the first thread's stack inaccessible for good, and marks the stack above it.</summary>
    internal void ReserveStackGap(Vcpu vcpu, ulong gap, ulong stackSize)
    {
        lock (Changes)
        {
            var stack = gap + StackGap;
            _ = UnmapLocked(vcpu, gap, stack);
            _occupied.Add(gap, stack);
            _ = Mappings.SetFlags(stack, stack + stackSize, 0, 0, tagSet: VmaTag.Stack);
        }
    }

    internal override long Map(Vcpu vcpu, ulong address, ulong length, int protection, int flags, int descriptor, ulong offset)
    {
        lock (Changes)
        {
            length = PageUp(length);
            if (length == 0)
                return -Errno.EINVAL;
            var anonymous = (flags & MAP_ANONYMOUS) != 0;
            var shared = (flags & MAP_SHARED) != 0;
            var isFixed = (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) != 0;
            if (isFixed)
            {
                if (!IsPageAligned(address))
                    return -Errno.EINVAL;
                if (!Contains(address, length))
                    return -Errno.ENOMEM;
                if ((flags & MAP_FIXED_NOREPLACE) != 0 && OverlapsMapping(address, address + length))
                    return -Errno.EEXIST;
                if (TakesSharedMemoryFromSnapshot(address, address + length))
                    return -Errno.ENOMEM;
                if (!TryDisplace(vcpu, address, address + length))
                    return -Errno.ENOMEM;
                ForgetSites(address, address + length);
            }
            else
            {
                address = Choose(address, length, anonymous);
                if (address == 0)
                    return -Errno.ENOMEM;
            }

            if (!shared && (protection & PROT_WRITE) != 0 && !FitsLimit(length))
                return -Errno.ENOMEM;
            const int passedOn = MAP_SHARED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | 0x8000 /* POPULATE */ | 0x2000 /* LOCKED */ | 0x40000 /* HUGETLB */ | (0x3F << 26) | 0x80000 /* SYNC */;
            var hostNone = !shared && anonymous && Rights(protection) == 0;
            var hostProtection = shared ? protection & (PROT_READ | PROT_WRITE)
                : hostNone ? PROT_NONE
                : PROT_READ | PROT_WRITE; // rights of private memory are the guest table's business; snapshots must stay readable
            if (shared && (protection & PROT_EXEC) != 0)
                hostProtection |= PROT_READ;
            var hostFlags = (flags & passedOn) | MAP_FIXED | (hostNone ? MAP_NORESERVE : 0);
            var result = FaultInjection.Fails(FaultPoint.Mapping)
                ? -Errno.ENOMEM
                : HostMemory.Map(address, length, hostProtection, hostFlags, anonymous ? -1 : descriptor, offset);
            if (result < 0)
                return result;
            if (anonymous && length >= Layout.LargePageSize && (flags & 0x20000 /* MAP_STACK */) == 0)
                _ = HostMemory.Advise(address, length, MADV_HUGEPAGE);

            var vma = new Vma
            {
                Start = address,
                End = address + length,
                Flags = Rights(protection) | (shared ? Vma.Shared : 0),
                HostTag = (anonymous ? 0 : VmaTag.File) | (hostNone ? VmaTag.HostNone : 0),
                Birth = Machine.State->Epoch,
            };
            if (!Mappings.Replace(vma))
            {
                _ = Release(address, address + length);
                return -Errno.ENOMEM;
            }

            _occupied.Add(vma.Start, vma.End);
            if (isFixed)
                DropEntries(vcpu, vma.Start, vma.End);
            return (long)address;
        }
    }

    /// <summary>shmat(2) of a segment of <paramref name="length"/> bytes.</summary>
    internal long AttachSegment(Vcpu vcpu, int segment, ulong length, ulong address, int flags)
    {
        const int readOnly = 0x1000, round = 0x2000, remap = 0x4000, execute = 0x8000;
        lock (Changes)
        {
            length = PageUp(length);
            if (address != 0 && (flags & round) != 0)
                address &= ~(Layout.PageSize - 1);
            if (!IsPageAligned(address) || (address == 0 && (flags & remap) != 0))
                return -Errno.EINVAL;
            if (address == 0)
                address = Choose(0, length, anonymous: true);
            else if (!Contains(address, length) || (OverlapsMapping(address, address + length) && (flags & remap) == 0))
                return -Errno.EINVAL;
            if (address == 0 || TakesSharedMemoryFromSnapshot(address, address + length))
                return -Errno.ENOMEM;
            if (!TryDisplace(vcpu, address, address + length))
                return -Errno.ENOMEM;
            ForgetSites(address, address + length);
            // The window's reservation is what it replaces, even where the program has nothing.
            var result = HostSyscall.Raw(SyscallNumber.shmat, (ulong)segment, address, (ulong)(flags | remap) & ~(ulong)round);
            if (result < 0)
                return result;
            var vma = new Vma
            {
                Start = address,
                End = address + length,
                Flags = Vma.Read | Vma.Shared | ((flags & readOnly) == 0 ? Vma.Write : 0) | ((flags & execute) != 0 ? Vma.Execute : 0),
                HostTag = VmaTag.File,
                Birth = Machine.State->Epoch,
            };
            if (!Mappings.Replace(vma))
            {
                _ = Release(address, address + length);
                return -Errno.ENOMEM;
            }

            _occupied.Add(vma.Start, vma.End);
            DropEntries(vcpu, vma.Start, vma.End);
            _segments[address] = length;
            return (long)address;
        }
    }

    /// <summary>shmdt(2).</summary>
    internal long DetachSegment(Vcpu vcpu, ulong address)
    {
        lock (Changes)
            return _segments.Remove(address, out var length) ? UnmapLocked(vcpu, address, address + length) : -Errno.EINVAL;
    }

    internal override long Unmap(Vcpu vcpu, ulong address, ulong length)
    {
        lock (Changes)
        {
            length = PageUp(length);
            if (!IsPageAligned(address) || length == 0 || !Contains(address, length))
                return -Errno.EINVAL;
            return UnmapLocked(vcpu, address, address + length);
        }
    }

    internal override long Protect(Vcpu vcpu, ulong address, ulong length, int protection)
    {
        lock (Changes)
        {
            length = PageUp(length);
            var end = address + length;
            if (!IsPageAligned(address))
                return -Errno.EINVAL;
            if (length == 0)
                return 0;
            if (!Mappings.Covers(address, end) || Machine.Trampolines.Overlap(address, end))
                return -Errno.ENOMEM;
            ForgetSites(address, end);
            var rights = Rights(protection);
            if ((rights & Vma.Write) != 0 && !Mappings.Allows(address, end, Vma.Write) && !FitsLimit(length))
                return -Errno.ENOMEM;
            var narrows = false;
            var hides = rights == 0 && ActiveSnapshots == 0;
            foreach (var vma in Overlapping(address, end))
            {
                var from = Math.Max(vma.Start, address);
                var to = Math.Min(vma.End, end);
                narrows |= (vma.Flags & (Vma.Read | Vma.Write | Vma.Execute) & ~rights) != 0 || (rights & ~vma.Flags & Vma.Execute) != 0;
                var result = 0L;
                if ((vma.Flags & Vma.Shared) != 0)
                {
                    // Shared memory of a snapshot's child stays readable; a file opened read-only refuses here, as natively.
                    var host = (protection & (PROT_READ | PROT_WRITE)) | ((protection & PROT_EXEC) != 0 ? PROT_READ : 0);
                    if (ActiveSnapshots == 0 || (rights & ~vma.Flags) != 0)
                        result = HostMemory.Protect(from, to - from, host);
                }
                else if ((vma.HostTag & (VmaTag.HostNone | VmaTag.HostHidden)) != 0)
                {
                    if (rights != 0)
                        result = HostMemory.Protect(from, to - from, PROT_READ | PROT_WRITE);
                }
                else if (hides)
                {
                    // The host kernel reads the program's buffers without asking the guest's table: only so does it refuse these.
                    result = HostMemory.Protect(from, to - from, PROT_NONE);
                }

                if (result < 0)
                    return result;
            }

            const uint all = Vma.Read | Vma.Write | Vma.Execute;
            if (!Mappings.SetFlags(address, end, all, rights, rights != 0 ? VmaTag.HostNone | VmaTag.HostHidden : 0, hides ? VmaTag.HostHidden : 0))
                return -Errno.ENOMEM;
            _hides |= hides;
            if (narrows && TableScan.AnyEntry(Machine.State, Space->Root, address, end))
            {
                var result = Machine.Kernel.Protect(vcpu, Index, address, end);
                Flush(vcpu);
                return result;
            }

            return 0;
        }
    }

    internal override long Remap(Vcpu vcpu, ulong address, ulong oldLength, ulong newLength, int flags, ulong newAddress)
    {
        lock (Changes)
        {
            oldLength = PageUp(oldLength);
            newLength = PageUp(newLength);
            if (!IsPageAligned(address) || newLength == 0 || (flags & ~(MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP)) != 0)
                return -Errno.EINVAL;
            var fixedAddress = (flags & MREMAP_FIXED) != 0;
            if (fixedAddress && ((flags & MREMAP_MAYMOVE) == 0 || !IsPageAligned(newAddress) || !Contains(newAddress, newLength)
                || (newAddress < address + oldLength && address < newAddress + newLength)))
                return -Errno.EINVAL;
            if ((flags & MREMAP_DONTUNMAP) != 0 || oldLength == 0)
                return -Errno.EINVAL;
            if (Mappings.Find(address) is not { } vma || vma.End < address + oldLength || Machine.Trampolines.Overlap(address, address + oldLength))
                return -Errno.EFAULT;

            if (!fixedAddress && newLength <= oldLength)
            {
                var shrunk = newLength < oldLength ? UnmapLocked(vcpu, address + newLength, address + oldLength) : 0;
                return shrunk < 0 ? shrunk : (long)address;
            }

            if (newLength > oldLength && (vma.Flags & (Vma.Write | Vma.Shared)) == Vma.Write && !FitsLimit(newLength - oldLength))
                return -Errno.ENOMEM;
            var oldEnd = address + oldLength;
            if (!fixedAddress && vma.End == oldEnd && Contains(address, newLength) && !_occupied.Overlaps(oldEnd, address + newLength))
            {
                // The host's mapping can only grow where the reservation of the window has made room.
                _ = HostMemory.Unmap(oldEnd, newLength - oldLength);
                var grown = HostMemory.Remap(address, oldLength, newLength, 0, 0);
                if (grown > 0)
                {
                    _occupied.Add(oldEnd, address + newLength);
                    return Mappings.Replace(vma with { Start = oldEnd, End = address + newLength, Birth = Machine.State->Epoch }) ? (long)address : -Errno.ENOMEM;
                }

                ReserveAgain(oldEnd, address + newLength);
            }

            if ((flags & MREMAP_MAYMOVE) == 0)
                return -Errno.ENOMEM;
            if (fixedAddress && TakesSharedMemoryFromSnapshot(newAddress, newAddress + newLength))
                return -Errno.ENOMEM;
            if (fixedAddress && !TryDisplace(vcpu, newAddress, newAddress + newLength))
                return -Errno.ENOMEM;
            if (fixedAddress)
                ForgetSites(newAddress, newAddress + newLength);
            if (!fixedAddress && (newAddress = Choose(0, newLength, anonymous: true)) == 0)
                return -Errno.ENOMEM;
            if (newLength < oldLength)
            {
                var cut = UnmapLocked(vcpu, address + newLength, oldEnd);
                if (cut < 0)
                    return cut;
                oldLength = newLength;
                oldEnd = address + newLength;
            }

            if (TakesSharedMemoryFromSnapshot(address, oldEnd))
                return -Errno.ENOMEM;
            // Snapshots keep the bytes at the old addresses, which the host is about to take away.
            if (!TryDisplace(vcpu, address, oldEnd))
                return -Errno.ENOMEM;
            ForgetSites(address, oldEnd);
            _ = Mappings.Remove(address, oldEnd);
            DropEntries(vcpu, address, oldEnd);
            var moved = FaultInjection.Fails(FaultPoint.Mapping)
                ? -Errno.ENOMEM
                : HostMemory.Remap(address, oldLength, newLength, MREMAP_MAYMOVE | MREMAP_FIXED, newAddress);
            if (moved < 0)
            {
                _ = Mappings.Replace(vma with { Start = address, End = oldEnd });
                return moved;
            }

            if ((vma.Flags & Vma.Execute) != 0)
                Sites?.Restore(address, oldEnd, newAddress, ProgramCopy.TryRead, ProgramCopy.TryWrite);
            ReserveAgain(address, oldEnd);
            _occupied.Remove(address, oldEnd);
            _occupied.Add(newAddress, newAddress + newLength);
            if (!Mappings.Replace(vma with { Start = newAddress, End = newAddress + newLength, Birth = Machine.State->Epoch }))
                return -Errno.ENOMEM;
            if (fixedAddress)
                DropEntries(vcpu, newAddress, newAddress + newLength);
            return (long)newAddress;
        }
    }

    internal override long Advise(Vcpu vcpu, ulong address, ulong length, int advice)
    {
        const int free = 8, remove = 9, dontFork = 10, doFork = 11, noHugePage = 15, dontDump = 16, doDump = 17, wipeOnFork = 18, keepOnFork = 19, collapse = 25;
        lock (Changes)
        {
            length = PageUp(length);
            var end = address + length;
            if (!IsPageAligned(address) || end < address)
                return -Errno.EINVAL;
            if (length == 0)
                return 0;
            if (!Contains(address, length) || !Mappings.Covers(address, end))
                return -Errno.ENOMEM;
            switch (advice)
            {
                case MADV_DONTNEED:
                    if (!TryDisplace(vcpu, address, end))
                        return -Errno.ENOMEM;
                    // What was written there is gone, too.
                    ForgetSites(address, end);
                    return HostMemory.Advise(address, length, advice);
                case free:
                    // Pages "may" be freed: with a snapshot that reads them they are not.
                    return ActiveSnapshots == 0 ? HostMemory.Advise(address, length, advice) : 0;
                case noHugePage or MADV_HUGEPAGE or collapse:
                    // Copies are 4 KB whatever the mapping, so huge pages never hurt here; programs turn them off because Linux copies 2 MB.
                    return 0;
                case dontFork or doFork or dontDump or doDump or keepOnFork:
                    return 0;
                case wipeOnFork or remove:
                    return -Errno.EINVAL;
                default:
                    return HostMemory.Advise(address, length, advice);
            }
        }
    }

    internal override void PrepareSnapshot(ulong first, ulong end)
    {
        if (!_hides)
            return;
        // A region of the program may be a part of a mapping that is hidden no more than it.
        if (first != 0 && !Mappings.Any(first, end, 0, VmaTag.HostHidden))
            return;
        _hides = false;
        foreach (var vma in Mappings.All.ToArray())
        {
            if ((vma.HostTag & (VmaTag.HostHidden | VmaTag.HostNone)) == VmaTag.HostHidden && (vma.Flags & Vma.Shared) == 0)
                _ = HostMemory.Protect(vma.Start, vma.End - vma.Start, PROT_READ | PROT_WRITE);
        }

        _ = Mappings.SetFlags(0, ulong.MaxValue, 0, 0, VmaTag.HostHidden);
    }

    internal override bool PrepareWrite(Vcpu vcpu, ulong address, ulong length)
    {
        if (length == 0)
            return true;
        var end = address + length;
        if (end < address || !Mappings.Allows(address, end, Vma.Write))
            return false;
        return HasNoReaders(address, end) || WritableNow(address, end) || Machine.Kernel.PrepareWrite(vcpu, Index, address, end) >= 0;
    }

    /// <summary>Whether no snapshot has a reader but views of regions.</summary>
    internal bool HasViewsAtMost => Volatile.Read(ref Machine.State->ActiveMask) == Machine.State->ViewMask;

    /// <summary>Whether no snapshot can share anything of [address, end): there are none, or only views of regions elsewhere.</summary>
    internal bool HasNoReaders(ulong address, ulong end) =>
        ActiveSnapshots == 0 || (HasViewsAtMost && !Mappings.Any(address, end, Vma.Region, 0));

    /// <summary>
    /// As <see cref="PrepareWrite"/>, by a thread without a vCPU: never waits, and never copies a page. False does not say that the range is bad.
    /// </summary>
    internal bool TryPrepareWrite(ulong address, ulong length)
    {
        if (length == 0)
            return true;
        // Whoever holds the lock may be waiting for this thread's call to end.
        if (!Changes.TryEnter())
            return false;
        try
        {
            var end = address + length;
            return end > address && Mappings.Allows(address, end, Vma.Write) && (HasNoReaders(address, end) || WritableNow(address, end));
        }
        finally
        {
            Changes.Exit();
        }
    }

    internal override bool TryRead(Vcpu vcpu, ulong address, Span<byte> destination)
    {
        if (destination.Length == 0)
            return true;
        var slot = (address - Layout.ViewBase) / Layout.ViewSpan;
        if (slot is > 0 and < Layout.MaxSpaces && (Machine.State->ViewMask >> (int)slot & 1) != 0)
            return SnapshotSpace.TryRead(Machine.State, (int)slot, Machine.State->Spaces[slot].ViewOf + (address % Layout.ViewSpan), destination);
        if (address + (ulong)destination.Length < address || !Mappings.Allows(address, address + (ulong)destination.Length, Vma.Read))
            return false;
        return Mappings.AnyTag(address, address + (ulong)destination.Length, VmaTag.File)
            ? ProgramCopy.TryRead(address, destination)
            : ProgramCopy.Read(address, destination);
    }

    internal override bool TryWrite(Vcpu vcpu, ulong address, ReadOnlySpan<byte> source)
    {
        if (!PrepareWrite(vcpu, address, (ulong)source.Length))
            return false;
        return Mappings.AnyTag(address, address + (ulong)source.Length, VmaTag.File)
            ? ProgramCopy.TryWrite(address, source)
            : ProgramCopy.Write(address, source);
    }

    /// <summary>After a snapshot is gone: frees what was kept for it (rule 4).</summary>
    internal void ReleaseKept()
    {
        lock (Changes)
        {
            var oldest = OldestEpoch();
            for (var i = _kept.Count - 1; i >= 0; i--)
            {
                var (start, end, epoch) = _kept[i];
                if (oldest < epoch)
                    continue;
                _kept.RemoveAt(i);
                _ = Release(start, end);
            }
        }
    }

    /// <summary>Maps a page for trampolines; under <see cref="AddressSpace.Changes"/>.</summary>
    internal bool MapTrampolines(ulong page) =>
        HostMemory.Map(page, Layout.PageSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED) >= 0
        && Mappings.Replace(new Vma { Start = page, End = page + Layout.PageSize, Flags = Vma.Read | Vma.Execute, HostTag = VmaTag.Hypervisor, Birth = Machine.State->Epoch });

    /// <summary>A free place in the window for a mapping of a snapshot's child that must live in the host (shared memory).</summary>
    internal long MapForChild(VmaList child, ulong length, int protection, int flags, int descriptor, ulong offset)
    {
        lock (Changes)
        {
            // Free for both: what the child has mapped for itself is not known here, and what main has mapped since the fork not there.
            var taken = new RangeSet();
            foreach (var (start, end) in _occupied.Ranges)
                taken.Add(start, end);
            foreach (var vma in child.All)
                taken.Add(vma.Start, vma.End);
            var address = taken.FindTopDown(LowestFree, _windowEnd, length, Layout.PageSize);
            if (address == 0)
                return -Errno.ENOMEM;
            var result = HostMemory.Map(address, length, protection, flags | MAP_FIXED, descriptor, offset);
            if (result > 0)
                _occupied.Add(address, address + length);
            return result;
        }
    }

    /// <summary>Gives up a range that a child mapped, once no snapshot can read it.</summary>
    internal void UnmapForChild(ulong start, ulong end)
    {
        lock (Changes)
            _kept.Add((start, end, ulong.MaxValue));
    }

    protected override long ShrinkBreak(Vcpu vcpu, ulong start, ulong end)
    {
        if (!TryDisplace(vcpu, start, end))
            return -Errno.ENOMEM;
        _ = Mappings.Remove(start, end);
        DropEntries(vcpu, start, end);
        ReserveAgain(start, end);
        return 0;
    }

    /// <summary>True when so many more bytes of private writable memory stay within the limit (<c>--memory</c>).</summary>
    private bool FitsLimit(ulong additional)
    {
        if (_limit == 0)
            return true;
        var used = additional;
        foreach (ref readonly var vma in Mappings.All)
        {
            if ((vma.Flags & (Vma.Write | Vma.Shared)) == Vma.Write)
                used += vma.End - vma.Start;
        }

        if (used <= _limit)
            return true;
        SyscallWarnings.Once($"the program wants more than the {_limit >> 20} MB that --memory allows; it gets ENOMEM");
        return false;
    }

    /// <summary>Snapshots in use.</summary>
    private int ActiveSnapshots => System.Numerics.BitOperations.PopCount(Volatile.Read(ref Machine.State->ActiveMask));

    private long UnmapLocked(Vcpu vcpu, ulong start, ulong end)
    {
        var any = false;
        List<(ulong, ulong)> pieces = [];
        foreach (var vma in Overlapping(start, end))
        {
            any = true;
            pieces.Add((Math.Max(vma.Start, start), Math.Min(vma.End, end)));
        }

        if (!any)
            return 0;
        ForgetSites(start, end);
        if (!Mappings.Remove(start, end))
            return -Errno.ENOMEM;
        DropEntries(vcpu, start, end);
        foreach (var (from, to) in pieces)
        {
            // Rule 4: a snapshot may still read this memory, so it and its addresses stay until the snapshot is gone.
            if (ActiveSnapshots != 0)
                _kept.Add((from, to, Machine.State->Epoch));
            else
                _ = Release(from, to);
        }

        return 0;
    }

    /// <summary>
    /// Shared memory must stay one and the same for parent and child (rule 5), so it can neither be copied for a snapshot nor moved
    /// away under it while the child lives. The child would see other memory; the parent gets an error instead.
    /// </summary>
    private bool TakesSharedMemoryFromSnapshot(ulong start, ulong end)
    {
        if (ActiveSnapshots == 0)
            return false;
        for (var i = 1; i < Layout.MaxSpaces; i++)
        {
            if (Machine.State->Spaces[i].Active == 0)
                continue;
            var mappings = new VmaList(Machine.State, i);
            var all = mappings.All;
            for (var at = mappings.IndexOf(start); at < all.Length && all[at].Start < end; at++)
            {
                if ((all[at].Flags & Vma.Shared) == 0)
                    continue;
                SyscallWarnings.Once("shared memory cannot be replaced or moved while a forked child maps it; the program gets ENOMEM");
                return true;
            }
        }

        return false;
    }

    /// <summary>
    /// Before memory at these addresses is replaced: snapshots get their own copies (rule 4). False: there is no memory for them, and nothing may be replaced;
    /// copies made so far do no harm.
    /// </summary>
    private bool TryDisplace(Vcpu vcpu, ulong start, ulong end)
    {
        if (ActiveSnapshots == 0)
            return true;
        foreach (var vma in Overlapping(start, end))
        {
            if ((vma.Flags & Vma.Shared) == 0 && !TryDetachSnapshots(vcpu, Math.Max(vma.Start, start), Math.Min(vma.End, end), (vma.HostTag & VmaTag.File) != 0))
                return false;
        }

        // Memory that main has given up but a snapshot still reads.
        for (var i = _kept.Count - 1; i >= 0; i--)
        {
            var (keptStart, keptEnd, epoch) = _kept[i];
            var (from, to) = (Math.Max(keptStart, start), Math.Min(keptEnd, end));
            if (from >= to)
                continue;
            if (!TryDetachSnapshots(vcpu, from, to, allPopulated: true))
                return false;
            _kept.RemoveAt(i);
            if (keptStart < from)
                _kept.Add((keptStart, from, epoch));
            if (to < keptEnd)
                _kept.Add((to, keptEnd, epoch));
        }

        return true;
    }

    private bool TryDetachSnapshots(Vcpu vcpu, ulong from, ulong to, bool allPopulated)
    {
        while (from < to)
        {
            var pages = Math.Min((to - from) / Layout.PageSize, PopulatedPages);
            var populated = new Span<byte>((void*)(Layout.KernelBase + PopulatedOffset), (int)pages);
            if (allPopulated)
                populated.Fill(1); // untouched pages of a file mapping are not zeros
            else
                _pageMap.ReadPopulated(from, populated);
            var result = Machine.Kernel.Detach(vcpu, from, from + (pages * Layout.PageSize), Layout.KernelBase + PopulatedOffset);
            if (result < 0)
                return false;
            from += pages * Layout.PageSize;
        }

        return true;
    }

    private void DropEntries(Vcpu vcpu, ulong start, ulong end)
    {
        if (!TableScan.AnyEntry(Machine.State, Space->Root, start, end))
            return;
        _ = Machine.Kernel.Unmap(vcpu, Index, start, end);
        Flush(vcpu);
    }

    private long Release(ulong start, ulong end)
    {
        ReserveAgain(start, end);
        _occupied.Remove(start, end);
        return 0;
    }

    private static void ReserveAgain(ulong start, ulong end) =>
        _ = HostMemory.Map(start, end - start, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED);

    private ulong Choose(ulong hint, ulong length, bool anonymous)
    {
        hint &= ~(Layout.PageSize - 1);
        if (hint != 0 && Contains(hint, length) && !_occupied.Overlaps(hint, hint + length))
            return hint;
        // Aligned, so that a big mapping is 2 MB pages from end to end.
        var alignment = anonymous && length >= Layout.LargePageSize ? Layout.LargePageSize : Layout.PageSize;
        return _occupied.FindTopDown(LowestFree, _windowEnd, length, alignment);
    }

    private ulong LowestFree => Math.Max(BreakLimit, Layout.WindowBase);

    private bool Contains(ulong address, ulong length)
    {
        var end = address + length;
        if (end < address || Machine.Trampolines.Overlap(address, end))
            return false;
        return (address >= Layout.WindowBase && end <= _windowEnd)
            || (address >= Layout.LargePageSize && end <= Machine.State->LowEnd);
    }

    /// <summary>Before mappings of [start, end) change.</summary>
    private void ForgetSites(ulong start, ulong end)
    {
        // Most changes are of data, and many.
        if (Sites is { } sites && Mappings.Any(start, end, Vma.Execute, 0))
            sites.Forget(start, end);
    }

    private bool OverlapsMapping(ulong start, ulong end)
    {
        foreach (var _ in Overlapping(start, end))
            return true;
        return false;
    }

    private List<Vma> Overlapping(ulong start, ulong end)
    {
        var found = new List<Vma>();
        var all = Mappings.All;
        for (var i = Mappings.IndexOf(start); i < all.Length && all[i].Start < end; i++)
            found.Add(all[i]);
        return found;
    }

    private bool WritableNow(ulong start, ulong end)
    {
        for (var page = start & ~(Layout.PageSize - 1); page < end; page += Layout.PageSize)
        {
            _ = Translate.Lookup(Machine.State, Space, page, out var entry, out _);
            // Clear where the page was copied ahead of a write: the kernel must be told of this one.
            const ulong written = Entry.Present | Entry.Writable | Entry.Dirty;
            if ((entry & written) != written)
                return false;
        }

        return true;
    }

    private ulong OldestEpoch()
    {
        var oldest = ulong.MaxValue;
        for (var i = 1; i < Layout.MaxSpaces; i++)
        {
            if (Machine.State->Spaces[i].Active != 0)
                oldest = Math.Min(oldest, Machine.State->Spaces[i].Epoch);
        }

        return oldest;
    }
}
