using System.Runtime;

namespace Privy.Kernel;

/// <summary>The symbols of the image. The host and the page-fault stub call them by the System V convention.</summary>
internal static unsafe class Exports
{
    [RuntimeExport("privy_page_fault")]
    private static long PageFault(VcpuArea* v) => KernelEntry.PageFault(v);

    [RuntimeExport("privy_create_snapshot")]
    private static long CreateSnapshot(VcpuArea* v, int parentSpace) => KernelEntry.CreateSnapshot(v, parentSpace);

    [RuntimeExport("privy_release")]
    private static long Release(VcpuArea* v, int space) => KernelEntry.Release(v, space);

    [RuntimeExport("privy_unmap")]
    private static long Unmap(VcpuArea* v, int space, ulong start, ulong end) => KernelEntry.Unmap(v, space, start, end);

    [RuntimeExport("privy_protect")]
    private static long Protect(VcpuArea* v, int space, ulong start, ulong end) => KernelEntry.Protect(v, space, start, end);

    [RuntimeExport("privy_prepare_write")]
    private static long PrepareWrite(VcpuArea* v, int space, ulong start, ulong end) =>
        KernelEntry.PrepareWrite(v, space, start, end);

    [RuntimeExport("privy_detach")]
    private static long Detach(VcpuArea* v, ulong start, ulong end, byte* populated) =>
        KernelEntry.Detach(v, start, end, populated);

    [RuntimeExport("privy_clear_accessed")]
    private static long ClearAccessed(VcpuArea* v, int space) => KernelEntry.ClearAccessed(v, space);

    [RuntimeExport("privy_take_view")]
    private static long TakeView(VcpuArea* v, ulong start, ulong end) => KernelEntry.TakeView(v, start, end);

    [RuntimeExport("privy_forget_linear")]
    private static long ForgetLinear(VcpuArea* v, int space) => KernelEntry.ForgetLinear(v, space);

    [RuntimeExport("privy_close_view")]
    private static long CloseView(VcpuArea* v, int space) => KernelEntry.CloseView(v, space);

    [RuntimeExport("privy_changed")]
    private static long Changed(VcpuArea* v, ulong pair, ulong start, ulong end, ulong* bits) =>
        KernelEntry.Changed(v, pair, start, end, bits);

    [RuntimeExport("privy_precopy")]
    private static long Precopy(VcpuArea* v, ulong start, ulong end) => KernelEntry.Precopy(v, start, end);

    // ilc's start-up code for native libraries refers to these two; nothing calls it.
    [RuntimeExport("RhpReversePInvoke")]
    private static void ReversePInvoke(void* frame) { }

    [RuntimeExport("RhpReversePInvokeReturn")]
    private static void ReversePInvokeReturn(void* frame) { }
}
