using System.Text;
using Privy.Kvm;

namespace Privy.Hypervisor.Host;

/// <summary>
/// Standard error as it was when Privy started, under a descriptor of its own: the program may close or redirect its 2, and a
/// child's thread has another table.
/// </summary>
internal static unsafe class ErrorOutput
{
    private const long Write = 1;
    private const long Dup = 32;
    private const long CloseRange = 436;

    private static readonly int s_descriptor = Open();
    private static int[] s_kept = [s_descriptor];

    /// <summary>Opens it; on a thread of main, before any child exists.</summary>
    internal static void Initialize() => _ = s_descriptor;

    /// <summary>Writes a line.</summary>
    internal static void WriteLine(string text)
    {
        var bytes = Encoding.UTF8.GetBytes(text + "\n");
        fixed (byte* at = bytes)
            _ = HostSyscall.Raw(Write, (ulong)s_descriptor, (ulong)at, (ulong)bytes.Length);
    }

    /// <summary>One more descriptor of the hypervisor that <see cref="CloseAllOthers"/> leaves: what the handler of a signal writes to, on whichever thread it runs.</summary>
    internal static void AlsoKeep(int descriptor)
    {
        int[] kept = [.. s_kept, descriptor];
        Array.Sort(kept);
        s_kept = kept;
    }

    /// <summary>Closes all descriptors of the calling thread's table but this one and those of <see cref="AlsoKeep"/>.</summary>
    internal static void CloseAllOthers()
    {
        var next = 0L;
        foreach (var kept in s_kept)
        {
            Close(next, kept - 1L);
            next = kept + 1L;
        }

        Close(next, uint.MaxValue);
    }

    private static void Close(long first, long last)
    {
        if (first <= last)
            _ = HostSyscall.Raw(CloseRange, (ulong)first, (ulong)last, 0);
    }

    private static int Open()
    {
        const ulong standardError = 2;
        var copy = (int)HostSyscall.Raw(Dup, standardError);
        return copy < 0 ? (int)standardError : OwnDescriptors.Adopt(copy);
    }
}
