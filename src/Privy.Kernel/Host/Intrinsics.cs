namespace Privy.Kernel;

/// <summary>
/// What the kernel image gets from assembly stubs. This is the managed form, for the ordinary assembly; the image
/// has its own file with imports of the same names.
/// </summary>
public static unsafe class Intrinsics
{
    /// <summary>Stands for the doorbell: answers the request in the vCPU's area. Tests set it.</summary>
    public static delegate*<VcpuArea*, void> DoorbellHook { get; set; }

    internal static void Doorbell(VcpuArea* v)
    {
        if (DoorbellHook == null)
            throw new InvalidOperationException("The kernel asked for the host, and no host is attached.");
        DoorbellHook(v);
    }

    /// <summary>Base of the program's FS segment.</summary>
    internal static ulong FsBase() => SegmentBases.Fs;

    /// <summary>Base of its GS segment.</summary>
    internal static ulong GsBase() => SegmentBases.Gs;

    /// <summary>Stands for the bases of FS and GS. Tests set it.</summary>
    [ThreadStatic]
    internal static (ulong Fs, ulong Gs) SegmentBases;

    internal static void CopyPage(void* destination, void* source) =>
        Buffer.MemoryCopy(source, destination, 4096, 4096);

    /// <summary>
    /// Copies 8-byte words of the program's memory. False: the host has nothing behind <paramref name="source"/>, a file that was cut short under its mapping;
    /// the destination then holds anything.
    /// </summary>
    internal static bool TryCopy(void* destination, void* source, ulong words)
    {
        Buffer.MemoryCopy(source, destination, words * sizeof(ulong), words * sizeof(ulong));
        return true;
    }

    /// <summary>A whole page of it.</summary>
    internal static bool TryCopyPage(void* destination, void* source) => TryCopy(destination, source, Layout.PageSize / sizeof(ulong));

    internal static void ZeroPage(void* destination) => new Span<byte>(destination, 4096).Clear();

    internal static void Pause() => Thread.SpinWait(1);

    internal static ulong Timestamp() => (ulong)System.Diagnostics.Stopwatch.GetTimestamp();
}
