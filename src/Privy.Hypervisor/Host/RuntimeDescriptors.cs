using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Privy.Kvm;

namespace Privy.Hypervisor.Host;

/// <summary>
/// The descriptor that the runtime keeps for itself: /dev/urandom, opened for the first random number. It would be the 3 that a program
/// expects for the first file it opens, and the runtime would read the program's data as random numbers once the program has put something else there.
/// </summary>
internal static partial class RuntimeDescriptors
{
    // Above what shells use for themselves (10 and up, 63 and down), below 255, which bash takes for its script.
    private const nint FirstNumber = 128;

    /// <summary>Makes the runtime open it at a number out of the way. Before anything that hashes a string, so before most things.</summary>
    [MethodImpl(MethodImplOptions.NoInlining)]
    internal static unsafe void Displace()
    {
        nint source = 0;
        nint next;
        while ((next = Duplicate(source)) < 0)
        {
            // Nothing open to make copies of.
            if (++source > 2)
                return;
        }

        var fillers = stackalloc nint[(int)FirstNumber];
        var count = 0;
        while (next >= 0 && next < FirstNumber)
        {
            fillers[count++] = next;
            next = Duplicate(source);
        }

        if (next >= 0)
        {
            // The lowest free number from here on, and so the one that the next open gets.
            _ = Close(next);
            _ = "".GetHashCode(StringComparison.Ordinal);
            OwnDescriptors.Add((int)next);
        }

        for (var i = 0; i < count; i++)
            _ = Close(fillers[i]);
    }

    // Not by way of libc: finding its functions is the first thing that hashes strings. These are linked in.
    [LibraryImport("libSystem.Native", EntryPoint = "SystemNative_Dup")]
    private static partial nint Duplicate(nint descriptor);

    [LibraryImport("libSystem.Native", EntryPoint = "SystemNative_Close")]
    private static partial int Close(nint descriptor);
}
