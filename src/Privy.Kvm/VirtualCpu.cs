using System.Runtime.InteropServices;

namespace Privy.Kvm;

/// <summary>One virtual CPU: its run page and registers. Used by one thread at a time.</summary>
public sealed unsafe class VirtualCpu : IDisposable
{
    // An ioctl that reads one of them costs 7 us on paravirtual KVM.
    private const SyncSets LeftByEachExit = SyncSets.Registers | SyncSets.Events;

    private readonly int _descriptor;
    private readonly byte[] _linkName;
    private readonly int _runSize;

    internal VirtualCpu(int id, int descriptor, int runSize)
    {
        Id = id;
        _descriptor = descriptor;
        _runSize = runSize;
        _linkName = System.Text.Encoding.ASCII.GetBytes($"anon_inode:kvm-vcpu:{id}");
        var page = NativeMethods.Mmap(null, (nuint)runSize, NativeMethods.PROT_READ_WRITE, NativeMethods.MAP_SHARED, descriptor, 0);
        if (page == (void*)-1)
            throw new KvmException($"mmap(vCPU {id} run page, {runSize} bytes)", Marshal.GetLastPInvokeError());
        Run = (RunPage*)page;
        Run->ValidRegs = (ulong)LeftByEachExit;
    }

    /// <summary>KVM's number for the vCPU.</summary>
    public int Id { get; }

    /// <summary>The page shared with the kernel; valid until the vCPU is disposed.</summary>
    public RunPage* Run { get; }

    /// <summary>The general registers as of the last exit; changes take effect after <see cref="MarkRegistersDirty"/>.</summary>
    public ref GuestRegisters Registers => ref Run->Registers;

    /// <summary>The next entry loads the general registers from the run page.</summary>
    public void MarkRegistersDirty() => Run->DirtyRegs |= (ulong)SyncSets.Registers;

    /// <summary>
    /// The segment and control registers in the run page: those of the last exit if <see cref="LeavesSystemRegisters"/> was set then; changes take effect after
    /// <see cref="MarkSystemRegistersDirty"/>, with the next entry.
    /// </summary>
    public ref SystemRegisters SystemRegisters => ref Run->SystemRegisters;

    /// <summary>Whether exits store segment and control registers in the run page, which costs less than an ioctl that reads them, and more than nothing.</summary>
    public bool LeavesSystemRegisters
    {
        get => (Run->ValidRegs & (ulong)SyncSets.SystemRegisters) != 0;
        set => Run->ValidRegs = (ulong)(value ? LeftByEachExit | SyncSets.SystemRegisters : LeftByEachExit);
    }

    /// <summary>The next entry loads segment and control registers from the run page.</summary>
    public void MarkSystemRegistersDirty() => Run->DirtyRegs |= (ulong)SyncSets.SystemRegisters;

    /// <summary>
    /// Makes the vCPU's descriptor valid in the calling thread's own descriptor table, under the same number, when that table was
    /// copied (unshare) before the vCPU was created. Linux 5.6 or newer.
    /// </summary>
    public void EnsureDescriptor() => OwnDescriptors.Import(_descriptor, _linkName);

    /// <summary>Enters the guest until it exits.</summary>
    /// <returns>0, or the errno of KVM_RUN (EINTR: a signal or <see cref="RunPage.ImmediateExit"/>; EFAULT: no host memory behind an access).</returns>
    public int Enter() =>
        NativeMethods.Ioctl(_descriptor, KvmIoctl.Run, 0) >= 0 ? 0 : Marshal.GetLastPInvokeError();

    /// <summary>Reads segment and control registers.</summary>
    public SystemRegisters GetSystemRegisters()
    {
        SystemRegisters value;
        Call(KvmIoctl.GetSystemRegisters, &value, "KVM_GET_SREGS");
        return value;
    }

    /// <summary>Writes segment and control registers.</summary>
    public void SetSystemRegisters(in SystemRegisters registers)
    {
        var value = registers;
        Call(KvmIoctl.SetSystemRegisters, &value, "KVM_SET_SREGS");
    }

    /// <summary>Reads the general registers by ioctl (for diagnostics; the run page is the fast way).</summary>
    public GuestRegisters GetRegisters()
    {
        GuestRegisters value;
        Call(KvmIoctl.GetRegisters, &value, "KVM_GET_REGS");
        return value;
    }

    /// <summary>
    /// Vector of an exception that KVM has taken up and will deliver at the next entry, wherever the vCPU stands by then; -1: none. A signal can
    /// end KVM_RUN in between. As of the last exit.
    /// </summary>
    public int PendingException =>
        (Run->Events.ExceptionInjected | Run->Events.ExceptionPending) != 0 ? Run->Events.ExceptionVector : -1;

    /// <summary>Takes a pending exception back: whoever moves the vCPU elsewhere must, and the faulting instruction raises it again.</summary>
    public void DropPendingException()
    {
        VcpuEvents events;
        Call(KvmIoctl.GetEvents, &events, "KVM_GET_VCPU_EVENTS");
        events.ExceptionInjected = events.ExceptionPending = 0;
        events.Flags = 0;
        Call(KvmIoctl.SetEvents, &events, "KVM_SET_VCPU_EVENTS");
    }

    /// <summary>Reads the vector state.</summary>
    public void GetXsave(XsaveArea* area) => Call(KvmIoctl.GetXsave, area, "KVM_GET_XSAVE");

    /// <summary>Writes the vector state.</summary>
    public void SetXsave(XsaveArea* area) => Call(KvmIoctl.SetXsave, area, "KVM_SET_XSAVE");

    /// <summary>Writes model-specific registers; all of them or an exception naming the first that failed.</summary>
    public void SetMsrs(ReadOnlySpan<MsrEntry> entries)
    {
        var bytes = 8 + (entries.Length * sizeof(MsrEntry));
        var buffer = stackalloc byte[bytes];
        *(ulong*)buffer = (ulong)entries.Length;
        entries.CopyTo(new Span<MsrEntry>(buffer + 8, entries.Length));
        var done = NativeMethods.Ioctl(_descriptor, KvmIoctl.SetMsrs, (nint)buffer);
        if (done < 0)
            throw new KvmException("KVM_SET_MSRS", Marshal.GetLastPInvokeError());
        if (done < entries.Length)
            throw new KvmException($"KVM_SET_MSRS(0x{entries[done].Index:x} = 0x{entries[done].Data:x}) on vCPU {Id}", 22);
    }

    /// <summary>Sets what CPUID shows.</summary>
    public void SetCpuid(ReadOnlySpan<CpuidEntry> entries)
    {
        var buffer = (byte*)NativeMemory.AllocZeroed((nuint)(8 + (entries.Length * sizeof(CpuidEntry))));
        try
        {
            *(uint*)buffer = (uint)entries.Length;
            entries.CopyTo(new Span<CpuidEntry>(buffer + 8, entries.Length));
            Call(KvmIoctl.SetCpuid2, buffer, "KVM_SET_CPUID2");
        }
        finally
        {
            NativeMemory.Free(buffer);
        }
    }

    /// <summary>Sets XCR0, the enabled vector state.</summary>
    public void SetXcr0(ulong value)
    {
        ExtendedControlRegisters registers = default;
        registers.Count = 1;
        registers.Xcr0.Value = value;
        Call(KvmIoctl.SetXcrs, &registers, $"KVM_SET_XCRS(0x{value:x})");
    }

    /// <summary>Cycles of the guest's timestamp counter in a millisecond (KVM_GET_TSC_KHZ); 0 where KVM does not say.</summary>
    public int TscKilohertz => Math.Max(0, NativeMethods.Ioctl(_descriptor, KvmIoctl.GetTscKilohertz, 0));

    /// <summary>
    /// Makes the guest's time stamp counter the host's, which the host's vDSO needs.
    /// </summary>
    /// <returns>False where KVM has no such attribute (before Linux 5.16, paravirtual KVM).</returns>
    public bool TryClearTscOffset()
    {
        ulong offset = 0;
        DeviceAttribute attribute = new() { Address = (ulong)&offset }; // KVM_VCPU_TSC_CTRL (0), KVM_VCPU_TSC_OFFSET (0)
        return NativeMethods.Ioctl(_descriptor, KvmIoctl.SetDeviceAttribute, (nint)(&attribute)) == 0;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _ = NativeMethods.Munmap(Run, (nuint)_runSize);
        OwnDescriptors.Close(_descriptor);
    }

    private void Call(ulong request, void* argument, string name)
    {
        if (NativeMethods.Ioctl(_descriptor, request, (nint)argument) < 0)
            throw new KvmException($"{name} on vCPU {Id}", Marshal.GetLastPInvokeError());
    }
}
