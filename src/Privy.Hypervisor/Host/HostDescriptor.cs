namespace Privy.Hypervisor.Host;

/// <summary>Descriptors of the hypervisor itself: kept high, out of the way of the program, which expects the lowest free number.</summary>
public static class HostDescriptor
{
    /// <summary>Lowest number for a descriptor of the hypervisor, where the limit allows.</summary>
    public const int High = 512;

    private const ulong FcntlDupfdCloexec = 1030;

    /// <summary>Moves a descriptor to a high number, close-on-exec, and closes the old one.</summary>
    public static int MoveHigh(int descriptor)
    {
        long high = -Errno.EINVAL;
        // EINVAL: above RLIMIT_NOFILE.
        for (int lowest = High; high == -Errno.EINVAL && lowest >= 16; lowest /= 2)
            high = HostSyscall.RawQuick(HostCallNumber.Fcntl, (ulong)descriptor, FcntlDupfdCloexec, (ulong)lowest);
        HostSyscall.Checked(high, "fcntl(F_DUPFD_CLOEXEC)", $"descriptor {descriptor}");
        HostSyscall.RawQuick(HostCallNumber.Close, (ulong)descriptor);
        return (int)high;
    }
}
