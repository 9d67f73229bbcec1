using System.Runtime.InteropServices;
using Privy.Kernel;
using Privy.Kvm;

namespace Privy.Hypervisor.Host;

/// <summary>Memory calls of the host kernel. Results: 0 or an address, or a negative errno.</summary>
internal static unsafe partial class HostMemory
{
    internal const int PROT_NONE = 0;
    internal const int PROT_READ = 1;
    internal const int PROT_WRITE = 2;
    internal const int PROT_EXEC = 4;
    internal const int MAP_SHARED = 1;
    internal const int MAP_PRIVATE = 2;
    internal const int MAP_FIXED = 0x10;
    internal const int MAP_ANONYMOUS = 0x20;
    internal const int MAP_NORESERVE = 0x4000;
    internal const int MAP_FIXED_NOREPLACE = 0x100000;
    internal const int MREMAP_MAYMOVE = 1;
    internal const int MREMAP_FIXED = 2;
    internal const int MREMAP_DONTUNMAP = 4;
    internal const int MADV_DONTNEED = 4;
    internal const int MADV_HUGEPAGE = 14;

    internal static long Map(ulong address, ulong length, int protection, int flags, int descriptor = -1, ulong offset = 0)
    {
        var result = (long)Mmap((void*)address, (nuint)length, protection, flags, descriptor, (long)offset);
        return result == -1 ? -Marshal.GetLastPInvokeError() : result;
    }

    internal static long Unmap(ulong address, ulong length) => Check(Munmap((void*)address, (nuint)length));

    internal static long Protect(ulong address, ulong length, int protection) => Check(Mprotect((void*)address, (nuint)length, protection));

    internal static long Advise(ulong address, ulong length, int advice) => Check(Madvise((void*)address, (nuint)length, advice));

    /// <summary>Has the host find and zero memory for the range now (Linux 5.14; without it the first touch does, later).</summary>
    internal static void Populate(ulong address, ulong length)
    {
        const int populateWrite = 23;
        var start = address & ~(Layout.PageSize - 1);
        _ = Advise(start, (address + length - start + Layout.PageSize - 1) & ~(Layout.PageSize - 1), populateWrite);
    }

    internal static long Remap(ulong old, ulong oldLength, ulong newLength, int flags, ulong address)
    {
        var result = (long)Mremap((void*)old, (nuint)oldLength, (nuint)newLength, flags, (void*)address);
        return result == -1 ? -Marshal.GetLastPInvokeError() : result;
    }

    /// <summary>Reserves addresses at a fixed place: no memory, no access.</summary>
    /// <exception cref="KvmException">The range is not free.</exception>
    internal static void Reserve(ulong address, ulong length, int protection, string what)
    {
        var result = Map(address, length, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE);
        if (result < 0)
            throw new KvmException($"mmap({what}, 0x{address:x}, {length >> 20} MB)", (int)-result);
    }

    private static long Check(int result) => result < 0 ? -Marshal.GetLastPInvokeError() : result;

    [LibraryImport("libc", EntryPoint = "mmap", SetLastError = true)]
    private static partial void* Mmap(void* address, nuint length, int protection, int flags, int descriptor, long offset);

    [LibraryImport("libc", EntryPoint = "munmap", SetLastError = true)]
    private static partial int Munmap(void* address, nuint length);

    [LibraryImport("libc", EntryPoint = "mprotect", SetLastError = true)]
    private static partial int Mprotect(void* address, nuint length, int protection);

    [LibraryImport("libc", EntryPoint = "madvise", SetLastError = true)]
    private static partial int Madvise(void* address, nuint length, int advice);

    [LibraryImport("libc", EntryPoint = "mremap", SetLastError = true)]
    private static partial void* Mremap(void* old, nuint oldLength, nuint newLength, int flags, void* address);
}
