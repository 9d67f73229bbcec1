using System.Text;
using Privy.Hypervisor.Syscalls;
using Privy.Kvm;

namespace Privy.Hypervisor.Host;

/// <summary>Reads files of /proc on the calling thread, by its own table of descriptors.</summary>
internal static unsafe class HostFile
{
    /// <summary>All of a file; nothing where it cannot be opened (no descriptor is left, say).</summary>
    internal static string ReadText(string path)
    {
        var file = Open(path);
        if (file < 0)
            return "";
        using var contents = new MemoryStream();
        var buffer = new byte[1 << 16];
        fixed (byte* at = buffer)
        {
            for (long got; (got = HostSyscall.Raw(SyscallNumber.read, (ulong)file, (ulong)at, (ulong)buffer.Length)) > 0 || got == -Errno.EINTR;)
                contents.Write(buffer, 0, (int)Math.Max(got, 0));
        }

        OwnDescriptors.Close(file);
        return Encoding.UTF8.GetString(contents.GetBuffer(), 0, (int)contents.Length);
    }

    /// <summary>Opens a file for reading, not at a number that another thread of the program may close meanwhile (<see cref="KeptFile"/>).</summary>
    /// <returns>A descriptor of the hypervisor's own, or a negative error number.</returns>
    internal static int Open(string path)
    {
        const ulong closeOnExec = 0x80000;
        var name = Encoding.UTF8.GetBytes(path + '\0');
        return OwnDescriptors.Make(() =>
        {
            fixed (byte* at = name)
                return (int)HostSyscall.Raw(SyscallNumber.open, (ulong)at, closeOnExec);
        });
    }
}
