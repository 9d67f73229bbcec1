using Privy.Hypervisor.Boot;

namespace Privy.Hypervisor.Memory;

/// <summary>The kernel's functions as the host calls them, each on a vCPU that is at a boundary. Results: 0 or more, or a negative errno.</summary>
internal sealed class KernelCalls(KernelImage image)
{
    private readonly ulong _createSnapshot = image.Symbol("privy_create_snapshot");
    private readonly ulong _release = image.Symbol("privy_release");
    private readonly ulong _unmap = image.Symbol("privy_unmap");
    private readonly ulong _protect = image.Symbol("privy_protect");
    private readonly ulong _prepareWrite = image.Symbol("privy_prepare_write");
    private readonly ulong _clearAccessed = image.Symbol("privy_clear_accessed");
    private readonly ulong _forgetLinear = image.Symbol("privy_forget_linear");
    private readonly ulong _precopy = image.Symbol("privy_precopy");
    private readonly ulong _detach = image.Symbol("privy_detach");

    private readonly ulong _takeView = image.Symbol("privy_take_view");
    private readonly ulong _closeView = image.Symbol("privy_close_view");
    private readonly ulong _changed = image.Symbol("privy_changed");

    internal long CreateSnapshot(Vcpu vcpu, int parent) => vcpu.CallKernelForRoot(_createSnapshot, (ulong)parent);

    internal long Release(Vcpu vcpu, int space) => vcpu.CallKernel(_release, (ulong)space);

    internal long Unmap(Vcpu vcpu, int space, ulong start, ulong end) => vcpu.CallKernel(_unmap, (ulong)space, start, end);

    internal long Protect(Vcpu vcpu, int space, ulong start, ulong end) => vcpu.CallKernel(_protect, (ulong)space, start, end);

    internal long PrepareWrite(Vcpu vcpu, int space, ulong start, ulong end) => vcpu.CallKernel(_prepareWrite, (ulong)space, start, end);

    internal long ClearAccessed(Vcpu vcpu, int space) => vcpu.CallKernel(_clearAccessed, (ulong)space);

    internal long ForgetLinear(Vcpu vcpu, int space) => vcpu.CallKernel(_forgetLinear, (ulong)space);

    internal long Precopy(Vcpu vcpu, ulong start, ulong end) => vcpu.CallKernel(_precopy, start, end);

    internal long Detach(Vcpu vcpu, ulong start, ulong end, ulong populated) => vcpu.CallKernel(_detach, start, end, populated);

    internal long TakeView(Vcpu vcpu, ulong start, ulong end) => vcpu.CallKernelForRoot(_takeView, start, end);

    internal long CloseView(Vcpu vcpu, int space) => vcpu.CallKernel(_closeView, (ulong)space);

    internal long Changed(Vcpu vcpu, int older, int newer, ulong start, ulong end, ulong bits) =>
        vcpu.CallKernel(_changed, ((ulong)older << 32) | (uint)newer, start, end, bits);
}
