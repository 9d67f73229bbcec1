using Privy.Hypervisor.Boot;
using Privy.Hypervisor.Host;
using Privy.Kernel;
using static Privy.Hypervisor.Host.HostMemory;

namespace Privy.Hypervisor.Memory;

/// <summary>
/// The memory of a forked child: main's bytes at the fork, and the child's own pages. What it maps for itself lives in pool
/// frames and changes its own table alone (rule 6); shared memory alone is a mapping of the host.
/// </summary>
internal sealed unsafe class SnapshotSpace : AddressSpace
{
    // See ForgetAccesses.
    private const int FewestShootdowns = 8;
    private const int PagesPerShootdown = 80;

    private readonly MainSpace _main;
    private readonly RangeSet _ownShared = new();
    private ulong _shootdownsSeen;
    private ulong _shootdownsWorthAFlush = FewestShootdowns;
    private bool _readsCopied;

    internal SnapshotSpace(Machine machine, MainSpace main, AddressSpace parent, int index)
        : base(machine, index)
    {
        _main = main;
        BreakStart = parent.BreakStart;
        Break = parent.Break;
        BreakLimit = parent.BreakLimit;
    }

    internal override bool IsMain => false;

    internal override long Map(Vcpu vcpu, ulong address, ulong length, int protection, int flags, int descriptor, ulong offset)
    {
        lock (Changes)
        {
            length = PageUp(length);
            if (length == 0)
                return -Errno.EINVAL;
            var shared = (flags & MAP_SHARED) != 0;
            var anonymous = (flags & MAP_ANONYMOUS) != 0;
            var isFixed = (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) != 0;
            if (isFixed && (!IsPageAligned(address) || !Contains(address, address + length)))
                return IsPageAligned(address) ? -Errno.ENOMEM : -Errno.EINVAL;
            if ((flags & MAP_FIXED_NOREPLACE) != 0 && IsUsed(address, address + length))
                return -Errno.EEXIST;

            if (shared)
            {
                if (isFixed)
                    return -Errno.ENOMEM; // its place would have to be free in the parent too
                var placed = _main.MapForChild(Mappings, length, protection & (PROT_READ | PROT_WRITE), flags & ~(MAP_FIXED | MAP_FIXED_NOREPLACE), anonymous ? -1 : descriptor, offset);
                if (placed < 0)
                    return placed;
                _ownShared.Add((ulong)placed, (ulong)placed + length);
                return Mappings.Replace(new Vma { Start = (ulong)placed, End = (ulong)placed + length, Flags = Rights(protection) | Vma.Shared, HostTag = anonymous ? 0 : VmaTag.File, Birth = Machine.State->Epoch }) ? placed : -Errno.ENOMEM;
            }

            if (!isFixed)
            {
                address = Choose(length);
                if (address == 0)
                    return -Errno.ENOMEM;
            }

            if (!Mappings.Replace(new Vma { Start = address, End = address + length, Flags = Rights(protection) | Vma.Pooled | (anonymous ? 0 : Vma.Write), Birth = Machine.State->Epoch }))
                return -Errno.ENOMEM;
            if (isFixed)
                Drop(vcpu, address, address + length);
            if (!anonymous)
            {
                var filled = Fill(vcpu, address, length, descriptor, offset);
                if (filled < 0)
                    return filled;
                if ((protection & PROT_WRITE) == 0)
                    _ = Protect(vcpu, address, length, protection);
            }

            return (long)address;
        }
    }

    internal override long Unmap(Vcpu vcpu, ulong address, ulong length)
    {
        lock (Changes)
        {
            length = PageUp(length);
            var end = address + length;
            // What is not the program's, the guest's kernel above all, has no mapping here but entries in the table.
            if (!IsPageAligned(address) || length == 0 || end < address || !Contains(address, end))
                return -Errno.EINVAL;
            if (!Mappings.Remove(address, end))
                return -Errno.ENOMEM;
            Drop(vcpu, address, end);
            if (_ownShared.Overlaps(address, end))
            {
                foreach (var (start, stop) in _ownShared.Ranges.ToArray())
                {
                    var (from, to) = (Math.Max(start, address), Math.Min(stop, end));
                    if (from < to)
                        _main.UnmapForChild(from, to);
                }

                _ownShared.Remove(address, end);
            }

            return 0;
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
            var rights = Rights(protection);
            var all = Mappings.All;
            for (var i = Mappings.IndexOf(address); i < all.Length && all[i].Start < end; i++)
            {
                if ((all[i].HostTag & VmaTag.HostNone) != 0 && (all[i].Flags & Vma.Pooled) == 0 && rights != 0)
                {
                    var from = Math.Max(all[i].Start, address);
                    _ = HostMemory.Protect(from, Math.Min(all[i].End, end) - from, PROT_READ | PROT_WRITE);
                }
            }

            if (!Mappings.SetFlags(address, end, Vma.Read | Vma.Write | Vma.Execute, rights, rights != 0 ? VmaTag.HostNone : 0))
                return -Errno.ENOMEM;
            var result = Machine.Kernel.Protect(vcpu, Index, address, end);
            Flush(vcpu);
            return result;
        }
    }

    internal override long Remap(Vcpu vcpu, ulong address, ulong oldLength, ulong newLength, int flags, ulong newAddress)
    {
        lock (Changes)
        {
            oldLength = PageUp(oldLength);
            newLength = PageUp(newLength);
            if (!IsPageAligned(address) || newLength == 0 || oldLength == 0 || (flags & ~MREMAP_MAYMOVE) != 0)
                return -Errno.EINVAL;
            if (Mappings.Find(address) is not { } vma || vma.End < address + oldLength || Machine.Trampolines.Overlap(address, address + oldLength))
                return -Errno.EFAULT;
            if (newLength <= oldLength)
            {
                var cut = newLength < oldLength ? Unmap(vcpu, address + newLength, oldLength - newLength) : 0;
                return cut < 0 ? cut : (long)address;
            }

            if ((vma.Flags & Vma.Shared) != 0)
                return -Errno.ENOMEM;
            var grown = newLength - oldLength;
            if (!IsUsed(address + oldLength, address + newLength) && Contains(address, address + newLength))
            {
                return Mappings.Replace(new Vma { Start = address + oldLength, End = address + newLength, Flags = vma.Flags | Vma.Pooled, Birth = vma.Birth }) ? (long)address : -Errno.ENOMEM;
            }

            if ((flags & MREMAP_MAYMOVE) == 0 || (newAddress = Choose(newLength)) == 0)
                return -Errno.ENOMEM;
            if (!Mappings.Replace(new Vma { Start = newAddress, End = newAddress + newLength, Flags = vma.Flags | Vma.Pooled | Vma.Write | Vma.Read, Birth = vma.Birth }))
                return -Errno.ENOMEM;
            var buffer = new byte[1 << 16];
            for (ulong done = 0; done < oldLength; done += (ulong)buffer.Length)
            {
                var piece = buffer.AsSpan(0, (int)Math.Min((ulong)buffer.Length, oldLength - done));
                if (TryRead(vcpu, address + done, piece) && !TryWrite(vcpu, newAddress + done, piece))
                    return -Errno.ENOMEM;
            }

            if ((vma.Flags & Vma.Execute) != 0)
                _main.Sites?.Restore(address, address + oldLength, newAddress, (at, bytes) => TryRead(vcpu, at, bytes), (at, bytes) => TryWrite(vcpu, at, bytes));
            _ = Unmap(vcpu, address, oldLength);
            if ((vma.Flags & Vma.Write) == 0)
            {
                _ = Mappings.SetFlags(newAddress, newAddress + newLength, Vma.Read | Vma.Write | Vma.Execute, vma.Flags & (Vma.Read | Vma.Write | Vma.Execute));
                _ = Machine.Kernel.Protect(vcpu, Index, newAddress, newAddress + newLength);
                Flush(vcpu);
            }

            return (long)newAddress;
        }
    }

    internal override long Advise(Vcpu vcpu, ulong address, ulong length, int advice)
    {
        lock (Changes)
        {
            length = PageUp(length);
            var end = address + length;
            if (!IsPageAligned(address) || end < address)
                return -Errno.EINVAL;
            if (!Mappings.Covers(address, end) || Machine.Trampolines.Overlap(address, end))
                return length == 0 ? 0 : -Errno.ENOMEM;
            if (advice != MADV_DONTNEED)
                return 0; // hints about linear memory are the parent's to give
            List<Vma> pieces = [];
            var all = Mappings.All;
            for (var i = Mappings.IndexOf(address); i < all.Length && all[i].Start < end; i++)
            {
                if ((all[i].Flags & Vma.Shared) == 0 && (all[i].HostTag & VmaTag.File) == 0)
                    pieces.Add(all[i]);
            }

            foreach (var vma in pieces)
            {
                var zeroed = vma with { Start = Math.Max(vma.Start, address), End = Math.Min(vma.End, end), Flags = vma.Flags | Vma.Pooled };
                if (!Mappings.Replace(zeroed))
                    return -Errno.ENOMEM;
                Drop(vcpu, zeroed.Start, zeroed.End);
            }

            return 0;
        }
    }

    internal override bool PrepareWrite(Vcpu vcpu, ulong address, ulong length)
    {
        if (length == 0)
            return true;
        var end = address + length;
        if (end < address || !Mappings.Allows(address, end, Vma.Write))
            return false;
        for (var page = address & ~(Layout.PageSize - 1); page < end; page += Layout.PageSize)
        {
            var kind = Translate.Lookup(Machine.State, Space, page, out var entry, out _);
            if (kind != PageKind.Private || (entry & Entry.Writable) == 0)
                return Machine.Kernel.PrepareWrite(vcpu, Index, address, end) >= 0;
        }

        return true;
    }

    internal override bool TryRead(Vcpu vcpu, ulong address, Span<byte> destination) => TryRead(Machine.State, Index, address, destination);

    /// <summary>Copies out of a snapshot that is not released meanwhile. False: some page is not mapped readable.</summary>
    internal static bool TryRead(KernelState* state, int space, ulong address, Span<byte> destination)
    {
        var mappings = new VmaList(state, space);
        while (destination.Length > 0)
        {
            if (mappings.Find(address) is not { } vma || (vma.Flags & Vma.Read) == 0)
                return false;
            var piece = destination[..(int)Math.Min((ulong)destination.Length, Layout.PageSize - (address & (Layout.PageSize - 1)))];
            if (!TryReadWithinPage(state, state->Spaces + space, vma, address, piece))
                return false;
            destination = destination[piece.Length..];
            address += (ulong)piece.Length;
        }

        return true;
    }

    internal override bool TryWrite(Vcpu vcpu, ulong address, ReadOnlySpan<byte> source)
    {
        if (!PrepareWrite(vcpu, address, (ulong)source.Length))
            return false;
        while (source.Length > 0)
        {
            var piece = source[..(int)Math.Min((ulong)source.Length, Layout.PageSize - (address & (Layout.PageSize - 1)))];
            var kind = Translate.Lookup(Machine.State, Space, address, out _, out var physical);
            if (kind == PageKind.Private)
                piece.CopyTo(new Span<byte>(Boot.Machine.PoolHost(physical), piece.Length));
            else if (!ProgramCopy.TryWrite(address, piece))
                return false;
            source = source[piece.Length..];
            address += (ulong)piece.Length;
        }

        return true;
    }

    /// <summary>
    /// Gives a futex word its host address: the child's own frame, so that its threads meet there and nobody else does.
    /// </summary>
    internal bool TryTranslateForFutex(Vcpu vcpu, ref ulong address)
    {
        if (Mappings.Find(address) is not { } vma || (vma.Flags & Vma.Read) == 0)
            return false;
        if ((vma.Flags & Vma.Shared) != 0)
            return true;
        if (!PrepareWrite(vcpu, address, sizeof(int)) || Translate.Lookup(Machine.State, Space, address, out _, out var physical) != PageKind.Private)
            return false;
        address = (ulong)Boot.Machine.PoolHost(physical);
        return true;
    }

    /// <summary>
    /// On the way back from a system call: forgets which pages the child has touched, and flushes, when main's writes have kicked the
    /// child's vCPU several times since the last time. They then meet few pages that the child may have cached (design, section 4).
    /// </summary>
    /// <remarks>
    /// Not without need: under shadow paging the child then takes a fault of 2.4 us for each page that it touches again. Measured with a BGSAVE of 1 GB
    /// beside 200 SETs a second: forgetting after each eighth kick, it took 7.4 s in place of 2.9. So the kicks since the last time must have cost as
    /// much as the pages then forgotten did: a kick costs main and the child some 200 us together.
    /// </remarks>
    internal void ForgetAccesses(Vcpu vcpu)
    {
        if (!_readsCopied && Volatile.Read(ref Space->CopyReads) != 0)
            _readsCopied = Machine.Kernel.ForgetLinear(vcpu, Index) == 0;
        var shootdowns = Volatile.Read(ref Machine.State->Shootdowns);
        if (shootdowns - _shootdownsSeen < _shootdownsWorthAFlush)
            return;
        _shootdownsSeen = shootdowns;
        var forgotten = Machine.Kernel.ClearAccessed(vcpu, Index);
        _shootdownsWorthAFlush = (ulong)Math.Max(FewestShootdowns, forgotten / PagesPerShootdown);
    }

    /// <summary>Gives up everything: the kernel's part on a vCPU that no longer runs in the space, then the host's.</summary>
    internal void Dispose(Vcpu vcpu)
    {
        foreach (var (start, end) in _ownShared.Ranges)
            _main.UnmapForChild(start, end);
        var result = Machine.Kernel.Release(vcpu, Index);
        if (result < 0)
            throw vcpu.Defect($"releasing snapshot {Index}: errno {-result}");
        _main.ReleaseKept();
    }

    protected override long ShrinkBreak(Vcpu vcpu, ulong start, ulong end) => Unmap(vcpu, start, end - start);

    private static bool TryReadWithinPage(KernelState* state, Space* space, in Vma vma, ulong address, Span<byte> piece)
    {
        while (true)
        {
            var kind = Translate.Lookup(state, space, address, out _, out var physical);
            if (kind is PageKind.Redirect or PageKind.Private or PageKind.Zero)
            {
                new ReadOnlySpan<byte>(Boot.Machine.PoolHost(physical), piece.Length).CopyTo(piece);
                return true;
            }

            if (kind == PageKind.Missing)
                return false;
            if ((vma.Flags & Vma.Pooled) != 0)
            {
                piece.Clear();
                return true;
            }

            if ((vma.HostTag & VmaTag.File) == 0)
                _ = ProgramCopy.Read(address, piece);
            else if (!ProgramCopy.TryRead(address, piece))
                return false;
            // Main may have copied the page away meanwhile and written to it. It writes only after the redirect is in place, so
            // an unchanged answer means that the bytes were the snapshot's.
            Interlocked.MemoryBarrier();
            if (Translate.Lookup(state, space, address, out _, out var now) is PageKind.Linear or PageKind.Absent && now == physical)
                return true;
        }
    }

    private long Fill(Vcpu vcpu, ulong address, ulong length, int descriptor, ulong offset)
    {
        var buffer = new byte[1 << 16];
        fixed (byte* at = buffer)
        {
            for (ulong done = 0; done < length;)
            {
                const long pread64 = 17;
                var wanted = Math.Min((ulong)buffer.Length, length - done);
                var got = HostSyscall.Raw(pread64, (ulong)descriptor, (ulong)at, wanted, offset + done);
                if (got < 0)
                    return got;
                if (got == 0)
                    return 0;
                if (!TryWrite(vcpu, address + done, buffer.AsSpan(0, (int)got)))
                    return -Errno.ENOMEM;
                done += (ulong)got;
            }
        }

        return 0;
    }

    private void Drop(Vcpu vcpu, ulong start, ulong end)
    {
        if (!TableScan.AnyEntry(Machine.State, Space->Root, start, end))
            return;
        _ = Machine.Kernel.Unmap(vcpu, Index, start, end);
        Flush(vcpu);
    }

    private bool IsUsed(ulong start, ulong end)
    {
        var all = Mappings.All;
        var i = Mappings.IndexOf(start);
        return i < all.Length && all[i].Start < end;
    }

    /// <summary>Whether [start, end) may be the program's.</summary>
    private bool Contains(ulong start, ulong end) =>
        LinearMap.Contains(Machine.State, start) && LinearMap.Contains(Machine.State, end - 1) && !Machine.Trampolines.Overlap(start, end);

    private ulong Choose(ulong length)
    {
        var all = Mappings.All;
        var ceiling = Machine.Trampolines.All[^1];
        for (var i = all.Length - 1; i >= 0; i--)
        {
            if (all[i].End + length <= ceiling)
                return ceiling - length;
            ceiling = all[i].Start - ((all[i].HostTag & VmaTag.Stack) != 0 ? StackGap : 0);
            if (ceiling <= BreakLimit)
                return 0;
        }

        return 0;
    }
}
