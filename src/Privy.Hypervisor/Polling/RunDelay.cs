using Privy.Hypervisor.Host;

namespace Privy.Hypervisor.Polling;

/// <summary>How long the thread that made this has waited for a processor while it could have run (/proc/thread-self/schedstat).</summary>
internal sealed class RunDelay
{
    private readonly KeptFile _file = new("/proc/thread-self/schedstat");

    /// <summary>Nanoseconds so far; 0 where the kernel does not count them.</summary>
    internal long Read()
    {
        Span<byte> text = stackalloc byte[128];
        // Time on a processor, time waiting for one, number of slices.
        ReadOnlySpan<byte> fields = text[.._file.Read(text, 0)];
        var value = fields[(fields.IndexOf((byte)' ') + 1)..];
        var end = value.IndexOf((byte)' ');
        return end > 0 && System.Buffers.Text.Utf8Parser.TryParse(value[..end], out long delay, out _) ? delay : 0;
    }
}
