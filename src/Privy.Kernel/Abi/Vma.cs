using System.Runtime.InteropServices;

namespace Privy.Kernel;

/// <summary>One mapping of an address space: pages with the same rights, origin and age.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct Vma
{
    /// <summary>Size of the struct in bytes.</summary>
    public const int Size = 32;

    /// <summary>The program may read.</summary>
    public const uint Read = 1;

    /// <summary>The program may write.</summary>
    public const uint Write = 2;

    /// <summary>The program may execute.</summary>
    public const uint Execute = 4;

    /// <summary>MAP_SHARED: never copied on write, the same memory in parent and child (rule 5).</summary>
    public const uint Shared = 8;

    /// <summary>
    /// Only in a snapshot: memory the child mapped for itself, backed by zeroed pool frames on first touch and not by
    /// the linear frame.
    /// </summary>
    public const uint Pooled = 16;

    /// <summary>Main's memory of which the program takes snapshots for itself. Only it can have readers when all snapshots are views.</summary>
    public const uint Region = 32;

    /// <summary>
    /// Bit of <see cref="HostTag"/>: backed by a file. Pages nobody touched are not zeros, and behind the file's end there are none: the
    /// kernel copies no page that the program has not asked for.
    /// </summary>
    public const uint TagFile = 1;

    /// <summary>First byte.</summary>
    public ulong Start;

    /// <summary>One past the last byte.</summary>
    public ulong End;

    /// <summary>Rights and origin: the constants of this type.</summary>
    public uint Flags;

    /// <summary>Host bookkeeping; of its bits the kernel reads <see cref="TagFile"/> alone.</summary>
    public uint HostTag;

    /// <summary>The epoch in which the mapping was made: snapshots of an older epoch cannot contain it.</summary>
    public ulong Birth;
}
