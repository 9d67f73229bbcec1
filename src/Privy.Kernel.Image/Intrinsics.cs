using System.Runtime;
using System.Runtime.CompilerServices;

namespace Privy.Kernel;

/// <summary>The assembly stubs the loader links in; see the ordinary assembly's file of the same name.</summary>
internal static unsafe class Intrinsics
{
    internal static void Doorbell(VcpuArea* v) => DoorbellHost();

    [RuntimeImport("*", "privy_doorbell_host")]
    [MethodImpl(MethodImplOptions.InternalCall)]
    private static extern void DoorbellHost();

    [RuntimeImport("*", "privy_copy_page")]
    [MethodImpl(MethodImplOptions.InternalCall)]
    internal static extern void CopyPage(void* destination, void* source);

    [RuntimeImport("*", "privy_try_copy")]
    [MethodImpl(MethodImplOptions.InternalCall)]
    private static extern ulong TryCopyCore(void* destination, void* source, ulong words);

    internal static bool TryCopy(void* destination, void* source, ulong words) => TryCopyCore(destination, source, words) != 0;

    internal static bool TryCopyPage(void* destination, void* source) => TryCopy(destination, source, Layout.PageSize / sizeof(ulong));

    [RuntimeImport("*", "privy_fs_base")]
    [MethodImpl(MethodImplOptions.InternalCall)]
    internal static extern ulong FsBase();

    [RuntimeImport("*", "privy_gs_base")]
    [MethodImpl(MethodImplOptions.InternalCall)]
    internal static extern ulong GsBase();

    [RuntimeImport("*", "privy_zero_page")]
    [MethodImpl(MethodImplOptions.InternalCall)]
    internal static extern void ZeroPage(void* destination);

    [RuntimeImport("*", "privy_pause")]
    [MethodImpl(MethodImplOptions.InternalCall)]
    internal static extern void Pause();

    [RuntimeImport("*", "privy_timestamp")]
    [MethodImpl(MethodImplOptions.InternalCall)]
    internal static extern ulong Timestamp();
}
