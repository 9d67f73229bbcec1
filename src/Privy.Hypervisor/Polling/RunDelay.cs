using Privy.Hypervisor.Host;
using Privy.Hypervisor.Syscalls;
using Privy.Kvm;

namespace Privy.Hypervisor.Polling;

/// <summary>How long the calling thread has waited for a processor while it could have run (/proc/thread-self/schedstat).</summary>
internal sealed unsafe class RunDelay
{
    private readonly int _descriptor = -1;

    internal RunDelay()
    {
        const long currentDirectory = -100, readOnlyCloseOnExec = 0x80000;
        fixed (byte* path = "/proc/thread-self/schedstat\0"u8)
        {
            var opened = (int)HostSyscall.Raw(SyscallNumber.openat, unchecked((ulong)currentDirectory), (ulong)path, readOnlyCloseOnExec);
            if (opened >= 0)
                _descriptor = OwnDescriptors.Adopt(opened);
        }
    }

    /// <summary>Nanoseconds so far; 0 where the kernel does not count them.</summary>
    internal long Read()
    {
        const int room = 128;
        var text = stackalloc byte[room];
        var length = _descriptor < 0 ? 0 : (int)HostSyscall.RawQuick(SyscallNumber.pread64, (ulong)_descriptor, (ulong)text, room, 0);
        if (length <= 0)
            return 0;
        // Time on a processor, time waiting for one, number of slices.
        var fields = new ReadOnlySpan<byte>(text, length);
        var value = fields[(fields.IndexOf((byte)' ') + 1)..];
        var end = value.IndexOf((byte)' ');
        return end > 0 && System.Buffers.Text.Utf8Parser.TryParse(value[..end], out long delay, out _) ? delay : 0;
    }
}
