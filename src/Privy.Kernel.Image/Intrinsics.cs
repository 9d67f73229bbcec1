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

    [RuntimeImport("*", "privy_try_copy_page")]
    [MethodImpl(MethodImplOptions.InternalCall)]
    private static extern ulong TryCopyPageCore(void* destination, void* source);

    internal static bool TryCopyPage(void* destination, void* source) => TryCopyPageCore(destination, source) != 0;

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
