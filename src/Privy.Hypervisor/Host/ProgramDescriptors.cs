using System.Globalization;
using Privy.Hypervisor.Syscalls;
using Privy.Kvm;

namespace Privy.Hypervisor.Host;

/// <summary>The descriptors of the main process, in the table that the hypervisor's own threads share with it.</summary>
internal static class ProgramDescriptors
{
    /// <summary>
    /// Closes them, as the end of a process does: children that outlive main, whose tables are their own, and everybody else at the other end of a pipe
    /// or socket wait for that.
    /// </summary>
    internal static void CloseAll()
    {
        foreach (var link in Directory.GetFileSystemEntries("/proc/self/fd"))
        {
            if (int.TryParse(Path.GetFileName(link), CultureInfo.InvariantCulture, out var descriptor) && !OwnDescriptors.Contains(descriptor) && IsProgrammed(link))
                _ = HostSyscall.RawQuick(SyscallNumber.close, (ulong)descriptor);
        }
    }

    /// <summary>False for what a thread of the hypervisor may have opened just now, to read it or to record it as its own next.</summary>
    private static bool IsProgrammed(string link)
    {
        try
        {
            var target = new FileInfo(link).LinkTarget;
            return target is not null && !target.StartsWith("/proc/", StringComparison.Ordinal) && !target.StartsWith("/sys/", StringComparison.Ordinal)
                && !target.StartsWith("anon_inode:kvm", StringComparison.Ordinal) && !target.StartsWith("anon_inode:[pidfd]", StringComparison.Ordinal);
        }
        catch (IOException)
        {
            return false;
        }
    }
}
