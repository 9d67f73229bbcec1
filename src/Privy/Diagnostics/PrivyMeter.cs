using System.Diagnostics.Metrics;

namespace Privy.Diagnostics;

/// <summary>The meter <c>Privy</c>: sums over all regions of the process, for <c>dotnet-counters monitor --counters Privy</c>.</summary>
internal static class PrivyMeter
{
    private static readonly Lock Gate = new();
    private static readonly List<SnapshotRegion> Regions = [];
    private static readonly Meter Meter = new("Privy");
    private static readonly Histogram<double> SnapshotTime = Meter.CreateHistogram<double>("privy.snapshot.time", "us", "Time to take a snapshot");

    // What the regions of before have counted stays in the sums.
    private static long s_snapshots;
    private static long s_faults;
    private static long s_copies;

    static PrivyMeter()
    {
        Meter.CreateObservableCounter("privy.snapshots", () => Sum(s => s.SnapshotsTaken, Volatile.Read(ref s_snapshots)), "{snapshot}", "Snapshots taken");
        Meter.CreateObservableCounter("privy.faults", () => Sum(s => s.Faults, Volatile.Read(ref s_faults)), "{fault}", "Writes that waited for their page");
        Meter.CreateObservableCounter("privy.copies", () => Sum(s => s.PagesCopied, Volatile.Read(ref s_copies)), "{page}", "Pages copied for snapshots");
        Meter.CreateObservableUpDownCounter("privy.snapshots.alive", () => Sum(s => s.SnapshotsAlive, 0), "{snapshot}", "Snapshots not yet disposed of");
        Meter.CreateObservableUpDownCounter("privy.copy.bytes", () => Sum(s => s.CopyBytes, 0), "By", "Memory that copies take");
        Meter.CreateObservableUpDownCounter("privy.region.bytes", RegionBytes, "By", "Length of all regions");
    }

    internal static void SnapshotTaken(TimeSpan time) => SnapshotTime.Record(time.TotalMicroseconds);

    internal static void Add(SnapshotRegion region)
    {
        lock (Gate)
            Regions.Add(region);
    }

    internal static void Remove(SnapshotRegion region, SnapshotStatistics last)
    {
        lock (Gate)
        {
            Regions.Remove(region);
            s_snapshots += last.SnapshotsTaken;
            s_faults += last.Faults;
            s_copies += last.PagesCopied;
        }
    }

    private static long Sum(Func<SnapshotStatistics, long> value, long before)
    {
        lock (Gate)
        {
            long sum = before;
            foreach (SnapshotRegion region in Regions)
                sum += value(region.Statistics);
            return sum;
        }
    }

    private static long RegionBytes()
    {
        lock (Gate)
        {
            long sum = 0;
            foreach (SnapshotRegion region in Regions)
                sum += region.Length;
            return sum;
        }
    }
}
