using Privy.Hypervisor.Boot;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Memory;
using Privy.Kernel;

namespace Privy.Hypervisor.Sites;

/// <summary>
/// The places at which the main process' first thread calls the system often. There the instruction that loads the call's number becomes a jump to a <see cref="Trampoline"/>, which
/// enters the system-call stub without SYSCALL: that passes through the host's kernel where it stays in ring 3, which costs many times what the stub then takes to answer.
/// </summary>
/// <remarks>
/// One instruction is replaced by one of its length, and SYSCALL itself stays, for whoever jumps to it and for calls that are made again. Code changes only while no vCPU is in the program and no
/// snapshot can read it.
/// </remarks>
internal sealed unsafe class SyscallSites(MainSpace space)
{
    /// <summary>Calls after which a site is worth it: a program that soon ends is left alone.</summary>
    private const int Hot = 64;

    private const int MostCounted = 1024, MostRewritten = 64, CacheSize = 64;
    private const byte Breakpoint = 0xCC;

    private readonly Lock _lock = new();
    private readonly Dictionary<ulong, int> _counts = [];
    private readonly HashSet<ulong> _known = [];
    private readonly List<ulong> _due = [];
    private readonly Dictionary<ulong, int> _used = [];

    /// <summary>Some of the known sites, to be found without the lock.</summary>
    private readonly ulong[] _cache = new ulong[CacheSize];

    private volatile SyscallSite[] _rewritten = [];
    private volatile bool _isDue;
    private bool _isMarked;

    /// <summary>Whether a site is to be rewritten, and no forked child may be reading it.</summary>
    internal bool IsDue => _isDue && space.HasViewsAtMost;

    /// <summary>Sites rewritten so far.</summary>
    internal int Rewritten => _rewritten.Length;

    /// <summary>Counts a call of the first thread.</summary>
    /// <param name="after">The address after its SYSCALL.</param>
    /// <returns>True: the site has just become due.</returns>
    internal bool Note(ulong after)
    {
        const ulong syscallLength = 2;
        var syscall = after - syscallLength;
        if (after == 0 || Volatile.Read(ref _cache[Slot(syscall)]) == syscall)
            return false;
        lock (_lock)
        {
            if (_known.Contains(syscall))
            {
                Volatile.Write(ref _cache[Slot(syscall)], syscall);
                return false;
            }

            if (_counts.Count >= MostCounted)
                _counts.Clear();
            var count = _counts.GetValueOrDefault(syscall) + 1;
            _counts[syscall] = count;
            if (count < Hot)
                return false;
            _ = _counts.Remove(syscall);
            _ = _known.Add(syscall);
            _due.Add(syscall);
            _isDue = true;
            return true;
        }
    }

    /// <summary>The program changes what is mapped in [start, end): what will be there is looked at anew. Under <see cref="AddressSpace.Changes"/>.</summary>
    internal void Forget(ulong start, ulong end)
    {
        lock (_lock)
        {
            bool Lies(ulong syscall) => syscall >= start && syscall < end;
            if (_known.RemoveWhere(Lies) != 0)
                Array.Clear(_cache);
            _ = _due.RemoveAll(Lies);
            foreach (var counted in _counts.Keys.Where(Lies).ToArray())
                _ = _counts.Remove(counted);
        }
    }

    /// <summary>Code has been moved, and the jumps in it would lead elsewhere: the loads are put back. In any process; under its <see cref="AddressSpace.Changes"/>.</summary>
    /// <param name="start">Where it was.</param>
    /// <param name="end">Its end there.</param>
    /// <param name="moved">Where it is.</param>
    /// <param name="read">Reads the process' memory.</param>
    /// <param name="write">Writes to it, whatever rights the program has.</param>
    internal void Restore(ulong start, ulong end, ulong moved, CodeReader read, CodeWriter write)
    {
        foreach (var site in _rewritten)
        {
            var at = moved + (site.Load - start);
            if (site.Load >= start && site.Load < end && Holds(read, at, JumpOf(site)))
                _ = write(at, site.Bytes);
        }
    }

    /// <summary>By the first thread, outside of the program: rewrites what is due. What a snapshot reads stays due.</summary>
    /// <param name="vcpu">The thread's vCPU.</param>
    /// <param name="expel">Makes the other threads leave the program.</param>
    /// <returns>False: trampolines do not work here, and nothing ever will be.</returns>
    internal bool Rewrite(Vcpu vcpu, Action expel)
    {
        lock (space.Changes)
        {
            var sites = TakeDue().Select(syscall => Look(vcpu, syscall)).OfType<SyscallSite>().ToList();
            if (sites.Count == 0)
                return true;
            if (!_isMarked && !vcpu.TryMark(space.Machine.Trampolines.ReachableFrom(sites[0].Load) + TrampolinePages.ProbeOffset))
                return false;
            _isMarked = true;
            space.Gate.Close(expel);
            try
            {
                space.Gate.AwaitEmpty();
                _ = sites.RemoveAll(site => !TryApply(site));
            }
            finally
            {
                space.Gate.Open();
            }

            _rewritten = [.. _rewritten, .. sites];
            return true;
        }
    }

    /// <summary>
    /// After a vCPU has left the program other than by a call: if it was on the way from a site to the stub, it stands at the site's SYSCALL instead.
    /// </summary>
    /// <param name="vcpu">The vCPU, of any process.</param>
    /// <param name="read">Reads its process' memory.</param>
    internal void Complete(Vcpu vcpu, CodeReader read)
    {
        var rip = vcpu.Rip;
        foreach (var site in _rewritten)
        {
            // In a forked child the same address may hold other code by now.
            if (site.Trampoline!.Contains(rip) || (rip == site.Pad && Holds(read, rip, Trampoline.Jump(rip, site.Trampoline.Address))))
            {
                site.Complete(ref vcpu.User, vcpu.Ring->StackPointer);
                return;
            }
        }
    }

    /// <summary>What takes the load's place.</summary>
    private static byte[] JumpOf(SyscallSite site) => site.Pad == 0 ? Trampoline.Jump(site.Load, site.Trampoline!.Address) : Trampoline.ShortJump(site.Load, site.Pad);

    private static int Slot(ulong syscall) => (int)(syscall % CacheSize);

    private static bool Holds(CodeReader read, ulong address, ReadOnlySpan<byte> expected)
    {
        Span<byte> bytes = stackalloc byte[expected.Length];
        return read(address, bytes) && bytes.SequenceEqual(expected);
    }

    private List<ulong> TakeDue()
    {
        lock (_lock)
        {
            var taken = _due.Where(syscall => space.HasNoReaders(syscall & ~(Layout.PageSize - 1), syscall + 1)).ToList();
            _ = _due.RemoveAll(taken.Contains);
            _isDue = _due.Count != 0;
            return taken;
        }
    }

    /// <summary>What is to be done at a SYSCALL; null: nothing can be.</summary>
    private SyscallSite? Look(Vcpu vcpu, ulong syscall)
    {
        const uint rights = Vma.Read | Vma.Write | Vma.Execute | Vma.Shared | Vma.Pooled;
        if (space.Mappings.Find(syscall) is not { } code || (code.Flags & rights) != (Vma.Read | Vma.Execute) || (code.HostTag & VmaTag.File) == 0)
            return null;
        bool Read(ulong address, Span<byte> destination) => space.TryRead(vcpu, address, destination);
        var image = ImageOf(syscall);
        if (image == 0 || SiteFinder.Find(Read, image, syscall) is not { } site || site.Load < code.Start)
            return null;
        return TryPlace(vcpu, site) ? site : null;
    }

    /// <summary>Where the file begins that is mapped at an address: its parts lie together, the first with the ELF header.</summary>
    private ulong ImageOf(ulong address)
    {
        var all = space.Mappings.All;
        Span<byte> magic = stackalloc byte[4];
        for (var i = space.Mappings.IndexOf(address); i >= 0 && (all[i].HostTag & VmaTag.File) != 0; i--)
        {
            if (ProgramCopy.TryRead(all[i].Start, magic) && magic.SequenceEqual("\u007fELF"u8))
                return all[i].Start;
            if (i == 0 || all[i - 1].End != all[i].Start)
                break;
        }

        return 0;
    }

    /// <summary>Makes a site's trampoline. Nothing leads there yet.</summary>
    private bool TryPlace(Vcpu vcpu, SyscallSite site)
    {
        var page = space.Machine.Trampolines.ReachableFrom(site.Load);
        if (page == 0 || _used.Values.Sum() >= MostRewritten)
            return false;
        if (!_used.TryGetValue(page, out var used))
        {
            if (!space.MapTrampolines(page))
                return false;
            *(ulong*)page = vcpu.Stubs.Syscall.Entry;
            Trampoline.Probe(page + TrampolinePages.ProbeOffset).CopyTo(new Span<byte>((void*)(page + TrampolinePages.ProbeOffset), TrampolinePages.FirstOffset - TrampolinePages.ProbeOffset));
        }

        var offset = TrampolinePages.FirstOffset + (used * TrampolinePages.Room);
        if (offset + TrampolinePages.Room > (int)Layout.PageSize)
            return false;
        site.Trampoline = Trampoline.Assemble(site, page + (ulong)offset, (ulong)vcpu.Area, page);
        site.Trampoline.Code.CopyTo(new Span<byte>((void*)site.Trampoline.Address, TrampolinePages.Room));
        _used[page] = used + 1;
        return true;
    }

    /// <summary>Private memory of the host is writable whatever rights the program has; a page of the file that is cut off by now stays as it is.</summary>
    private static bool TryApply(SyscallSite site)
    {
        if (site.Pad == 0)
            return ProgramCopy.TryWrite(site.Load, JumpOf(site));

        var pad = new byte[site.PadLength];
        pad.AsSpan().Fill(Breakpoint);
        Trampoline.Jump(site.Pad, site.Trampoline!.Address).CopyTo(pad, 0);
        return ProgramCopy.TryWrite(site.Pad, pad) && ProgramCopy.TryWrite(site.Load, JumpOf(site));
    }
}
