using System.Globalization;

namespace Privy.Bench;

/// <summary>What a measurement must say about where it was made.</summary>
public static class Machine
{
    /// <summary>Processor, memory and kernel in one line.</summary>
    public static string Describe()
    {
        var model = Field("/proc/cpuinfo", "model name") ?? "unknown processor";
        var memory = long.Parse((Field("/proc/meminfo", "MemTotal") ?? "0 kB").Split(' ')[0], CultureInfo.InvariantCulture);
        var kernel = Read("/proc/sys/kernel/osrelease") ?? "unknown";
        return string.Create(CultureInfo.InvariantCulture, $"{Environment.ProcessorCount} × {model}, {memory / 1048576.0:0} GB memory, Linux {kernel}, huge pages: {Selected("/sys/kernel/mm/transparent_hugepage/enabled") ?? "none"}");
    }

    /// <summary>Memory that can be had without swapping, in bytes.</summary>
    public static long AvailableMemory() => long.Parse((Field("/proc/meminfo", "MemAvailable") ?? "0 kB").Split(' ')[0], CultureInfo.InvariantCulture) * 1024;

    /// <summary>The value in brackets of a file of alternatives, such as "always [madvise] never".</summary>
    public static string? Selected(string path)
    {
        if (Read(path) is not { } text) return null;
        var open = text.IndexOf('[', StringComparison.Ordinal);
        var close = text.IndexOf(']', StringComparison.Ordinal);
        return open >= 0 && close > open ? text[(open + 1)..close] : text;
    }

    /// <summary>The value of the first line "name : value" of a file.</summary>
    public static string? Field(string path, string name)
    {
        try
        {
            foreach (var line in File.ReadLines(path))
                if (line.StartsWith(name, StringComparison.Ordinal) && line.IndexOf(':', StringComparison.Ordinal) is > 0 and var colon) return line[(colon + 1)..].Trim();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }

        return null;
    }

    /// <summary>A small file's text, or null if it cannot be read.</summary>
    public static string? Read(string path)
    {
        try
        {
            return File.ReadAllText(path).Trim();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }
}
