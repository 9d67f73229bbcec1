// Shared by the library (an ordinary assembly) and its resident code (freestanding): both see the same bytes.
using System.Runtime.InteropServices;

namespace Privy.Resident;

/// <summary>What the resident code knows of one region. Lies in memory of its own, outside of the garbage collector's.</summary>
[StructLayout(LayoutKind.Sequential)]
internal unsafe struct RegionState
{
    /// <summary>Held for everything below and for reading the userfaultfd. 0 free, 1 held, 2 held and waited for (a futex).</summary>
    internal int Lock;

    /// <summary>Write-protected at least once: from then on, a page that is not in <see cref="Written"/> is protected.</summary>
    internal int Armed;

    /// <summary>The userfaultfd, non-blocking.</summary>
    internal int Faults;

    /// <summary>An eventfd: readable when the handler is to end.</summary>
    internal int Stop;

    /// <summary>Address of the system-call stub.</summary>
    internal void* Syscall;

    internal byte* Memory;
    internal ulong Length;

    /// <summary>The latest snapshot or mark, or null.</summary>
    internal SnapshotNode* Newest;

    /// <summary>A bit for each page that has been written since <see cref="Newest"/>, so is not protected.</summary>
    internal ulong* Written;

    /// <summary>The handler's buffers: events as the kernel writes them, and the poll array.</summary>
    internal byte* Events;
    internal byte* Poll;

    /// <summary>Counters, read without the lock.</summary>
    internal ulong FaultCount;
    internal ulong CopyCount;
    internal ulong ProtectCalls;
    internal ulong ProtectedPages;
    internal ulong LostCount;
}

/// <summary>A snapshot in the chain of a region, from the newest to the oldest.</summary>
[StructLayout(LayoutKind.Sequential)]
internal unsafe struct SnapshotNode
{
    internal SnapshotNode* Older;
    internal SnapshotNode* Newer;

    /// <summary>Its view, or null once it has none: then only the changed pages are still of interest.</summary>
    internal byte* View;

    /// <summary>A bit for each page written between the next older node in the chain and this one. Null: none.</summary>
    internal ulong* Changed;

    /// <summary>Pages copied for it.</summary>
    internal ulong Copies;

    /// <summary>Not 0: a page could not be copied for it (an errno), so that its view has been closed.</summary>
    internal int Lost;
}
