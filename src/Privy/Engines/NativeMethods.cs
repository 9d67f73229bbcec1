using System.Runtime.InteropServices;

namespace Privy.Engines;

/// <summary>The C library, where it must be the C library: memory and threads. Everything else is a system call of <see cref="Portable.ResidentCode"/>.</summary>
internal static unsafe partial class NativeMethods
{
    internal const int ProtectionNone = 0;
    internal const int ProtectionRead = 1;
    internal const int ProtectionWrite = 2;
    internal const int ProtectionExecute = 4;

    internal const int MapShared = 0x1;
    internal const int MapPrivate = 0x2;
    internal const int MapAnonymous = 0x20;
    internal const int MapNoReserve = 0x4000;

    internal const int AdviseDontFork = 10;
    internal const int AdviseHugePage = 14;
    internal const int AdvisePopulateWrite = 23;

    private const int OpenDirectory = 0x10000;
    private const int OpenCloseOnExec = 0x80000;
    private const int InvalidArgument = 22;
    private const int OutOfMemory = 12;

    private static readonly byte* Failed = (byte*)-1;

    /// <summary>Maps memory.</summary>
    /// <exception cref="InsufficientMemoryException">There is no room.</exception>
    internal static byte* Map(long length, int protection, int flags, int descriptor, string what)
    {
        byte* address = mmap(null, (nuint)length, protection, flags, descriptor, 0);
        return address != Failed
            ? address
            : throw new InsufficientMemoryException($"There is no room for {what} of {length} bytes: {Error(Marshal.GetLastPInvokeError())}.");
    }

    internal static void Unmap(byte* address, long length)
    {
        if (address != null)
            _ = munmap(address, (nuint)length);
    }

    internal static void Advise(byte* address, long length, int advice) => _ = madvise(address, (nuint)length, advice);

    /// <summary>Takes memory for a whole mapping.</summary>
    internal static void Populate(byte* address, long length)
    {
        if (madvise(address, (nuint)length, AdvisePopulateWrite) != 0)
            throw new InsufficientMemoryException($"There is not enough memory for a region of {length} bytes: {Error(Marshal.GetLastPInvokeError())}.");
    }

    internal static void Protect(byte* address, long length, int protection)
    {
        if (mprotect(address, (nuint)length, protection) == 0)
            return;
        int error = Marshal.GetLastPInvokeError();
        throw error == OutOfMemory
            ? new InsufficientMemoryException($"There is not enough memory for {length} bytes: {Error(error)}.")
            : new InvalidOperationException($"Memory cannot be protected: {Error(error)}.");
    }

    /// <summary>Makes the names in a folder last.</summary>
    internal static void SynchronizeDirectory(string path)
    {
        int descriptor = open(path, OpenDirectory | OpenCloseOnExec);
        if (descriptor < 0)
            throw new IOException($"The folder {path} cannot be opened: {Error(Marshal.GetLastPInvokeError())}.");
        int result = fsync(descriptor);
        int error = Marshal.GetLastPInvokeError();
        _ = close(descriptor);
        // Some file systems have no such operation for folders, and need none.
        if (result != 0 && error != InvalidArgument)
            throw new IOException($"The folder {path} cannot be written to disk: {Error(error)}.");
    }

    internal static string Error(int errno) => Marshal.GetPInvokeErrorMessage(errno);

    [LibraryImport("libc", EntryPoint = "pthread_create")]
    internal static partial int CreateThread(nint* thread, void* attributes, void* start, void* argument);

    [LibraryImport("libc", EntryPoint = "pthread_join")]
    internal static partial int JoinThread(nint thread, void** result);

    [LibraryImport("libc", SetLastError = true)]
    private static partial byte* mmap(void* address, nuint length, int protection, int flags, int descriptor, long offset);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int munmap(void* address, nuint length);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int madvise(void* address, nuint length, int advice);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int mprotect(void* address, nuint length, int protection);

    [LibraryImport("libc", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int open(string path, int flags);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int fsync(int descriptor);

    [LibraryImport("libc")]
    private static partial int close(int descriptor);
}
