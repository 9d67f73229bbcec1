using System.Runtime.InteropServices;

namespace Privy.Kernel;

/// <summary>A page table of main that stays from snapshot to snapshot (<see cref="KernelState.KeptTables"/>).</summary>
[StructLayout(LayoutKind.Sequential)]
public struct KeptTable
{
    /// <summary>Guest-physical address of the table; 0: none yet.</summary>
    public ulong Table;

    /// <summary>The epoch in which main's tree last got it: in a later one no processor uses it any more.</summary>
    public ulong Epoch;
}
