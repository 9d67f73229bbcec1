using System.Runtime.InteropServices;

namespace Privy.Kernel;

/// <summary>One page of a region that was copied for snapshots: what <see cref="KernelState.RegionWrites"/> keeps of it until it is known whether main has written there.</summary>
[StructLayout(LayoutKind.Sequential)]
public unsafe struct RegionWrite
{
    /// <summary>Address of the page.</summary>
    public ulong Address;

    /// <summary>Guest-physical address of the copy.</summary>
    public ulong Frame;

    /// <summary>Main's entry, whose Dirty bit tells whether main has written; null: it has, as a page fault made the copy.</summary>
    public ulong* Page;

    /// <summary>1: copied because main had written there before the last snapshot, too.</summary>
    public ulong Predicted;
}
