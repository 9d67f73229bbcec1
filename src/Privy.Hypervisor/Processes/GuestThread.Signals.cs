using Privy.Hypervisor.Signals;

namespace Privy.Hypervisor.Processes;

/// <summary>Signals of a thread. TEMPORARY.</summary>
internal sealed unsafe partial class GuestThread
{
    internal SignalSet SignalMask => default;

    internal void InheritSignals(GuestThread parent) => _ = parent;

    public void RaiseSigpipe() { }

    public void SetTemporarySignalMask(ulong mask) { }

    private bool DeliverSignals() => true;

    private void BeginCall(long number) { }

    private void EndCall(long number, long result)
    {
        Vcpu.User.Rax = (ulong)(result is -512 or -514 or -513 ? -4 : result);
    }

    private void RaiseFault() => throw Vcpu.Defect($"fault at 0x{Vcpu.Area->FaultAddress:x} code {Vcpu.Area->FaultCode} rip {Vcpu.User.Rip:x}");
    private void RaiseHostFault() => throw Vcpu.Defect($"host fault");
    private void RaiseException() => throw Vcpu.Defect($"exception {Vcpu.Vector}");
}

internal sealed unsafe partial class GuestProcess
{
    internal bool IgnoresChildren => false;
    internal SignalSet IgnoredSignals => default;
    internal void InheritSignals(GuestProcess parent) => _ = parent;
    internal void NotifyChildChanged(GuestProcess process, ChildState state, int waitStatus) { }
}
