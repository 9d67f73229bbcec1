namespace Privy.Hypervisor.Syscalls;

/// <summary>A file in /proc that lists the memory of a process.</summary>
public enum MemoryReport
{
    /// <summary>maps: the mappings.</summary>
    Maps,

    /// <summary>smaps: the mappings, and how much of each there is.</summary>
    Smaps,

    /// <summary>smaps_rollup: the sums of smaps.</summary>
    Rollup,
}
