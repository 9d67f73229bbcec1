using System.Runtime.InteropServices;

namespace Privy.Kernel;

/// <summary>A page table of main that stays from snapshot to snapshot (<see cref="KernelState.KeptTables"/>).</summary>
[StructLayout(LayoutKind.Sequential)]
public struct KeptTable
{
    /// <summary>Guest-physical address of the table; 0: none yet.</summary>
    public ulong Table;

    /// <summary>The epoch in which main's tree last got it.</summary>
    public ulong Epoch;

    /// <summary>
    /// 0: below the directories of a region, which each snapshot replaces, so that no processor uses it in a later epoch. 1: elsewhere, where main's tree keeps it over the
    /// snapshots of views, until <see cref="KernelState.TreeEpoch"/>.
    /// </summary>
    public ulong Lasting;
}
