using System.Runtime.InteropServices;

namespace Privy.Hypervisor.Host;

/// <summary>The few libc functions the stubs need before raw system calls are available.</summary>
internal static unsafe partial class HostLibc
{
    internal const int ProtRead = 1, ProtWrite = 2, ProtExec = 4;
    internal const int MapShared = 1, MapPrivate = 2, MapAnonymous = 0x20;

    [LibraryImport("libc", EntryPoint = "mmap", SetLastError = true)]
    internal static partial void* Mmap(void* address, nuint length, int protection, int flags, int descriptor, long offset);

    [LibraryImport("libc", EntryPoint = "mprotect", SetLastError = true)]
    internal static partial int Mprotect(void* address, nuint length, int protection);

    /// <summary>Zeroed memory that the garbage collector does not know, for machine code and signal handlers to write. Never freed.</summary>
    internal static byte* AllocatePages(nuint length)
    {
        void* address = Mmap(null, length, ProtRead | ProtWrite, MapPrivate | MapAnonymous, -1, 0);
        if (address == (void*)-1)
            throw new HostException("mmap", Marshal.GetLastPInvokeError(), $"length {length}, read and write");
        return (byte*)address;
    }
}
