namespace Privy.Kernel;

/// <summary>The program's memory lies in guest-physical memory as it lies in its address space (design, section 3).</summary>
public static unsafe class LinearMap
{
    /// <summary>Whether the program can have memory at <paramref name="address"/>.</summary>
    public static bool Contains(KernelState* k, ulong address) =>
        address < k->LowEnd || (address >= k->WindowBase && address < k->WindowEnd);

    /// <summary>Guest-physical address of the program's memory at <paramref name="address"/>.</summary>
    public static ulong Physical(KernelState* k, ulong address) =>
        address < k->LowEnd ? address : address - k->WindowBase + k->WindowPhysical;
}
