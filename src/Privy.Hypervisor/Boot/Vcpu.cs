using Privy.Hypervisor.Diagnostics;
using Privy.Hypervisor.Host;
using Privy.Kernel;
using Privy.Kvm;

namespace Privy.Hypervisor.Boot;

/// <summary>Why a vCPU came back to its thread, always at a boundary where the program's registers are known.</summary>
internal enum VcpuExit
{
    /// <summary>The program executed SYSCALL; its registers stand after the instruction.</summary>
    Syscall,

    /// <summary>Somebody wanted the vCPU (<see cref="Vcpu.RequestExit"/>).</summary>
    Kicked,

    /// <summary>A page fault the kernel could not resolve; see <see cref="VcpuArea.FaultAddress"/>.</summary>
    Fault,

    /// <summary>Another exception; see <see cref="Vcpu.Vector"/>.</summary>
    Exception,

    /// <summary>The host has no memory behind an address that the guest maps (a file cut short under a mapping).</summary>
    HostFault,
}

/// <summary>One vCPU with its area: entering the program, coming back from it, and calling the kernel.</summary>
internal sealed unsafe class Vcpu
{
    private const uint UserFlagsFixed = 0x202; // bit 1 is always set; IF as Linux programs see it
    private const ulong ResumeFlag = 1UL << 16;
    private const ulong SyscallLength = 2;

    private readonly Machine _machine;
    private readonly ulong _base;
    private GuestRegisters _user;
    private bool _ring0;
    private bool _isMarked;
    private bool _userDirty;
    private ulong _cr3;
    private bool _userBoundary = true;
    private bool _systemKnown;

    internal Vcpu(Machine machine, VirtualCpu cpu, VcpuStubs stubs, VcpuArea* area)
    {
        _machine = machine;
        Cpu = cpu;
        Stubs = stubs;
        Area = area;
        _base = (ulong)area;
        Ring = (SyscallRing*)(_base + VcpuLayout.Ring);
    }

    internal VirtualCpu Cpu { get; }

    internal VcpuStubs Stubs { get; }

    internal VcpuArea* Area { get; }

    /// <inheritdoc cref="Machine.SyscallEntersRing0"/>
    internal bool SyscallEntersRing0 => _machine.SyscallEntersRing0;

    /// <summary>How system calls travel without an exit.</summary>
    internal SyscallRing* Ring { get; }

    /// <summary>
    /// Where its system-call stub collects small writes; 0: nowhere. Not where the stub runs in ring 0: there it cannot take page faults, and an exit is cheap.
    /// </summary>
    internal ulong WriteBuffer => Area->Index >= Layout.WriteBuffers || SyscallEntersRing0
        ? 0
        : Layout.KernelBase + Layout.WriteBufferOffset + ((ulong)Area->Index * Layout.WriteBufferSize);

    /// <summary>Thread id of the host thread that runs the vCPU; 0: none.</summary>
    internal int HostThreadId { get; set; }

    /// <summary>The program's registers. Valid while the vCPU is out of the guest; changes are taken over by the next entry.</summary>
    internal ref GuestRegisters User
    {
        get
        {
            _userDirty = true;
            return ref _user;
        }
    }

    /// <summary>Where the program stands.</summary>
    internal ulong Rip => _user.Rip;

    /// <summary>Vector of the last <see cref="VcpuExit.Exception"/>.</summary>
    internal int Vector { get; private set; }

    /// <summary>Error code of it.</summary>
    internal ulong ErrorCode { get; private set; }

    /// <summary>Exits by cause, for statistics.</summary>
    internal ExitCounters Counters { get; } = new();

    /// <summary>The last exits, for the diagnosis of a defect.</summary>
    internal ExitLog Log { get; } = new();

    /// <summary>CR3 as it was last set.</summary>
    internal ulong RootSet => _cr3;

    /// <summary>Sets the vCPU up to start a thread of the program at CPL 3.</summary>
    internal void Start(in GuestRegisters registers, ulong fsBase, ulong gsBase, int space)
    {
        Area->Space = space;
        Area->FlushPending = 0;
        Area->ExitRequest = 0;
        Area->InGuest = 0;
        *Ring = new SyscallRing { BufferedDescriptor = -1, ReadyEpoll = -1 };
        var root = _machine.State->Spaces[space].Root;
        SetUserSystemRegisters(space, fsBase, gsBase);
        Area->LoadedRoot = root;
        _ring0 = false;
        _isMarked = false;
        _userBoundary = true;
        _user = registers;
        _userDirty = true;
    }

    /// <summary>
    /// Takes the vCPU out of its space: from now on it runs the kernel alone, on the template root. That root is never freed, so
    /// neither the end of the space nor a snapshot of main, which replaces main's root, can pull the tables from under it.
    /// </summary>
    internal void LeaveSpace() => Area->Space = Layout.NoSpace;

    /// <summary>Makes the vCPU come to a boundary soon: it returns from <see cref="Run"/>, or does not enter.</summary>
    internal void RequestExit()
    {
        Interlocked.Or(ref Area->ExitRequest, ExitReason.Host);
        Kick();
    }

    /// <summary>Makes the vCPU leave the guest if it is in it, at whatever instruction.</summary>
    internal void Kick()
    {
        Interlocked.MemoryBarrier();
        if (Volatile.Read(ref Area->InGuest) == 0)
            return;
        Volatile.Write(ref Cpu.Run->ImmediateExit, 1);
        HostThread.Kick(HostThreadId);
    }

    /// <summary>
    /// Kicks the vCPU and waits until it cannot execute another instruction of the guest before its next entry, which flushes if
    /// <see cref="VcpuArea.FlushPending"/> is set.
    /// </summary>
    /// <remarks>
    /// That need not mean to wait until its thread has come out, which may have to wait for a processor itself. Once the kick's signal is pending,
    /// KVM leaves the guest instead of entering it (Documentation/virt/kvm/vcpu-requests.rst); a thread that is in the guest now leaves it for the
    /// barrier's interrupt and finds the signal on the way back; one that does not run finds it when it does.
    /// </remarks>
    internal void KickAndWait()
    {
        Kick();
        if (ThreadBarrier.IsAvailable)
        {
            if (Volatile.Read(ref Area->InGuest) != 0)
                ThreadBarrier.Pass();
            return;
        }

        var spinner = default(SpinWait);
        while (Volatile.Read(ref Area->InGuest) != 0 && Volatile.Read(ref Area->FlushPending) != 0)
            spinner.SpinOnce(sleep1Threshold: 200);
    }

    /// <summary>Bases of the program's FS and GS segments; programs may have changed them themselves (WRFSBASE).</summary>
    internal (ulong Fs, ulong Gs) Bases => (SystemRegisters.Fs.Base, _isMarked && SystemRegisters.Gs.Base == _base ? 0 : SystemRegisters.Gs.Base);

    internal void SetFsBase(ulong value)
    {
        SystemRegisters.Fs.Base = value;
        Cpu.MarkSystemRegistersDirty();
    }

    internal void SetGsBase(ulong value)
    {
        SystemRegisters.Gs.Base = _isMarked && value == 0 ? _base : value;
        Cpu.MarkSystemRegistersDirty();
    }

    /// <summary>
    /// Lets trampolines know this vCPU (<see cref="Sites.Trampoline"/>): as long as the program has no base of GS, that is the vCPU's area. False: the program cannot read it, whatever CPUID
    /// says, since ring 3 may run with the host's CR4.
    /// </summary>
    /// <param name="probe">Code that reads it into rdx and makes a call that no stub answers.</param>
    internal bool TryMark(ulong probe)
    {
        var gs = Bases.Gs;
        if (gs != 0)
            return false;
        _isMarked = true;
        SetGsBase(0);
        var user = _user;
        User = new GuestRegisters { Rip = probe, Rsp = user.Rsp };
        VcpuExit exit;
        while ((exit = Run()) == VcpuExit.Kicked)
            _ = Interlocked.And(ref Area->ExitRequest, 0);
        _isMarked = exit == VcpuExit.Syscall && _user.Rdx == _base;
        if (!_isMarked)
            SetGsBase(0);
        User = user;
        // Whoever wanted the vCPU meanwhile still does.
        _ = Interlocked.Or(ref Area->ExitRequest, ExitReason.Host);
        return _isMarked;
    }

    /// <summary>Segment and control registers, in the run page. An ioctl on a vCPU costs some microseconds, so one reads them at most and none writes them.</summary>
    private ref SystemRegisters SystemRegisters
    {
        get
        {
            if (!_systemKnown)
            {
                Cpu.SystemRegisters = Cpu.GetSystemRegisters();
                _systemKnown = true;
            }

            return ref Cpu.SystemRegisters;
        }
    }

    /// <summary>Runs the program until something needs the thread.</summary>
    internal VcpuExit Run()
    {
        if (_userDirty)
            ApplyUser();
        while (true)
        {
            if (!TryEnter(out var errno))
                return VcpuExit.Kicked;

            var run = Cpu.Run;
            if (errno != 0)
            {
                if (errno is not Errno.EINTR and not Errno.EAGAIN)
                {
                    if (errno == Errno.EFAULT && LeaveBufferedWrite(run->Registers.Rip, failed: true))
                        return VcpuExit.Kicked;
                    if (errno == Errno.EFAULT && !InKernel(run->Registers.Rip))
                    {
                        Capture(run->Registers.Rip, run->Registers.Rflags, ring0: false);
                        return VcpuExit.HostFault;
                    }

                    if (errno == Errno.EFAULT && SkipFailedCopy())
                        continue;
                    throw Defect($"KVM_RUN failed with errno {errno}");
                }

                if (AtBoundaryAfterKick())
                    return VcpuExit.Kicked;
                continue;
            }

            if (run->ExitReason == KvmExit.Interrupted)
            {
                if (AtBoundaryAfterKick())
                    return VcpuExit.Kicked;
                continue;
            }

            switch (Doorbell(run))
            {
                case Layout.DoorbellSyscall:
                    Counters.Syscalls++;
                    _machine.ProbeSyscall(this);
                    Capture(run->Registers.Rcx, run->Registers.R11, _machine.SyscallEntersRing0);
                    return VcpuExit.Syscall;
                case Layout.DoorbellHost:
                    _machine.Serve(this);
                    break;
                case Layout.DoorbellUserExit:
                    Counters.KernelExits++;
                    return LeaveHandler();
                case >= Layout.DoorbellException and var bell:
                    Counters.Exceptions++;
                    return LeaveException((int)((bell - Layout.DoorbellException) / 8));
                default:
                    throw Defect($"unknown doorbell 0x{run->MmioAddress:x}");
            }
        }
    }

    /// <summary>
    /// Runs a function of the kernel on this vCPU, as <see cref="CallKernel"/> does, which replaces the root: the next entry loads another, and segments and control registers
    /// come with the exit.
    /// </summary>
    internal long CallKernelForRoot(ulong function, ulong a0 = 0, ulong a1 = 0, ulong a2 = 0, ulong a3 = 0)
    {
        Cpu.LeavesSystemRegisters = true;
        try
        {
            return CallKernel(function, a0, a1, a2, a3);
        }
        finally
        {
            Cpu.LeavesSystemRegisters = false;
        }
    }

    /// <summary>Runs a function of the kernel on this vCPU, which must be at a boundary; other threads go on.</summary>
    internal long CallKernel(ulong function, ulong a0 = 0, ulong a1 = 0, ulong a2 = 0, ulong a3 = 0)
    {
        Counters.KernelCalls++;
        if (!_userDirty)
            _userDirty = true;
        ref var registers = ref Cpu.Registers;
        registers = default;
        registers.Rax = function;
        registers.Rdi = (ulong)Area;
        registers.Rsi = a0;
        registers.Rdx = a1;
        registers.Rcx = a2;
        registers.R8 = a3;
        registers.Rip = Stubs.Call;
        registers.Rsp = _base + VcpuLayout.StackTop;
        registers.Rflags = 2;
        Cpu.MarkRegistersDirty();
        _userBoundary = false;
        while (true)
        {
            TryEnter(out var errno);
            if (errno is Errno.EINTR or Errno.EAGAIN || (errno == 0 && Cpu.Run->ExitReason == KvmExit.Interrupted))
                continue;
            if (errno == Errno.EFAULT && SkipFailedCopy())
                continue;
            if (errno != 0)
                throw Defect($"KVM_RUN failed with errno {errno} in a kernel call");
            switch (Doorbell(Cpu.Run))
            {
                case Layout.DoorbellCallDone:
                    _userBoundary = true;
                    return (long)Area->CallResult;
                case Layout.DoorbellHost:
                    _machine.Serve(this);
                    break;
                default:
                    throw Defect($"doorbell 0x{Cpu.Run->MmioAddress:x} in a kernel call");
            }
        }
    }

    /// <summary>Registers and the last exits, for a defect of Privy itself.</summary>
    internal InvalidOperationException Defect(string what) => new($"{what}\n{Diagnostics.Describe(this)}");

    internal bool InKernel(ulong rip) => rip - Layout.KernelBase < _machine.Map.KernelSize;

    /// <summary>
    /// The kernel copies a page of the program that the host has no memory for (a file cut short under its mapping): its copy has failed,
    /// and the kernel goes on with that.
    /// </summary>
    private bool SkipFailedCopy()
    {
        if (Cpu.Registers.Rip != _machine.TryCopy)
            return false;
        Cpu.Registers.Rip = _machine.TryCopyFailed;
        Cpu.MarkRegistersDirty();
        return true;
    }

    private bool TryEnter(out int errno)
    {
        errno = 0;
        var run = Cpu.Run;
        run->ImmediateExit = 0;
        Volatile.Write(ref Area->InGuest, 1);
        // The other side sets its word and then looks at InGuest; each must see the other's store (design, section 4, TLB).
        Interlocked.MemoryBarrier();
        if (_userBoundary && Volatile.Read(ref Area->ExitRequest) != 0)
        {
            Volatile.Write(ref Area->InGuest, 0);
            return false;
        }

        var root = Area->Space == Layout.NoSpace ? _machine.State->TemplateRoot : _machine.State->Spaces[Area->Space].Root;
        if (Volatile.Read(ref Area->FlushPending) != 0 || Area->LoadedRoot != root)
            LoadRoot(root);
        if (FaultInjection.Fails(FaultPoint.Entry))
            run->ImmediateExit = 1;
        Log.Enter(run->Registers.Rip);
        errno = Cpu.Enter();
        Volatile.Write(ref Area->InGuest, 0);
        _systemKnown = Cpu.LeavesSystemRegisters;
        _userBoundary = false;
        Log.Exit(run->ExitReason, errno, run->MmioAddress, run->Registers.Rip);
        return true;
    }

    private void LoadRoot(ulong root)
    {
        Counters.RootLoads++;
        Volatile.Write(ref Area->FlushPending, 0);
        Area->LoadedRoot = root;
        SystemRegisters.Cr3 = _cr3 = OtherRoot(Area->Space, _cr3);
        Cpu.MarkSystemRegistersDirty();
    }

    /// <summary>
    /// The root of a space, or its alias: loading the same CR3 again would flush nothing, though roots are used again and the
    /// number may have stood for another tree the last time.
    /// </summary>
    private ulong OtherRoot(int space, ulong loaded)
    {
        if (space == Layout.NoSpace)
            return _machine.State->TemplateRoot; // never another tree, and its entries are only ever added
        ref var target = ref _machine.State->Spaces[space];
        return loaded == target.Root ? target.AliasRoot : target.Root;
    }

    private ulong Doorbell(RunPage* run)
    {
        if (run->ExitReason != KvmExit.Mmio || run->MmioIsWrite == 0 || run->MmioAddress - Layout.DoorbellPhysical >= Layout.PageSize)
            throw Defect($"unexpected exit: {KvmExit.Name(run->ExitReason)} 0x{run->MmioAddress:x}");
        return run->MmioAddress - Layout.DoorbellPhysical;
    }

    private void Capture(ulong rip, ulong flags, bool ring0)
    {
        _user = Cpu.Registers;
        _user.Rip = rip;
        // RF may be left set by an exit in mid-instruction; the program never sees it.
        _user.Rflags = flags & ~ResumeFlag;
        _ring0 = ring0;
        _userDirty = false;
        _userBoundary = true;
    }

    private void ApplyUser()
    {
        _userDirty = false;
        ref var registers = ref Cpu.Registers;
        registers = _user;
        registers.Rflags |= UserFlagsFixed;
        if (_ring0)
        {
            // SYSRET to an address that is not canonical faults in ring 0 on the program's stack on Intel (SDM vol. 2B, SYSRET);
            // IRETQ faults on its own frame, see LeaveException.
            if (_user.Rcx == _user.Rip && _user.R11 == registers.Rflags && _user.Rip < 1UL << 47)
            {
                registers.Rip = Stubs.Syscall.Return;
                registers.Rflags = 2;
            }
            else
            {
                var frame = (ulong*)(_base + VcpuLayout.ReturnFrame);
                frame[0] = _user.Rip;
                frame[1] = Selectors.UserCode;
                frame[2] = registers.Rflags;
                frame[3] = _user.Rsp;
                frame[4] = Selectors.UserData;
                registers.Rip = Stubs.InterruptReturn;
                registers.Rsp = (ulong)frame;
                registers.Rflags = 2;
            }
        }

        Cpu.MarkRegistersDirty();
        _userBoundary = true;
    }

    /// <summary>After a kick: true when the program's registers are at hand; false when the kernel must first come to its end.</summary>
    private bool AtBoundaryAfterKick()
    {
        Counters.Kicks++;
        ref var registers = ref Cpu.Registers;
        var rip = registers.Rip;
        if (!InKernel(rip))
        {
            // The kick may have come when KVM had a page fault of the program in hand: at the next entry it would hit whatever runs by then, a
            // kernel call or a signal handler. Taken back, it comes again with its instruction; a trap would not, so that one goes on first.
            switch (Cpu.PendingException)
            {
                case -1:
                    break;
                case 1 or 3 or 4:
                    return false;
                default:
                    Cpu.DropPendingException();
                    break;
            }

            Capture(rip, registers.Rflags, ring0: false);
            return true;
        }

        if (Stubs.Syscall.Locate(rip) is not StubPosition.Outside and var position)
        {
            LeaveSyscallStub(position);
            return true;
        }

        if (rip == Stubs.Syscall.Return)
        {
            Capture(registers.Rcx, registers.R11, ring0: true);
            return true;
        }

        if (rip == Stubs.InterruptReturn)
        {
            var frame = (ulong*)(_base + VcpuLayout.ReturnFrame);
            var rsp = frame[3];
            Capture(frame[0], frame[2], ring0: true);
            _user.Rsp = rsp;
            _userDirty = true;
            return true;
        }

        if (rip > Stubs.FaultCheck && rip <= Stubs.FaultReturn)
        {
            registers.Rip = Stubs.FaultCheck;
            Cpu.MarkRegistersDirty();
        }

        return false;
    }

    /// <summary>A kick hit the system-call stub: the call either has its result, or the program executes SYSCALL again.</summary>
    private void LeaveSyscallStub(StubPosition position)
    {
        // This may be the first SYSCALL of all.
        _machine.ProbeSyscall(this);
        ref var registers = ref Cpu.Registers;
        // The one instruction of the stub that touches the program's memory: as in the program, a page fault of it that KVM has in hand would hit what runs next.
        if (registers.Rip == Stubs.Syscall.Copy && Cpu.PendingException >= 0)
            Cpu.DropPendingException();
        if (position == StubPosition.Posted)
            position = Settle();
        var (rip, flags, result, stack, rdi, rsi) = (registers.Rcx, registers.R11, registers.Rax, registers.Rsp, registers.Rdi, registers.Rsi);
        switch (position)
        {
            case StubPosition.Buffering:
                (rip, flags, rdi, rsi) = (Ring->Rip - SyscallLength, Ring->Flags, Ring->A0, Ring->A1);
                break;
            case StubPosition.Buffered:
                (rip, flags, rdi, rsi, result) = (Ring->Rip, Ring->Flags, Ring->A0, Ring->A1, registers.Rdx);
                break;
            case StubPosition.Fetched:
                (rip, flags, rdi, rsi, result) = (Ring->Rip, Ring->Flags, Ring->A0, Ring->A1, (ulong)Ring->Result);
                break;
            case StubPosition.Done:
                (rip, flags, result) = (Ring->Rip, Ring->Flags, (ulong)Ring->Result);
                break;
            case StubPosition.Restoring:
                (rip, flags, result) = (Ring->Rip - SyscallLength, Ring->Flags, Ring->Number);
                break;
            case StubPosition.Begun:
                rip -= SyscallLength;
                break;
            case StubPosition.LeavingOnOwnStack:
                stack = Ring->StackPointer;
                break;
        }

        Ring->State = RingState.Idle;
        Capture(rip, flags, _machine.SyscallEntersRing0);
        _user.Rax = result;
        // As SYSCALL leaves them, not as the stub does.
        _user.Rcx = rip;
        _user.R11 = flags;
        _user.Rsp = stack;
        _user.Rdi = rdi;
        _user.Rsi = rsi;
        _userDirty = true;
    }

    /// <summary>
    /// The program's bytes could not be read for a buffered write, or its thread is wanted while they are: SYSCALL is executed again. The host, which
    /// then makes the call, says what is wrong with the address.
    /// </summary>
    private bool LeaveBufferedWrite(ulong rip, bool failed)
    {
        if (Stubs.Syscall.Locate(rip) != StubPosition.Buffering)
            return false;
        if (failed)
        {
            Ring->ForgetBuffered((int)Ring->A0);
            Ring->ForgetFetched((int)Ring->A0);
        }

        LeaveSyscallStub(StubPosition.Buffering);
        return true;
    }

    /// <summary>Takes a posted call back, or waits for the poller, which never blocks.</summary>
    private StubPosition Settle()
    {
        var spinner = default(SpinWait);
        while (true)
        {
            switch (Interlocked.CompareExchange(ref Ring->State, RingState.Idle, RingState.Posted))
            {
                case RingState.Claimed:
                    spinner.SpinOnce(sleep1Threshold: -1);
                    break;
                case RingState.Done:
                    return StubPosition.Done;
                default:
                    return StubPosition.Restoring;
            }
        }
    }

    private VcpuExit LeaveHandler()
    {
        var trap = Area->Trap;
        var fault = (Interlocked.And(ref Area->ExitRequest, ~ExitReason.Fault) & ExitReason.Fault) != 0;
        Cpu.Registers.Rsp = trap->Rsp;
        if (LeaveBufferedWrite(trap->Rip, fault))
            return VcpuExit.Kicked;
        Capture(trap->Rip, trap->Rflags, ring0: false);
        _user.Rsp = trap->Rsp;
        _userDirty = true;
        return fault ? VcpuExit.Fault : VcpuExit.Kicked;
    }

    private VcpuExit LeaveException(int vector)
    {
        Vector = vector;
        var frame = (ulong*)Cpu.Registers.Rsp;
        var hasErrorCode = vector is 8 or (>= 10 and <= 14) or 17 or 21;
        ErrorCode = hasErrorCode ? *frame++ : 0;
        if (frame[0] == Stubs.InterruptReturn)
        {
            // The program's own registers do not suit IRETQ (an address that is not canonical): the fault is the program's.
            frame = (ulong*)(_base + VcpuLayout.ReturnFrame);
        }

        var stack = frame[3];
        if (Stubs.Syscall.Locate(frame[0]) == StubPosition.Buffering)
        {
            // An address that is not canonical.
            Cpu.Registers.Rsp = stack;
            LeaveBufferedWrite(frame[0], failed: true);
            return VcpuExit.Kicked;
        }

        if (InKernel(frame[0]))
            throw Defect($"exception {vector} (error code 0x{ErrorCode:x}) in the kernel at 0x{frame[0]:x}");
        Capture(frame[0], frame[2], ring0: true);
        _user.Rsp = stack;
        _userDirty = true;
        return VcpuExit.Exception;
    }

    private void SetUserSystemRegisters(int space, ulong fsBase, ulong gsBase)
    {
        // Start from what KVM gives a vCPU, so that fields unknown here (APIC base) keep their values.
        ref var value = ref SystemRegisters;
        var data = new Segment { Limit = 0xFFFF_FFFF, Selector = Selectors.UserData, Type = 3, Present = 1, Dpl = 3, Db = 1, S = 1, G = 1 };
        value.Cs = new Segment { Limit = 0xFFFF_FFFF, Selector = Selectors.UserCode, Type = 11, Present = 1, Dpl = 3, S = 1, L = 1, G = 1 };
        value.Ds = value.Es = value.Ss = data;
        value.Fs = value.Gs = data with { Selector = 0 };
        value.Fs.Base = fsBase;
        value.Gs.Base = gsBase;
        value.Tr = new Segment { Base = _base + VcpuLayout.Tss, Limit = DescriptorTables.TssLimit, Selector = Selectors.TaskState, Type = 11, Present = 1 };
        value.Ldt = new Segment { Unusable = 1 };
        value.Gdt = new DescriptorTable { Base = _base + VcpuLayout.Gdt, Limit = DescriptorTables.GdtLimit };
        value.Idt = new DescriptorTable { Base = _base + VcpuLayout.Idt, Limit = DescriptorTables.IdtLimit };
        const ulong fsgsbase = 1 << 16;
        value.Cr0 = 0x8005_0033; // PE MP ET NE WP AM PG
        value.Cr4 = 0x4_0620 | (_machine.HasFsGsBase ? fsgsbase : 0); // PAE OSFXSR OSXMMEXCPT OSXSAVE
        value.Cr3 = _cr3 = OtherRoot(space, value.Cr3);
        value.Efer = 0xD01; // SCE LME LMA NXE
        Cpu.MarkSystemRegistersDirty();
    }
}
