namespace Privy.Kernel;

/// <summary>Requests of the kernel to the host.</summary>
internal static unsafe class HostCall
{
    /// <summary>Leaves the guest with a request and returns the host's answer.</summary>
    internal static long Request(VcpuArea* v, ulong code, ulong argument0, ulong argument1)
    {
        v->Request = code;
        v->RequestArg0 = argument0;
        v->RequestArg1 = argument1;
        Intrinsics.Doorbell(v);
        // The host wrote it behind the compiler's back.
        return (long)System.Threading.Volatile.Read(ref v->RequestResult);
    }

    /// <summary>An invariant is broken; does not return.</summary>
    internal static void Panic(VcpuArea* v, ulong code, ulong value) =>
        Request(v, HostRequest.Panic, code, value);
}
