using Privy.Kernel;
using Privy.Kvm;

namespace Privy.Hypervisor.Boot;

/// <summary>Sizes and places of one VM's guest-physical memory, from the host's memory and the processor's address width.</summary>
internal sealed record GuestPhysicalMap
{
    internal required ulong KernelSize { get; init; }

    internal required ulong KernelPhysical { get; init; }

    internal required ulong PoolSize { get; init; }

    internal required ulong WindowPhysical { get; init; }

    internal required ulong WindowSize { get; init; }

    internal ulong PhysicalEnd => WindowPhysical + WindowSize;

    internal ulong PoolEnd => Layout.PoolPhysical + PoolSize;

    /// <summary>Plans the map.</summary>
    /// <param name="memoryBytes">Memory the program and its snapshots' copies may each use.</param>
    /// <param name="physicalBits">Guest-physical address width.</param>
    internal static GuestPhysicalMap Plan(ulong memoryBytes, int physicalBits)
    {
        var poolSize = RoundUp(Math.Max(memoryBytes, Layout.Gigabyte));
        // Frame metadata is 16 bytes a pool page; two trees split to 4 KB take 8 bytes a page each, and their links 1/512 of that.
        var metadata = poolSize / Layout.PageSize * 16;
        var tables = poolSize / 512 * 4;
        var kernelSize = RoundUp(Layout.TableOffset + metadata + Math.Max(tables, 256UL << 20));
        var kernelPhysical = kernelSize <= Layout.Gigabyte ? Layout.KernelPhysical : Layout.PoolPhysical + poolSize;
        var windowPhysical = kernelSize <= Layout.Gigabyte ? Layout.PoolPhysical + poolSize : kernelPhysical + kernelSize;
        var limit = 1UL << Math.Min(physicalBits, 43);
        if (windowPhysical + (4 * Layout.Gigabyte) > limit)
            throw new KvmException($"planning {poolSize >> 30} GB of memory within {physicalBits} guest-physical address bits", 12);
        return new GuestPhysicalMap
        {
            KernelSize = kernelSize,
            KernelPhysical = kernelPhysical,
            PoolSize = poolSize,
            WindowPhysical = windowPhysical,
            // CoreCLR reserves 256 GB at start, so give all there is up to a terabyte.
            WindowSize = Math.Min(limit - windowPhysical, 1UL << 40),
        };
    }

    private static ulong RoundUp(ulong value) => (value + Layout.Gigabyte - 1) & ~(Layout.Gigabyte - 1);
}
