namespace Privy.Bench.SyscallCost;

/// <summary>A measured call.</summary>
/// <param name="Key">Its name in the measured program and in CSV files.</param>
/// <param name="Name">Its name in tables.</param>
internal sealed record CallKind(string Key, string Name)
{
    public static IReadOnlyList<CallKind> All { get; } =
    [
        new("gettid", "gettid"),
        new("getpid-library", "getpid of the C library"),
        new("lseek", "lseek"),
        new("pread-cached", "pread 4 KB, cached"),
        new("pwrite-cached", "pwrite 4 KB, cached"),
        new("pread-direct", "pread 4 KB, uncached"),
        new("pwrite-direct", "pwrite 4 KB, uncached"),
        new("epoll", "epoll round trip"),
    ];
}
