using System.Diagnostics.Tracing;

namespace Privy.Diagnostics;

/// <summary>The event source <c>Privy</c>: one event for each snapshot and checkpoint.</summary>
[EventSource(Name = "Privy")]
internal sealed class PrivyEventSource : EventSource
{
    internal static readonly PrivyEventSource Log = new();

    private PrivyEventSource()
    {
    }

    [Event(1, Level = EventLevel.Informational)]
    public void SnapshotTaken(long epoch, double microseconds)
    {
        if (IsEnabled())
            WriteEvent(1, [epoch, microseconds]);
    }

    [Event(2, Level = EventLevel.Informational)]
    public void CheckpointWritten(long number, long pages, double milliseconds)
    {
        if (IsEnabled())
            WriteEvent(2, [number, pages, milliseconds]);
    }
}
