namespace Privy.Kernel;

/// <summary>
/// Where things lie in the guest's virtual and physical address spaces. Addresses are bytes.
/// </summary>
/// <remarks>
/// The kernel's region is mapped in the host process at the same virtual address as in the guest, so a pointer into it
/// means the same on both sides. It sits in the lower half of the address space because the paravirtual KVM keeps the
/// upper half for itself.
/// </remarks>
public static class Layout
{
    /// <summary>Size of a base page.</summary>
    public const ulong PageSize = 4096;

    /// <summary>Size of the page a page-directory entry can map.</summary>
    public const ulong LargePageSize = 2UL << 20;

    /// <summary>Memory slots are created in chunks of this size; one page-directory table covers it.</summary>
    public const ulong Gigabyte = 1UL << 30;

    /// <summary>Guest-physical end of the low window, where guest physical = guest virtual (non-PIE programs).</summary>
    public const ulong LowWindowEnd = Gigabyte;

    /// <summary>Virtual address of the kernel's region, in host and guest.</summary>
    public const ulong KernelBase = 0x0800_0000_0000;

    /// <summary>Guest-physical address of the kernel's region when it is at most 1 GB; larger regions go above the pool.</summary>
    public const ulong KernelPhysical = 0x4000_0000;

    /// <summary>Guest-physical address of the host's vDSO and vvar pages.</summary>
    public const ulong VdsoPhysical = 0x8000_0000;

    /// <summary>Guest-physical address of the doorbell page; no memory slot covers it, so a store there leaves the guest.</summary>
    public const ulong DoorbellPhysical = 0xD000_0000;

    /// <summary>Guest-physical address of four pages that KVM itself uses on Intel processors without unrestricted guest mode.</summary>
    public const ulong IntelPhysical = 0xFEFF_C000;

    /// <summary>Virtual address of the doorbell page (guest only).</summary>
    public const ulong DoorbellVirtual = 0x0878_0000_0000;

    /// <summary>Guest-physical address of the frame pool (copies and private pages of snapshots).</summary>
    public const ulong PoolPhysical = 0x1_0000_0000;

    /// <summary>Virtual address of guest-physical 0 in the direct map (guest only).</summary>
    public const ulong DirectBase = 0x0880_0000_0000;

    /// <summary>Virtual address of the window, in host and guest.</summary>
    public const ulong WindowBase = 0x1000_0000_0000;

    /// <summary>Virtual address of the views of snapshots that main reads itself (guest only; the host keeps it inaccessible).</summary>
    public const ulong ViewBase = 0x3000_0000_0000;

    /// <summary>Room for the view of one space: what one entry of a top-level table maps.</summary>
    public const ulong ViewSpan = 512 * Gigabyte;

    /// <summary>Offset in the kernel region of the kernel image (code and data).</summary>
    public const ulong ImageOffset = 1UL << 20;

    /// <summary>Offset in the kernel region of the first <see cref="VcpuArea"/>.</summary>
    public const ulong VcpuOffset = 2UL << 20;

    /// <summary>Distance between two vCPU areas: the area struct, descriptor tables, stubs and stacks.</summary>
    public const ulong VcpuStride = 64UL << 10;

    /// <summary>Most vCPUs one VM can have.</summary>
    public const int MaxVcpus = 1024;

    /// <summary>Offset in the kernel region of the buffers for small writes of snapshots, one for each of the first vCPUs.</summary>
    public const ulong WriteBufferOffset = 72UL << 20;

    /// <summary>Bytes of one of them.</summary>
    public const ulong WriteBufferSize = 64UL << 10;

    /// <summary>Number of them.</summary>
    public const int WriteBuffers = (int)((ReadAheadOffset - WriteBufferOffset) / WriteBufferSize);

    /// <summary>Offset in the kernel region of what was received ahead for the program's first thread.</summary>
    public const ulong ReadAheadOffset = VmaOffset - ReadAheadSize;

    /// <summary>Bytes of it.</summary>
    public const ulong ReadAheadSize = 1UL << 20;

    /// <summary>Offset in the kernel region of the arrays of <see cref="Vma"/>, one a space.</summary>
    public const ulong VmaOffset = 128UL << 20;

    /// <summary>Most mappings of one address space; Linux' default vm.max_map_count.</summary>
    public const int MaxVmas = 65536;

    /// <summary>Address spaces: 0 is main, the others are snapshots.</summary>
    public const int MaxSpaces = 64;

    /// <summary>Value of <see cref="VcpuArea.Space"/> of a vCPU in no space: it runs kernel code only.</summary>
    public const int NoSpace = -1;

    /// <summary>Offset in the kernel region of the page-table frames, after all arrays of mappings.</summary>
    public const ulong TableOffset = VmaOffset + (ulong)MaxSpaces * MaxVmas * Vma.Size;

    /// <summary>Doorbell offset of a system call (the program executed SYSCALL).</summary>
    public const ulong DoorbellSyscall = 0;

    /// <summary>Doorbell offset of a request by the kernel to the host; see <see cref="HostRequest"/>.</summary>
    public const ulong DoorbellHost = 8;

    /// <summary>Doorbell offset: a kernel function called by the host has returned.</summary>
    public const ulong DoorbellCallDone = 16;

    /// <summary>Doorbell offset: the kernel is about to return to the program and <see cref="VcpuArea.ExitRequest"/> is set.</summary>
    public const ulong DoorbellUserExit = 24;

    /// <summary>Doorbell offset of exception vector 0; vector n is 8·n further.</summary>
    public const ulong DoorbellException = 0x800;
}
