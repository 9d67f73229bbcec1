using System.Runtime.InteropServices;

namespace Privy.Kernel;

/// <summary>A page table of main that stays from snapshot to snapshot (<see cref="KernelState.KeptTables"/>).</summary>
[StructLayout(LayoutKind.Sequential)]
public struct KeptTable
{
    /// <summary>Guest-physical address of the table; 0: none yet.</summary>
    public ulong Table;

    /// <summary>In <see cref="Epoch"/>: the table is no region's, so that it goes out of use only when all of main's tree is renewed.</summary>
    public const ulong NoRegion = 1UL << 63;

    /// <summary>The epoch in which the part of main's tree that got it was renewed: in a later one no processor uses it any more.</summary>
    public ulong Epoch;
}
