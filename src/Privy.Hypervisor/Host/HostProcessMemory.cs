using System.Globalization;

namespace Privy.Hypervisor.Host;

/// <summary>How much memory this process may still use.</summary>
internal static class HostProcessMemory
{
    /// <summary>Bytes that are free, or can be freed without swapping, within the system and the process' control group.</summary>
    internal static ulong Available() => Math.Min(OfSystem("/proc/meminfo"), OfGroup("/proc/self/cgroup", "/sys/fs/cgroup"));

    /// <summary>MemAvailable; 0 where it cannot be read.</summary>
    internal static ulong OfSystem(string file)
    {
        const string name = "MemAvailable:";
        foreach (var line in Lines(file))
        {
            if (line.StartsWith(name, StringComparison.Ordinal) && ulong.TryParse(line.AsSpan(name.Length).TrimEnd("kB"), NumberStyles.AllowLeadingWhite | NumberStyles.AllowTrailingWhite, CultureInfo.InvariantCulture, out var kilobytes))
                return kilobytes << 10;
        }

        return 0;
    }

    /// <summary>What the tightest of the control group's limits leaves; <see cref="ulong.MaxValue"/> where there is none (version 2 alone).</summary>
    internal static ulong OfGroup(string groupFile, string root)
    {
        var left = ulong.MaxValue;
        foreach (var line in Lines(groupFile))
        {
            if (!line.StartsWith("0::/", StringComparison.Ordinal))
                continue;
            for (var group = line[3..].TrimEnd('/'); ; group = group[..group.LastIndexOf('/')])
            {
                if (Number(root + group + "/memory.max") is { } limit && Number(root + group + "/memory.current") is { } used)
                    left = Math.Min(left, limit > used ? limit - used : 0);
                if (group.Length == 0)
                    break;
            }
        }

        return left;
    }

    private static ulong? Number(string file) =>
        Lines(file) is [var text, ..] && ulong.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var value) ? value : null;

    private static string[] Lines(string file)
    {
        try
        {
            return File.ReadAllLines(file);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return [];
        }
    }
}
