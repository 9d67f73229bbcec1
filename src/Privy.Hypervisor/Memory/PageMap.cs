using System.Runtime.InteropServices;
using Privy.Hypervisor.Host;
using Privy.Kernel;

namespace Privy.Hypervisor.Memory;

/// <summary>Tells which pages of the process exist, from /proc/self/pagemap (Linux Documentation/admin-guide/mm/pagemap).</summary>
internal sealed class PageMap
{
    private const ulong Present = 1UL << 63;
    private const ulong Swapped = 1UL << 62;

    private readonly KeptFile _file = new("/proc/self/pagemap");

    /// <summary>Sets one byte a page: 1 if the page has contents, 0 if it was never touched.</summary>
    internal void ReadPopulated(ulong address, Span<byte> populated)
    {
        Span<ulong> words = stackalloc ulong[512];
        for (var at = 0; at < populated.Length; at += words.Length)
        {
            var count = Math.Min(words.Length, populated.Length - at);
            var bytes = MemoryMarshal.AsBytes(words[..count]);
            var read = _file.Read(bytes, (long)((address / Layout.PageSize) + (ulong)at) * sizeof(ulong));
            for (var i = 0; i < count; i++)
                populated[at + i] = (i + 1) * sizeof(ulong) <= read && (words[i] & (Present | Swapped)) == 0 ? (byte)0 : (byte)1;
        }
    }
}
