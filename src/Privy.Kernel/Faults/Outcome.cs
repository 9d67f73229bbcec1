namespace Privy.Kernel;

/// <summary>How an operation under the lock ended. Whatever is not final is retried as a whole after the host has helped.</summary>
internal enum Outcome
{
    /// <summary>Done.</summary>
    Done,

    /// <summary>The memory slot of <see cref="VcpuArea.PendingSlot"/> is missing.</summary>
    NeedSlot,

    /// <summary>The frame pool is empty.</summary>
    NeedFrames,

    /// <summary>No frame has memory of the host ready behind it.</summary>
    NeedReadyFrames,

    /// <summary>The table frames are used up.</summary>
    NeedTables,

    /// <summary>No mapping at the address.</summary>
    NotMapped,

    /// <summary>The mapping does not allow the access.</summary>
    Denied,

    /// <summary>The host has no memory behind the page: its file was cut short.</summary>
    NoBacking,

    /// <summary>The host could not help.</summary>
    NoMemory,
}
