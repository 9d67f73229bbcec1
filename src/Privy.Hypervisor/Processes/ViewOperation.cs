namespace Privy.Hypervisor.Processes;

/// <summary>The private system call by which a program asks Privy for snapshots of its own memory. Compiled into the Privy library, too.</summary>
internal static class ViewProtocol
{
    /// <summary>Number of the system call; ENOSYS where there is no Privy.</summary>
    internal const long Number = 0x50525659;

    /// <summary>Version of the operations.</summary>
    internal const long Version = 2;

    /// <summary>A region lies within one such part of the address space.</summary>
    internal const long Slot = 512L << 30;

    /// <summary>Snapshots are cheapest of regions that share no such part of the address space with other memory.</summary>
    internal const long Unit = 1L << 30;
}

/// <summary>First argument of the call. A view is known by the address of its first byte. Results are negative for an error.</summary>
internal enum ViewOperation
{
    /// <summary>→ <see cref="ViewProtocol.Version"/>.</summary>
    Version = 0,

    /// <summary>(start, length): a mapping of which snapshots will be taken.</summary>
    Register = 1,

    /// <summary>(start, length) → address of the view.</summary>
    Take = 2,

    /// <summary>(view): nobody reads it any more.</summary>
    Release = 3,

    /// <summary>(older view, newer view, start, length, address of a set of bits): what was written between two snapshots.</summary>
    Changed = 4,

    /// <summary>→ pages copied for snapshots so far.</summary>
    Copies = 5,

    /// <summary>→ page faults so far.</summary>
    Faults = 6,

    /// <summary>(view) → pages that were copied for the snapshot and none newer than it.</summary>
    Held = 7,
}
