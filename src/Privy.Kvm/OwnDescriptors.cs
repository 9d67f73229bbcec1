using System.Runtime.InteropServices;

namespace Privy.Kvm;

/// <summary>The hypervisor's own file descriptors: kept high, out of the program's way, and known, so that the program cannot touch them.</summary>
public static class OwnDescriptors
{
    private const int Limit = 1 << 20;

    // A fork copies the descriptor table up to the highest number in use, and a child's end walks it: with numbers near a limit of a million that is milliseconds.
    private const int HighestFirstNumber = 3968;
    private const int LowestFirstNumber = 64;
    private static readonly ulong[] Bits = new ulong[Limit / 64];

    // Whoever makes a descriptor holds it for writing, the program's threads for reading while they close some.
    private static readonly ReaderWriterLockSlim Making = new(LockRecursionPolicy.SupportsRecursion);

    /// <summary>Moves a descriptor up to where programs seldom count to, and records it.</summary>
    /// <returns>The number it has now; unchanged when there is no room.</returns>
    public static int Adopt(int descriptor) => Make(() => descriptor);

    /// <summary>
    /// Makes a descriptor while the program runs. Until it is recorded, its number is one that a program may close that closes all there are; so none does meanwhile
    /// (<see cref="BeginClosing"/>).
    /// </summary>
    /// <param name="make">Returns it, or a negative number, which is then the result.</param>
    public static int Make(Func<int> make)
    {
        ArgumentNullException.ThrowIfNull(make);
        Making.EnterWriteLock();
        try
        {
            var descriptor = make();
            if (descriptor < 0)
                return descriptor;
            var high = NativeMethods.Fcntl(descriptor, NativeMethods.F_DUPFD_CLOEXEC, FirstNumber());
            // With more threads and children than there is room: among the program's numbers then, but not where it counts on the next one.
            if (high < 0 && descriptor < LowestFirstNumber)
                high = NativeMethods.Fcntl(descriptor, NativeMethods.F_DUPFD_CLOEXEC, LowestFirstNumber);
            if (high >= 0)
            {
                _ = NativeMethods.Close(descriptor);
                descriptor = high;
            }

            Add(descriptor);
            return descriptor;
        }
        finally
        {
            Making.ExitWriteLock();
        }
    }

    /// <summary>The program is about to close descriptors, or to replace one by another.</summary>
    public static void BeginClosing() => Making.EnterReadLock();

    /// <summary>It has.</summary>
    public static void EndClosing() => Making.ExitReadLock();

    /// <summary>Records a descriptor.</summary>
    public static void Add(int descriptor)
    {
        if ((uint)descriptor < Limit)
            Interlocked.Or(ref Bits[descriptor / 64], 1UL << (descriptor % 64));
    }

    /// <summary>Forgets a descriptor that was closed.</summary>
    public static void Remove(int descriptor)
    {
        if ((uint)descriptor < Limit)
            Interlocked.And(ref Bits[descriptor / 64], ~(1UL << (descriptor % 64)));
    }

    /// <summary>Closes and forgets a descriptor.</summary>
    public static void Close(int descriptor)
    {
        // In this order: once closed, the number may be the program's.
        Remove(descriptor);
        _ = NativeMethods.Close(descriptor);
    }

    /// <summary>True for a descriptor of the hypervisor.</summary>
    public static bool Contains(int descriptor) =>
        (uint)descriptor < Limit && (Volatile.Read(ref Bits[descriptor / 64]) >> (descriptor % 64) & 1) != 0;

    /// <summary>The first number from <paramref name="first"/> to <paramref name="last"/> that is a descriptor of the hypervisor; the one behind the last if none is.</summary>
    public static int Next(int first, int last)
    {
        for (var number = first; number <= last && number < Limit; number++)
        {
            var word = Volatile.Read(ref Bits[number / 64]) >> (number % 64);
            if ((word & 1) != 0)
                return number;
            if (word == 0)
                number |= 63;
        }

        return last + 1;
    }

    /// <summary>
    /// Copies a descriptor of the process' first thread into the calling thread's own table, under the same number, unless it is there. That the number is
    /// in use does not say so: it may have been another file's when the table was copied.
    /// </summary>
    /// <param name="descriptor">The number.</param>
    /// <param name="linkName">What /proc calls the file.</param>
    /// <exception cref="KvmException">The kernel refused.</exception>
    internal static unsafe void Import(int descriptor, ReadOnlySpan<byte> linkName)
    {
        const long readlink = 89;
        var name = stackalloc byte[64];
        fixed (byte* path = System.Text.Encoding.ASCII.GetBytes($"/proc/thread-self/fd/{descriptor}\0"))
        {
            var length = (int)NativeMethods.Syscall(readlink, (nint)path, (nint)name, 64);
            if (length > 0 && linkName.SequenceEqual(new ReadOnlySpan<byte>(name, length)))
                return;
        }

        const long pidfdOpen = 434, pidfdGetfd = 438, dup3 = 292;
        var self = (int)NativeMethods.Syscall(pidfdOpen, Environment.ProcessId, 0, 0);
        var errno = Marshal.GetLastPInvokeError();
        if (self >= 0)
        {
            var copy = (int)NativeMethods.Syscall(pidfdGetfd, self, descriptor, 0);
            errno = Marshal.GetLastPInvokeError();
            _ = NativeMethods.Close(self);
            if (copy >= 0)
            {
                var placed = NativeMethods.Syscall(dup3, copy, descriptor, NativeMethods.O_CLOEXEC);
                errno = Marshal.GetLastPInvokeError();
                _ = NativeMethods.Close(copy);
                if (placed >= 0)
                    return;
            }
        }

        throw new KvmException($"pidfd_getfd(descriptor {descriptor} of the first thread)", errno);
    }

    private static int FirstNumber() => FirstNumber(NativeMethods.DescriptorLimit());

    /// <summary>Where the hypervisor's descriptors begin under a limit: half of the numbers is theirs where there are few, as each thread and each child needs one or two.</summary>
    internal static int FirstNumber(long limit) => (int)Math.Clamp(limit - Math.Clamp(limit / 2, 128, 1024), LowestFirstNumber, HighestFirstNumber);
}
