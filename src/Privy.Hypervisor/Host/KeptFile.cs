using System.Text;
using Privy.Hypervisor.Syscalls;

namespace Privy.Hypervisor.Host;

/// <summary>
/// A file of /proc or /sys that is read now and then while the program runs, each time from the host's present state. It stays open: a descriptor that is opened for each use
/// has a number of the program's for a moment. A program that closes what it has closed already, as bash does after each part of a pipeline, would close it, get the
/// number for a file of its own, and lose that when the hypervisor has read enough.
/// </summary>
internal sealed unsafe class KeptFile
{
    private readonly int _descriptor;

    /// <summary>Opens it. On a thread of the main process, before the first fork if children read it: their tables are copies.</summary>
    internal KeptFile(string path) => _descriptor = HostFile.Open(path);

    /// <summary>Reads from a position; 0 bytes where there is no such file.</summary>
    internal int Read(Span<byte> destination, long position)
    {
        if (_descriptor < 0)
            return 0;
        fixed (byte* at = destination)
            return (int)Math.Max(0, HostSyscall.RawQuick(SyscallNumber.pread64, (ulong)_descriptor, (ulong)at, (ulong)destination.Length, (ulong)position));
    }

    /// <summary>What it says, at most the first 4,096 bytes.</summary>
    internal string Text()
    {
        Span<byte> bytes = stackalloc byte[4096];
        return Encoding.UTF8.GetString(bytes[..Read(bytes, 0)]);
    }

    /// <summary>The lines of <see cref="Text"/>.</summary>
    internal string[] Lines() => Text().Split('\n');
}
