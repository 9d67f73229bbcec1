using System.Text;
using Privy.Hypervisor.Host;
using static Privy.Hypervisor.Syscalls.SyscallNumber;

namespace Privy.Hypervisor.Syscalls;

/// <summary>/proc/self/maps and its relatives: the program's own memory, not the hypervisor's; and the ids of a forked child in stat and status.</summary>
public static unsafe partial class SyscallDispatcher
{
    private const ulong CloseOnExec = 0x80000;

    private static long Open(ISyscallContext context, in SyscallArguments arguments) =>
        ShowOwn(context, SyscallMarshaller.Execute(context, Described(open), in arguments), arguments.A0, arguments.A1);

    private static long OpenAt(ISyscallContext context, in SyscallArguments arguments) =>
        ShowOwn(context, SyscallMarshaller.Execute(context, Described(openat), in arguments), arguments.A1, arguments.A2);

    /// <summary>Puts another file in the place of one that was just opened, if that is one that tells of the process. All refusals were the host's.</summary>
    private static long ShowOwn(ISyscallContext context, long opened, ulong path, ulong flags)
    {
        const ulong pathOnly = 0x200000;
        if (opened < 0 || (flags & pathOnly) != 0)
            return opened;
        var text = SyscallPaths.MemoryReportOf(context, path) is { } report ? context.ListMemory(report)
            : SyscallPaths.IdentityReportOf(context, path) is { } name ? context.ShowIdentity(name) : null;
        if (text is null)
            return opened;
        var result = CreateFile(Encoding.UTF8.GetBytes(text));
        if (result >= 0)
        {
            var file = (ulong)result;
            result = HostSyscall.Raw(dup3, file, (ulong)opened, flags & CloseOnExec);
            _ = HostSyscall.Raw(close, file);
        }

        if (result < 0)
            _ = HostSyscall.Raw(close, (ulong)opened);
        return result;
    }

    /// <summary>A descriptor, open for reading, of a file without a name.</summary>
    private static long CreateFile(ReadOnlySpan<byte> contents)
    {
        long file, reader;
        fixed (byte* name = "maps\0"u8)
            file = HostSyscall.Raw(memfd_create, (ulong)name, 1 /* MFD_CLOEXEC */);
        if (file < 0)
            return file;
        reader = 0;
        fixed (byte* at = contents)
        {
            for (var done = 0; done < contents.Length && reader >= 0; done += (int)reader)
                reader = HostSyscall.Raw(pwrite64, (ulong)file, (ulong)(at + done), (ulong)(contents.Length - done), (ulong)done);
        }

        if (reader >= 0)
        {
            // The thread's own: a forked child has another table of descriptors than the process' first thread.
            fixed (byte* path = Encoding.ASCII.GetBytes($"/proc/thread-self/fd/{file}\0"))
                reader = HostSyscall.Raw(open, (ulong)path, CloseOnExec);
        }

        _ = HostSyscall.Raw(close, (ulong)file);
        return reader;
    }
}
