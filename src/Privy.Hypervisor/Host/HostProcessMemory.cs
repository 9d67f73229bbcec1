using System.Globalization;

namespace Privy.Hypervisor.Host;

/// <summary>How much memory this process may still use. Its control group is the one that it starts in.</summary>
internal sealed class HostProcessMemory
{
    private readonly KeptFile _system;
    private readonly List<(KeptFile Limit, KeptFile Used)> _groups = [];

    /// <summary>Opens what is to be read. Before the program runs.</summary>
    internal HostProcessMemory()
        : this("/proc/meminfo", "/proc/self/cgroup", "/sys/fs/cgroup")
    {
    }

    internal HostProcessMemory(string systemFile, string groupFile, string root)
    {
        _system = new KeptFile(systemFile);
        foreach (var line in new KeptFile(groupFile).Lines())
        {
            // Version 2 alone.
            if (!line.StartsWith("0::/", StringComparison.Ordinal))
                continue;
            for (var group = line[3..].TrimEnd('/'); ; group = group[..group.LastIndexOf('/')])
            {
                if (File.Exists(root + group + "/memory.max"))
                    _groups.Add((new KeptFile(root + group + "/memory.max"), new KeptFile(root + group + "/memory.current")));
                if (group.Length == 0)
                    break;
            }
        }
    }

    /// <summary>Bytes that are free, or can be freed without swapping, within the system and the process' control group; 0 where the system's cannot be read.</summary>
    internal ulong Available()
    {
        var left = OfSystem();
        foreach (var (limit, used) in _groups)
        {
            if (Number(limit) is { } most && Number(used) is { } now)
                left = Math.Min(left, most > now ? most - now : 0);
        }

        return left;
    }

    private ulong OfSystem()
    {
        const string name = "MemAvailable:";
        foreach (var line in _system.Lines())
        {
            if (line.StartsWith(name, StringComparison.Ordinal) && ulong.TryParse(line.AsSpan(name.Length).TrimEnd("kB"), NumberStyles.AllowLeadingWhite | NumberStyles.AllowTrailingWhite, CultureInfo.InvariantCulture, out var kilobytes))
                return kilobytes << 10;
        }

        return 0;
    }

    private static ulong? Number(KeptFile file) =>
        ulong.TryParse(file.Text().AsSpan().TrimEnd(), NumberStyles.None, CultureInfo.InvariantCulture, out var value) ? value : null;
}
