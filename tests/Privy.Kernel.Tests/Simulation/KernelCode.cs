namespace Privy.Kernel.Tests.Simulation;

/// <summary>The kernel's functions: as the ordinary assembly has them, or as the image has them.</summary>
internal abstract unsafe class KernelCode
{
    public static KernelCode Managed { get; } = new ManagedCode();

    public abstract long PageFault(VcpuArea* v);

    public abstract long CreateSnapshot(VcpuArea* v, int parentSpace);

    public abstract long Release(VcpuArea* v, int space);

    public abstract long Unmap(VcpuArea* v, int space, ulong start, ulong end);

    public abstract long Protect(VcpuArea* v, int space, ulong start, ulong end);

    public abstract long PrepareWrite(VcpuArea* v, int space, ulong start, ulong end);

    public abstract long Detach(VcpuArea* v, ulong start, ulong end, byte* populated);

    public abstract long ClearAccessed(VcpuArea* v, int space);

    public abstract long ForgetLinear(VcpuArea* v, int space);

    public abstract long Precopy(VcpuArea* v, ulong start, ulong end);

    public abstract long TakeView(VcpuArea* v, ulong start, ulong end);

    public abstract long CloseView(VcpuArea* v, int space);

    public abstract long Changed(VcpuArea* v, ulong pair, ulong start, ulong end, ulong* bits);

    private sealed class ManagedCode : KernelCode
    {
        public override long PageFault(VcpuArea* v) => KernelEntry.PageFault(v);

        public override long CreateSnapshot(VcpuArea* v, int parentSpace) => KernelEntry.CreateSnapshot(v, parentSpace);

        public override long Release(VcpuArea* v, int space) => KernelEntry.Release(v, space);

        public override long Unmap(VcpuArea* v, int space, ulong start, ulong end) => KernelEntry.Unmap(v, space, start, end);

        public override long Protect(VcpuArea* v, int space, ulong start, ulong end) => KernelEntry.Protect(v, space, start, end);

        public override long PrepareWrite(VcpuArea* v, int space, ulong start, ulong end) =>
            KernelEntry.PrepareWrite(v, space, start, end);

        public override long Detach(VcpuArea* v, ulong start, ulong end, byte* populated) =>
            KernelEntry.Detach(v, start, end, populated);

        public override long ClearAccessed(VcpuArea* v, int space) => KernelEntry.ClearAccessed(v, space);

        public override long ForgetLinear(VcpuArea* v, int space) => KernelEntry.ForgetLinear(v, space);

        public override long Precopy(VcpuArea* v, ulong start, ulong end) => KernelEntry.Precopy(v, start, end);

        public override long TakeView(VcpuArea* v, ulong start, ulong end) => KernelEntry.TakeView(v, start, end);

        public override long CloseView(VcpuArea* v, int space) => KernelEntry.CloseView(v, space);

        public override long Changed(VcpuArea* v, ulong pair, ulong start, ulong end, ulong* bits) =>
            KernelEntry.Changed(v, pair, start, end, bits);
    }
}
