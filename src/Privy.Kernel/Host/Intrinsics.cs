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

    internal static void CopyPage(void* destination, void* source) =>
        Buffer.MemoryCopy(source, destination, 4096, 4096);

    /// <summary>
    /// Copies a page of the program. False: the host has nothing behind <paramref name="source"/>, a file that was cut short under its mapping;
    /// the destination then holds anything.
    /// </summary>
    internal static bool TryCopyPage(void* destination, void* source)
    {
        CopyPage(destination, source);
        return true;
    }

    internal static void ZeroPage(void* destination) => new Span<byte>(destination, 4096).Clear();

    internal static void Pause() => Thread.SpinWait(1);

    internal static ulong Timestamp() => (ulong)System.Diagnostics.Stopwatch.GetTimestamp();
}
