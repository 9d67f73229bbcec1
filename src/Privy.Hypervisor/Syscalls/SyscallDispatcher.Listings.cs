using System.Buffers.Binary;
using System.Buffers.Text;
using System.Text;
using Privy.Hypervisor.Host;
using static Privy.Hypervisor.Syscalls.SyscallNumber;

namespace Privy.Hypervisor.Syscalls;

/// <summary>Listings of /proc/PID/fd without the descriptors of the hypervisor.</summary>
public static unsafe partial class SyscallDispatcher
{
    private static long ListDirectory(ISyscallContext context, in SyscallArguments arguments)
    {
        while (true)
        {
            var result = SyscallMarshaller.Execute(context, Described(getdents64), in arguments);
            if (result <= 0 || !IsDescriptorFolder((int)arguments.A0)) return result;
            var left = WithoutReserved(context, arguments.A1, (int)result);
            // Nothing left of this piece does not mean the end.
            if (left != 0) return left;
        }
    }

    private static bool IsDescriptorFolder(int descriptor)
    {
        const int Longest = 64;
        Span<byte> path = stackalloc byte[Longest];
        // The thread's own: a forked child has another table than the process' first thread.
        var length = Encoding.ASCII.GetBytes($"/proc/thread-self/fd/{descriptor}\0", path);
        Span<byte> target = stackalloc byte[Longest];
        fixed (byte* from = path[..length], to = target)
        {
            var result = HostSyscall.Raw(readlink, (ulong)from, (ulong)to, Longest);
            if (result is <= 0 or Longest) return false;
            target = target[..(int)result];
        }

        return target.StartsWith("/proc/"u8) && (target.EndsWith("/fd"u8) || target.EndsWith("/fdinfo"u8));
    }

    /// <summary>Closes the gaps that reserved descriptors leave in an array of linux_dirent64; returns its new length.</summary>
    private static long WithoutReserved(ISyscallContext context, ulong address, int length)
    {
        const int RecordLength = 16, Name = 19;
        var bytes = new byte[length];
        if (!context.TryRead(address, bytes)) return -Errno.EFAULT;
        var kept = 0;
        for (var at = 0; at + Name < length;)
        {
            var record = BinaryPrimitives.ReadUInt16LittleEndian(bytes.AsSpan(at + RecordLength));
            var isReserved = Utf8Parser.TryParse(bytes.AsSpan(at + Name), out int descriptor, out _) && context.IsReservedDescriptor(descriptor);
            if (!isReserved)
            {
                bytes.AsSpan(at, record).CopyTo(bytes.AsSpan(kept));
                kept += record;
            }
            at += record;
        }

        if (kept == length) return length;
        return context.TryWrite(address, bytes.AsSpan(0, kept)) ? kept : -Errno.EFAULT;
    }
}
