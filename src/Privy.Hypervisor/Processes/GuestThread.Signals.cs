using Iced.Intel;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Memory;
using Privy.Hypervisor.Signals;
using Privy.Hypervisor.Syscalls;
using Privy.Kernel;
using Privy.Kvm;

namespace Privy.Hypervisor.Processes;

/// <summary>Signals of a thread: faults become signals, handlers run before the program goes on (<see cref="ISignalContext"/>).</summary>
internal sealed unsafe partial class GuestThread : ISignalContext
{
    private SignalSet _firstMask;
    private AlternateStack _firstStack = AlternateStack.None;
    private TrapDetails _trap;
    private bool _mustLook;

    /// <inheritdoc/>
    public ThreadSignals ThreadSignals { get; private set; } = null!;

    /// <inheritdoc/>
    public ProcessSignals ProcessSignals => Process.Signals;

    /// <inheritdoc/>
    public int UserId => (int)HostSyscall.RawQuick(SyscallNumber.getuid);

    /// <inheritdoc/>
    public ref GuestRegisters Registers => ref Vcpu.User;

    /// <inheritdoc/>
    public long CallNumber { get; set; } = -1;

    /// <inheritdoc/>
    public IProcessDirectory Processes => Process.Table;

    /// <inheritdoc/>
    public ulong XsaveFeatures => Machine.XsaveFeatures;

    /// <inheritdoc/>
    public int XsaveLength => Machine.XsaveLength;

    TrapDetails ISignalContext.Trap => _trap;

    /// <summary>Signals blocked in this thread.</summary>
    internal SignalSet SignalMask => ThreadSignals.Mask;

    /// <inheritdoc/>
    public void RaiseSigpipe() => ProcessSignals.Send(SignalInfo.FromProcess(Signal.SIGPIPE, 0, Process.Id, UserId), ThreadSignals);

    /// <inheritdoc/>
    public void SetTemporarySignalMask(ulong mask)
    {
        _mustLook = true;
        ThreadSignals.BeginTemporaryMask(new SignalSet(mask));
    }

    /// <inheritdoc/>
    public void GetXsave(Span<byte> destination)
    {
        XsaveArea area;
        Vcpu.Cpu.GetXsave(&area);
        new ReadOnlySpan<byte>(&area, Math.Min(destination.Length, XsaveArea.Length)).CopyTo(destination);
    }

    /// <inheritdoc/>
    public void SetXsave(ReadOnlySpan<byte> source)
    {
        XsaveArea area;
        Vcpu.Cpu.GetXsave(&area);
        source[..Math.Min(source.Length, XsaveArea.Length)].CopyTo(new Span<byte>(&area, XsaveArea.Length));
        Vcpu.Cpu.SetXsave(&area);
    }

    /// <inheritdoc/>
    public void StopProcess(int signal) => Process.Stop(signal, this);

    /// <summary>Sets the signals a new thread begins with: its parent's mask, and in a forked child its alternate stack.</summary>
    internal void InheritSignals(GuestThread parent)
    {
        _firstMask = parent.ThreadSignals.Mask;
        if (parent.Process != Process)
            _firstStack = parent.ThreadSignals.AlternateStack;
    }

    /// <summary>Sets the mask of the first thread.</summary>
    internal void InheritSignals(SignalSet mask) => _firstMask = mask;

    /// <summary>The next return to the program looks at the queues, even if nobody woke the thread.</summary>
    internal void LookAtSignals() => _mustLook = true;

    private void JoinSignals()
    {
        ThreadSignals = new ThreadSignals(Process.Signals, ThreadId, _firstMask, Wake) { AlternateStack = _firstStack };
    }

    /// <summary>Delivers what is pending. False: the process ends.</summary>
    private bool DeliverSignals()
    {
        if (!_mustLook && !ThreadSignals.HasDeliverable)
            return true;
        _mustLook = false;
        var result = SignalDelivery.BeforeReturn(this);
        if (result.Outcome == DeliveryOutcome.Resume)
            return true;
        const int core = 0x80;
        Process.BeginExit(result.Signal | (result.Outcome == DeliveryOutcome.TerminateWithCore ? core : 0), this);
        return false;
    }

    private void BeginCall(long number) => CallNumber = number;

    private void EndCall(long result)
    {
        // rt_sigreturn and execve have set all registers, and say so by the number.
        if (CallNumber < 0)
            return;
        // "Interrupted" in the words of SyscallRestart: EINTR once the kernel was entered, ERESTARTSYS when it was not.
        result = result switch
        {
            -Errno.ERESTARTSYS => -Errno.EINTR,
            -Errno.ERESTARTNOINTR => -Errno.ERESTARTSYS,
            _ => result,
        };
        Vcpu.User.Rax = (ulong)result;
        _mustLook |= SyscallRestart.IsInterrupted(result);
    }

    private void RaiseFault()
    {
        var area = Vcpu.Area;
        _trap = new TrapDetails(14, area->FaultError, area->FaultAddress);
        Force(area->FaultCode == FaultCode.NoMemory
            ? SignalInfo.FromFault(Signal.SIGBUS, 2, area->FaultAddress)
            : SignalInfo.FromFault(Signal.SIGSEGV, area->FaultCode, area->FaultAddress));
    }

    private void RaiseHostFault()
    {
        // KVM does not say which address it was. The instruction does.
        const int busAddressError = 2;
        var address = FaultingOperand();
        _trap = new TrapDetails(14, 4, address);
        Force(SignalInfo.FromFault(Signal.SIGBUS, busAddressError, address));
    }

    private void RaiseException()
    {
        var rip = Vcpu.User.Rip;
        _trap = new TrapDetails((ulong)Vcpu.Vector, Vcpu.ErrorCode, 0);
        Force(Vcpu.Vector switch
        {
            0 => SignalInfo.FromFault(Signal.SIGFPE, 1, rip), // FPE_INTDIV
            1 => SignalInfo.FromFault(Signal.SIGTRAP, 2, rip), // TRAP_TRACE
            3 => SignalInfo.FromKernel(Signal.SIGTRAP),
            6 => SignalInfo.FromFault(Signal.SIGILL, 2, rip), // ILL_ILLOPN
            16 or 19 => SignalInfo.FromFault(Signal.SIGFPE, 7, rip), // FPE_FLTINV
            12 or 17 => SignalInfo.FromFault(Signal.SIGBUS, 1, 0), // BUS_ADRALN
            _ => SignalInfo.FromKernel(Signal.SIGSEGV),
        });
    }

    private void Force(in SignalInfo info)
    {
        CallNumber = -1;
        _mustLook = true;
        ProcessSignals.Force(info, ThreadSignals);
    }

    private ulong FaultingOperand()
    {
        var code = new byte[15];
        var rip = Vcpu.User.Rip;
        var length = code.Length;
        while (length > 0 && !TryRead(rip, code.AsSpan(0, length)))
            length--;
        var decoder = Decoder.Create(64, new ByteArrayCodeReader(code, 0, length), rip);
        decoder.Decode(out var instruction);
        for (var i = 0; i < instruction.OpCount; i++)
        {
            if (instruction.GetOpKind(i) is OpKind.Memory or OpKind.MemorySegRSI or OpKind.MemoryESRDI
                && instruction.TryGetVirtualAddress(i, 0, out var address, RegisterValue)
                && Space.Mappings.Find(address) is { HostTag: var tag } && (tag & VmaTag.File) != 0)
                return address;
        }

        return rip;
    }

    private bool RegisterValue(Register register, int index, int size, out ulong value)
    {
        ref var r = ref Vcpu.User;
        value = register.GetFullRegister() switch
        {
            Register.RAX => r.Rax,
            Register.RBX => r.Rbx,
            Register.RCX => r.Rcx,
            Register.RDX => r.Rdx,
            Register.RSI => r.Rsi,
            Register.RDI => r.Rdi,
            Register.RSP => r.Rsp,
            Register.RBP => r.Rbp,
            Register.R8 => r.R8,
            Register.R9 => r.R9,
            Register.R10 => r.R10,
            Register.R11 => r.R11,
            Register.R12 => r.R12,
            Register.R13 => r.R13,
            Register.R14 => r.R14,
            Register.R15 => r.R15,
            Register.FS => Vcpu.Bases.Fs,
            Register.GS => Vcpu.Bases.Gs,
            _ => 0,
        };
        return true;
    }
}
