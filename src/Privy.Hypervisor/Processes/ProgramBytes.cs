using System.Text;

namespace Privy.Hypervisor.Processes;

/// <summary>
/// Paths, arguments and environment are bytes to Linux. They travel through the hypervisor as Latin-1 text, one character a
/// byte, so that what is no valid UTF-8 survives.
/// </summary>
internal static class ProgramBytes
{
    internal static string Decode(ReadOnlySpan<byte> bytes) => Encoding.Latin1.GetString(bytes);

    internal static byte[] Encode(string text) => Encoding.Latin1.GetBytes(text);

    /// <summary>Text as .NET has it (UTF-8 decoded) in the form used here.</summary>
    internal static string FromText(string text) => Decode(Encoding.UTF8.GetBytes(text));

    /// <summary>The reverse, for .NET's file functions.</summary>
    internal static string ToText(string bytes) => Encoding.UTF8.GetString(Encode(bytes));

    /// <summary>The environment this process was started with.</summary>
    internal static List<string> HostEnvironment()
    {
        var list = new List<string>();
        var bytes = File.ReadAllBytes("/proc/self/environ").AsSpan();
        while (bytes.Length > 0)
        {
            var end = bytes.IndexOf((byte)0);
            var entry = end < 0 ? bytes : bytes[..end];
            if (entry.Length > 0)
                list.Add(Decode(entry));
            bytes = end < 0 ? default : bytes[(end + 1)..];
        }

        return list;
    }
}
