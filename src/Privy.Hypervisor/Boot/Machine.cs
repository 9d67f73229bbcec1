using System.Runtime.CompilerServices;
using Privy.Hypervisor.Diagnostics;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Memory;
using Privy.Hypervisor.Sites;
using Privy.Kernel;
using Privy.Kvm;

namespace Privy.Hypervisor.Boot;

/// <summary>The VM of one privileged process: kernel region, window, frame pool, slots and vCPUs.</summary>
public sealed unsafe class Machine : IDisposable
{
    private const ulong SpacesOffset = 0x4000;
    private const ulong SlotBitmapOffset = 0x20000;
    private const ulong RegionBitmapOffset = 0x30000;
    private const ulong PoolVirtual = 0x0A00_0000_0000;

    // Measured, see docs/performance.md: the pages copied ahead under a page table cost at most what its faults have cost.
    private const int AheadGrowthParavirtual = 4;
    private const int AheadGrowthHardware = 1;

    // At once. All of a page table's 512 together cost as much as some twenty faults there, and main gets its 2 MB entry back at once, which spares it KVM's filling in of 64 times eight entries.
    private const int AheadMostParavirtual = 512;
    private const int AheadMostHardware = 64;
    private const int AheadDense = 64;

    // Faults in a millisecond: a fifth of the time.
    private const int DenseParavirtual = 12;
    private const int DenseHardware = 100;
    private const ulong UnknownTscKilohertz = 2_500_000;

    // Of a snapshot: what they cost is what the first of its reads then copied cost.
    private const ulong CopyReadsAfter = 8;

    // What a checkpoint of a few pages in each 2 MB must not cause: 0.3 ms for each of these.
    private const int FaultsToCopy = 24;

    private readonly VirtualMachine _vm;
    private readonly CpuidEntry[] _cpuid;
    private readonly ulong _xcr0;
    private readonly Stack<Vcpu> _idle = new();
    private readonly Vcpu?[] _vcpus = new Vcpu?[Layout.MaxVcpus];
    private readonly Lock _lock = new();
    private readonly MainTableWorker _worker = new();
    private VcpuStubs? _stubs;
    private int _vcpuCount;
    private bool _syscallProbed;
    private bool _directFaults;

    private Machine(VirtualMachine vm, CpuidEntry[] cpuid, ulong xcr0, GuestPhysicalMap map)
    {
        _vm = vm;
        _cpuid = cpuid;
        _xcr0 = xcr0;
        Map = map;
        HostMemory.Reserve(Layout.KernelBase, map.KernelSize, HostMemory.PROT_READ | HostMemory.PROT_WRITE, "kernel region");
        HostMemory.Reserve(PoolVirtual, map.PoolSize, HostMemory.PROT_READ | HostMemory.PROT_WRITE, "frame pool");
        HostMemory.Reserve(Layout.WindowBase, map.WindowSize, HostMemory.PROT_NONE, "window");
        // What a system call is given of a view, the host kernel refuses.
        HostMemory.Reserve(Layout.ViewBase, Layout.ViewSpan * Layout.MaxSpaces, HostMemory.PROT_NONE, "views");
        // 2 MB frames: one host fault makes 512 frames ready for the copies that follow.
        _ = HostMemory.Advise(PoolVirtual, map.PoolSize, HostMemory.MADV_HUGEPAGE);
        _ = HostMemory.Advise(Layout.KernelBase + Layout.TableOffset, map.KernelSize - Layout.TableOffset, HostMemory.MADV_HUGEPAGE);

        State = (KernelState*)Layout.KernelBase;
        Slots = new SlotMap(vm, State, map, PoolVirtual);
        Frames = new FrameReserve(this);
        Trampolines = new TrampolinePages(Layout.WindowBase + map.WindowSize);
    }

    /// <summary>The kernel's state, in memory shared with the guest.</summary>
    public KernelState* State { get; }

    /// <summary>The kernel image as loaded.</summary>
    public KernelImage Image { get; private set; } = null!;

    /// <summary>The kernel's instruction that copies pages of the program, which need not exist.</summary>
    internal ulong TryCopy { get; private set; }

    /// <summary>Where the kernel goes on when a page did not.</summary>
    internal ulong TryCopyFailed { get; private set; }

    /// <summary>The host's vDSO pages, mapped into the guest; null when there are none.</summary>
    internal Vdso? Vdso { get; private set; }

    /// <summary>XCR0 of the guest.</summary>
    internal ulong XsaveFeatures => _xcr0;

    /// <summary>Length of the XSAVE image in the standard format for these features (CPUID leaf 0xD).</summary>
    internal int XsaveLength { get; private set; }

    /// <summary>The kernel's functions.</summary>
    internal KernelCalls Kernel { get; private set; } = null!;

    internal GuestPhysicalMap Map { get; }

    internal SlotMap Slots { get; }

    /// <summary>
    /// True where SYSCALL at CPL 3 arrives at LSTAR in ring 0 (hardware); false on paravirtual KVM. Known after the first call.
    /// </summary>
    public bool SyscallEntersRing0 { get; private set; }

    /// <summary>True when programs may use RDFSBASE and its kin (CPUID leaf 7, EBX bit 0).</summary>
    internal bool HasFsGsBase { get; private set; }

    /// <summary>Host memory behind the pool.</summary>
    internal FrameReserve Frames { get; }

    /// <summary>Pages in the window that are not the program's.</summary>
    internal TrampolinePages Trampolines { get; }

    /// <summary>Creates the VM, loads the kernel and makes its tables.</summary>
    /// <exception cref="KvmException">A call to KVM or for memory failed.</exception>
    public static Machine Create(KvmSystem kvm, ulong memoryBytes)
    {
        foreach (var needed in (ReadOnlySpan<KvmCapability>)[KvmCapability.UserMemory, KvmCapability.SyncRegs, KvmCapability.ImmediateExit, KvmCapability.Xcrs])
        {
            if (kvm.Check(needed) == 0)
                throw new KvmException($"KVM lacks capability {needed}; Linux 4.17 or newer has it", Errno.ENOSYS);
        }

        const SyncSets sets = SyncSets.Registers | SyncSets.SystemRegisters | SyncSets.Events;
        if (((SyncSets)kvm.Check(KvmCapability.SyncRegs) & sets) != sets)
            throw new KvmException($"KVM lacks capability {KvmCapability.SyncRegs} for {sets}; Linux 4.17 or newer has it", Errno.ENOSYS);

        var cpuid = kvm.SupportedCpuid();
        var map = GuestPhysicalMap.Plan(memoryBytes, PhysicalBits(cpuid));
        var vm = kvm.CreateVirtualMachine();
        vm.ReserveIntelPages(Layout.IntelPhysical);
        var machine = new Machine(vm, cpuid, HostProcessor.Xcr0() & SupportedXcr0(cpuid), map);
        foreach (ref readonly var entry in cpuid.AsSpan())
            machine.HasFsGsBase |= entry is { Function: 7, Index: 0 } && (entry.Ebx & 1) != 0;
        machine.XsaveLength = machine.MeasureXsave();
        machine.Boot();
        Canaries.Place([(Layout.KernelBase, Layout.KernelBase + map.KernelSize), (PoolVirtual, PoolVirtual + map.PoolSize), (Layout.WindowBase, Layout.WindowBase + map.WindowSize), (Layout.LargePageSize, Layout.LowWindowEnd)]);
        return machine;
    }

    /// <summary>What the machine is planned for where no size is given: all the memory the process may use.</summary>
    internal static ulong DefaultMemory => (ulong)GC.GetGCMemoryInfo().TotalAvailableMemoryBytes;

    /// <summary>Ends the VM and frees its addresses for another; no vCPU may be in use. A program's machine ends with the process instead.</summary>
    public void Dispose()
    {
        for (var i = 0; i < _vcpuCount; i++)
            _vcpus[i]!.Cpu.Dispose();
        _vcpuCount = 0;
        _vm.Dispose();
        _worker.Stop();
        _ = HostMemory.Unmap(Layout.ViewBase, Layout.ViewSpan * Layout.MaxSpaces);
        _ = HostMemory.Unmap(Layout.WindowBase, Map.WindowSize);
        _ = HostMemory.Unmap(PoolVirtual, Map.PoolSize);
        _ = HostMemory.Unmap(Layout.KernelBase, Map.KernelSize);
    }

    /// <summary>Takes an idle vCPU or makes a new one.</summary>
    internal Vcpu TakeVcpu()
    {
        if (FaultInjection.Fails(FaultPoint.Vcpu))
            throw new KvmException("a vCPU that is to fail", Errno.EAGAIN);
        lock (_lock)
        {
            if (_idle.TryPop(out var vcpu))
                return vcpu;
            var index = _vcpuCount;
            if (index >= Layout.MaxVcpus)
                throw new KvmException("too many threads: creating another vCPU", Errno.EAGAIN);
            var made = _worker.Run(() => CreateVcpu(index));
            _vcpus[index] = made;
            _vcpuCount++;
            return made;
        }
    }

    /// <summary>Makes a vCPU for later.</summary>
    /// <exception cref="KvmException">KVM refused.</exception>
    internal void AddIdleVcpu() => ReturnVcpu(TakeVcpu());

    /// <summary>Gives a vCPU back; KVM cannot remove one before the VM ends, so it waits for another thread.</summary>
    internal void ReturnVcpu(Vcpu vcpu)
    {
        lock (_lock)
            _idle.Push(vcpu);
    }

    /// <summary>Serves a request of the kernel (<see cref="HostRequest"/>) made on a vCPU.</summary>
    internal void Serve(Vcpu vcpu)
    {
        var area = vcpu.Area;
        vcpu.Counters.HostRequests++;
        switch (area->Request)
        {
            case HostRequest.NeedSlot:
                area->RequestResult = (ulong)Slots.Ensure(area->RequestArg0);
                break;
            case HostRequest.Kick:
                _vcpus[area->RequestArg0]!.KickAndWait();
                area->RequestResult = 0;
                break;
            case HostRequest.Yield:
                LetHolderRun();
                area->RequestResult = 0;
                break;
            case HostRequest.NeedReadyFrames:
                area->RequestResult = (ulong)Frames.Serve();
                break;
            case HostRequest.NeedFrames:
                area->RequestResult = unchecked((ulong)-Errno.ENOMEM);
                break;
            default:
                throw vcpu.Defect($"the kernel gave up: {(area->Request == HostRequest.Panic ? $"invariant {area->RequestArg0} broken, value 0x{area->RequestArg1:x}" : $"unknown request {area->Request}")}");
        }
    }

    /// <summary>
    /// The vCPU that has the kernel's lock does not get on: most likely its thread waits for a processor behind another, for milliseconds. It gets
    /// this thread's processor, which has nothing better to do.
    /// </summary>
    private void LetHolderRun()
    {
        var holder = Volatile.Read(ref State->Lock) - 1;
        if ((uint)holder >= (uint)_vcpuCount || _vcpus[holder] is not { HostThreadId: not 0 } vcpu)
            Thread.Yield();
        else
            ThreadPlacement.YieldTo(vcpu.HostThreadId);
    }

    /// <summary>Learns from the first system call's exit whether SYSCALL enters ring 0.</summary>
    internal void ProbeSyscall(Vcpu vcpu)
    {
        if (_syscallProbed)
            return;
        SyscallEntersRing0 = (vcpu.Cpu.GetSystemRegisters().Ss.Dpl & 3) == 0;
        _syscallProbed = true;
        State->AheadGrowth = SyscallEntersRing0 ? AheadGrowthHardware : AheadGrowthParavirtual;
        State->AheadMost = SyscallEntersRing0 ? AheadMostHardware : AheadMostParavirtual;
        State->RateDense = SyscallEntersRing0 ? DenseHardware : DenseParavirtual;
        if (!SyscallEntersRing0)
            UseDirectFaults();
    }

    /// <summary>Leads all vCPUs' page faults past ring 0: each of its instructions is emulated here, and the way in and out of it, too.</summary>
    internal void UseDirectFaults()
    {
        lock (_lock)
        {
            _directFaults = true;
            for (var i = 0; i < _vcpuCount; i++)
                DescriptorTables.UseDirectFaults((ulong)_vcpus[i]!.Area, _vcpus[i]!.Stubs);
        }
    }

    /// <summary>Adds up the exits of all vCPUs.</summary>
    internal ExitCounters TotalExits()
    {
        var sum = new ExitCounters();
        for (var i = 0; i < _vcpuCount; i++)
            _vcpus[i]!.Counters.AddTo(sum);
        return sum;
    }

    /// <summary>Page faults, those of them that came again by ring 0 for their address, and copies, counted by the kernel on all vCPUs.</summary>
    internal (ulong Faults, ulong Asked, ulong Copies) TotalFaults()
    {
        ulong faults = 0, asked = 0, copies = 0;
        for (var i = 0; i < _vcpuCount; i++)
        {
            faults += _vcpus[i]!.Area->Faults;
            asked += _vcpus[i]!.Area->FaultsAsked;
            copies += _vcpus[i]!.Area->PcowCopies;
        }

        return (faults, asked, copies);
    }

    /// <summary>vCPUs that are not idle.</summary>
    internal int VcpusInUse
    {
        get
        {
            lock (_lock)
                return _vcpuCount - _idle.Count;
        }
    }

    private int MeasureXsave()
    {
        const int legacyAndHeader = 576;
        var length = legacyAndHeader;
        foreach (ref readonly var entry in _cpuid.AsSpan())
        {
            if (entry is { Function: 0xD, Index: >= 2 and < 63 } && (_xcr0 >> (int)entry.Index & 1) != 0)
                length = Math.Max(length, (int)(entry.Ebx + entry.Eax));
        }

        return Math.Min(length, XsaveArea.Length);
    }

    private static ulong SupportedXcr0(CpuidEntry[] cpuid)
    {
        foreach (ref readonly var entry in cpuid.AsSpan())
        {
            if (entry is { Function: 0xD, Index: 0 })
                return entry.Eax | ((ulong)entry.Edx << 32);
        }

        return 3;
    }

    private static int PhysicalBits(CpuidEntry[] cpuid)
    {
        foreach (ref readonly var entry in cpuid.AsSpan())
        {
            if (entry.Function == 0x8000_0008)
            {
                // Bits 23:16 narrow the width for guests, where set.
                var guest = (int)(entry.Eax >> 16 & 0xFF);
                var width = (int)(entry.Eax & 0xFF);
                return guest != 0 ? Math.Min(guest, width) : width;
            }
        }

        return 36;
    }

    /// <summary>Host address of a pool frame.</summary>
    internal static byte* PoolHost(ulong physical) => (byte*)(physical - Layout.PoolPhysical + PoolVirtual);

    /// <summary>Page faults of all vCPUs so far, or pages they copied for snapshots.</summary>
    internal long SumPages(bool faults)
    {
        ulong sum = 0;
        lock (_lock)
        {
            for (var i = 0; i < _vcpuCount; i++)
                sum += faults ? _vcpus[i]!.Area->Faults : _vcpus[i]!.Area->PcowCopies;
        }

        return (long)sum;
    }

    /// <summary>Whether the program may have memory at an address. Nothing of the hypervisor's lies behind the end of such a range.</summary>
    internal bool IsProgramAddress(ulong address) =>
        LinearMap.Contains(State, address) || (Vdso is { } vdso && address >= vdso.Start && address < vdso.End);

    /// <summary>Kicks one of the vCPUs, wherever it stands: a test of what follows.</summary>
    internal void KickAny(int number)
    {
        var count = Volatile.Read(ref _vcpuCount);
        // One at a time: kicks wait in a queue, which is the user's and short, while the vCPU's thread has no processor.
        if (count != 0 && _vcpus[number % count] is { } vcpu && vcpu.Cpu.Run->ImmediateExit == 0)
            vcpu.Kick();
    }

    /// <summary>Makes a vCPU flush its translations before it executes another instruction of the guest.</summary>
    internal void FlushVcpu(int index)
    {
        var vcpu = _vcpus[index]!;
        Volatile.Write(ref vcpu.Area->FlushPending, 1);
        vcpu.KickAndWait();
    }

    private void Boot()
    {
        var state = State;
        *state = default;
        state->KernelBase = Layout.KernelBase;
        state->KernelPhysical = Map.KernelPhysical;
        state->DirectBase = Layout.DirectBase;
        state->PhysicalEnd = Map.PhysicalEnd;
        state->WindowBase = Layout.WindowBase;
        state->WindowEnd = Layout.WindowBase + Map.WindowSize;
        state->WindowPhysical = Map.WindowPhysical;
        state->PoolStart = Layout.PoolPhysical;
        state->PoolNext = Layout.PoolPhysical;
        state->PoolReady = Layout.PoolPhysical;
        state->PoolEnd = FaultInjection.Frames == 0 ? Map.PoolEnd : Layout.PoolPhysical + (FaultInjection.Frames * Layout.PageSize);
        state->Epoch = 1;
        state->SegmentBases = HasFsGsBase ? 1 : 0;
        state->AheadGrowth = AheadGrowthParavirtual;
        state->AheadMost = AheadMostParavirtual;
        state->AheadDense = AheadDense;
        state->RateDense = DenseParavirtual;
        state->CopyReadsAfter = CopyReadsAfter;
        state->FaultsToCopy = FaultsToCopy;
        state->VcpuAreas = Layout.KernelBase + Layout.VcpuOffset;
        state->SlotBitmap = (ulong*)(Layout.KernelBase + SlotBitmapOffset);
        state->RegionGigabytes = (ulong*)(Layout.KernelBase + RegionBitmapOffset);
        state->RegionWrites = (RegionWrite*)(MainSpace.KernelBuffer + MainSpace.KernelBufferBytes);
        state->KeptTables = (KeptTable*)(state->RegionWrites + (2 * KernelState.RegionWriteCapacity));
        state->KeptTableMask = KernelState.KeptTableCapacity - 1;
        state->Spaces = (Space*)(Layout.KernelBase + SpacesOffset);

        var frames = Layout.KernelBase + Layout.TableOffset;
        var links = Align(frames + (Map.PoolSize / Layout.PageSize * (ulong)sizeof(FrameInfo)));
        var tablePages = (Layout.KernelBase + Map.KernelSize - links) / (Layout.PageSize + sizeof(ulong));
        state->Frames = (FrameInfo*)frames;
        state->TableLinks = (ulong*)links;
        state->TableStart = Align(links + (tablePages * sizeof(ulong)));
        state->TableNext = state->TableStart;
        state->TableEnd = Layout.KernelBase + Map.KernelSize;
        for (var i = 0; i < Layout.MaxSpaces; i++)
            state->Spaces[i].Vmas = (Vma*)(Layout.KernelBase + Layout.VmaOffset + ((ulong)i * Layout.MaxVmas * Vma.Size));

        LoadImage();
        BuildTables(state);
        KernelEntry.Initialize(state);
        Slots.Add(Map.KernelPhysical, Layout.KernelBase, Map.KernelSize);
        if (Vdso is { } vdso)
            Slots.Add(Layout.VdsoPhysical, vdso.Start, vdso.End - vdso.Start);
        Kernel = new KernelCalls(Image);
    }

    private void LoadImage()
    {
        var address = Layout.KernelBase + Layout.ImageOffset;
        var (code, symbols) = KernelImports.Assemble(address);
        (TryCopy, TryCopyFailed) = (symbols[KernelImports.TryCopy], symbols[KernelImports.TryCopyFailed]);
        code.CopyTo(new Span<byte>((void*)address, code.Length));
        const ulong importsRoom = 0x1000;
        Image = KernelImage.Load(address + importsRoom, symbols);
        if ((ulong)Image.Bytes.Length > Layout.VcpuOffset - Layout.ImageOffset - importsRoom)
            throw new InvalidOperationException($"the kernel image has {Image.Bytes.Length} bytes, more than its place holds");
        Image.Bytes.CopyTo(new Span<byte>((void*)(address + importsRoom), Image.Bytes.Length));
    }

    private void BuildTables(KernelState* state)
    {
        var tables = new BootTables(state);
        var executableEnd = Layout.VcpuOffset + (Layout.MaxVcpus * Layout.VcpuStride);
        tables.MapLarge(Layout.KernelBase, Map.KernelPhysical, executableEnd, execute: true);
        tables.MapLarge(Layout.KernelBase + executableEnd, Map.KernelPhysical + executableEnd, Map.KernelSize - executableEnd, execute: false);
        tables.MapPage(Layout.DoorbellVirtual, Layout.DoorbellPhysical, write: true, execute: false);
        const ulong directoryPointersSpan = 512 * Layout.Gigabyte;
        for (ulong physical = 0; physical < Map.PhysicalEnd; physical += directoryPointersSpan)
        {
            var made = tables.MakeDirectoryPointers(Layout.DirectBase + physical);
            if (physical == 0)
                state->DirectTables = made;
        }

        Vdso = Vdso.Find();
        if (Vdso is { } vdso)
        {
            for (var page = vdso.Start; page < vdso.End; page += Layout.PageSize)
                tables.MapPage(page, Layout.VdsoPhysical + (page - vdso.Start), write: false, execute: page >= vdso.ImageBase);
        }

        state->TemplateRoot = tables.Root;
    }

    private Vcpu CreateVcpu(int index)
    {
        _stubs ??= VcpuStubs.Assemble(0, Image.Symbol("privy_page_fault"));
        var stubs = index == 0 ? _stubs : _stubs.MovedTo(index);
        var area = VcpuLayout.AreaOf(index);
        stubs.Code.CopyTo(new Span<byte>((void*)(area + VcpuLayout.Code), stubs.Code.Length));
        DescriptorTables.Write(area, stubs);
        var shared = (VcpuArea*)area;
        shared->Kernel = State;
        shared->Index = index;
        shared->CopyRip = stubs.Syscall.Copy;
        shared->Trap = (TrapFrame*)VcpuLayout.TrapOf(area);
        shared->Registers = (ulong*)(area + VcpuLayout.StackTop) - 16;
        if (_directFaults)
            DescriptorTables.UseDirectFaults(area, stubs);

        var cpu = _vm.CreateVcpu(index);
        var cpuid = (CpuidEntry[])_cpuid.Clone();
        foreach (ref var entry in cpuid.AsSpan())
        {
            const uint osxsave = 1 << 27;
            if (entry.Function == 1)
                entry.Ecx |= osxsave;
        }

        cpu.SetCpuid(cpuid);
        cpu.SetXcr0(_xcr0);
        cpu.TryClearTscOffset();
        if (State->RateWindow == 0)
            State->RateWindow = cpu.TscKilohertz is > 0 and var cycles ? (ulong)cycles : UnknownTscKilohertz;
        cpu.SetMsrs([
            new MsrEntry { Index = 0xC000_0081, Data = ((ulong)Selectors.UserCode32 << 48) | ((ulong)Selectors.KernelCode << 32) }, // STAR
            new MsrEntry { Index = 0xC000_0082, Data = stubs.Syscall.Entry }, // LSTAR
            new MsrEntry { Index = 0xC000_0084, Data = 0x4_7700 }, // FMASK: TF, IF, DF, IOPL, NT, AC
        ]);
        return new Vcpu(this, cpu, stubs, shared);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static ulong Align(ulong value) => (value + Layout.PageSize - 1) & ~(Layout.PageSize - 1);
}
