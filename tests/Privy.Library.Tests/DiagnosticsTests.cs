using System.Diagnostics.Metrics;
using System.Diagnostics.Tracing;

namespace Privy.Library.Tests;

public sealed class DiagnosticsTests
{
    private const int Page = SnapshotRegion.PageSize;

    [Fact]
    public void The_meter_counts_what_regions_do()
    {
        var sums = new Dictionary<string, double>();
        using var listener = new MeterListener();
        listener.InstrumentPublished = (instrument, l) =>
        {
            if (instrument.Meter.Name == "Privy")
                l.EnableMeasurementEvents(instrument);
        };
        listener.SetMeasurementEventCallback<long>((instrument, value, _, _) => sums[instrument.Name] = value);
        listener.SetMeasurementEventCallback<double>((instrument, value, _, _) => sums[instrument.Name] = sums.GetValueOrDefault(instrument.Name) + 1);
        using (SnapshotRegion first = SnapshotRegion.Create(Page, new() { AllowCopying = true }))
            first.TakeSnapshot().Dispose();
        listener.Start();
        listener.RecordObservableInstruments();
        var before = new Dictionary<string, double>(sums);
        using (SnapshotRegion region = SnapshotRegion.Create(16 * Page, new() { AllowCopying = true }))
        {
            using Snapshot snapshot = region.TakeSnapshot();
            region.AsSpan<byte>(0, 1)[0] = 1;
            listener.RecordObservableInstruments();
            Assert.Equal(1, sums["privy.snapshots"] - before["privy.snapshots"]);
            Assert.Equal(1, sums["privy.snapshots.alive"] - before["privy.snapshots.alive"]);
            Assert.Equal(16 * Page, sums["privy.region.bytes"] - before["privy.region.bytes"]);
            Assert.True(sums["privy.copies"] > before["privy.copies"]);
            Assert.True(sums["privy.copy.bytes"] > before["privy.copy.bytes"]);
            Assert.Equal(1, sums["privy.snapshot.time"] - before.GetValueOrDefault("privy.snapshot.time"));
        }
        // Counters keep what regions of before have counted.
        listener.RecordObservableInstruments();
        Assert.Equal(1, sums["privy.snapshots"] - before["privy.snapshots"]);
        Assert.Equal(before["privy.copy.bytes"], sums["privy.copy.bytes"]);
        Assert.Equal(before["privy.region.bytes"], sums["privy.region.bytes"]);
    }

    [Fact]
    public void Snapshots_and_checkpoints_are_events()
    {
        string folder = Directory.CreateTempSubdirectory("privy-events").FullName;
        try
        {
            using SnapshotRegion region = SnapshotRegion.Create(4 * Page, new() { AllowCopying = true });
            region.AsSpan<byte>(0, 1)[0] = 1;
            using var listener = new Listener();
            using var checkpointer = new Checkpointer(region, folder);
            checkpointer.Write();
            EventWrittenEventArgs snapshot = Assert.Single(listener.Events, e => e.EventName == "SnapshotTaken");
            Assert.Equal(1L, snapshot.Payload![0]);
            EventWrittenEventArgs checkpoint = Assert.Single(listener.Events, e => e.EventName == "CheckpointWritten");
            Assert.Equal(1L, checkpoint.Payload![0]);
            Assert.Equal(1L, checkpoint.Payload[1]);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private sealed class Listener : EventListener
    {
        internal List<EventWrittenEventArgs> Events { get; } = [];

        protected override void OnEventSourceCreated(EventSource eventSource)
        {
            if (eventSource.Name == "Privy")
                EnableEvents(eventSource, EventLevel.Informational);
        }

        protected override void OnEventWritten(EventWrittenEventArgs eventData)
        {
            if (eventData.EventSource.Name == "Privy")
                Events.Add(eventData);
        }
    }
}
