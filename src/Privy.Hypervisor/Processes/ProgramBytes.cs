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

    /// <summary>
    /// The last arguments of this process, of which .NET has the given texts: the bytes themselves where they are no UTF-8, which it replaces.
    /// </summary>
    internal static List<string> HostArguments(IReadOnlyList<string> texts)
    {
        var list = new List<string>(texts.Count);
        List<string>? bytes = null;
        for (var i = 0; i < texts.Count; i++)
        {
            var text = FromText(texts[i]);
            if (texts[i].Contains('\uFFFD', StringComparison.Ordinal))
            {
                bytes ??= HostStrings("/proc/self/cmdline");
                var at = bytes.Count - texts.Count + i;
                // Another caller than the command line may have other arguments than the process.
                if (at >= 0 && ToText(bytes[at]) == texts[i])
                    text = bytes[at];
            }

            list.Add(text);
        }

        return list;
    }

    /// <summary>The environment this process was started with.</summary>
    internal static List<string> HostEnvironment() => HostStrings("/proc/self/environ").FindAll(entry => entry.Length > 0);

    private static List<string> HostStrings(string file)
    {
        var list = new List<string>();
        var bytes = File.ReadAllBytes(file).AsSpan();
        while (bytes.Length > 0)
        {
            var end = bytes.IndexOf((byte)0);
            list.Add(Decode(end < 0 ? bytes : bytes[..end]));
            bytes = end < 0 ? default : bytes[(end + 1)..];
        }

        return list;
    }
}
