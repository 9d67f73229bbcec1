using CsCheck;
using Privy.Bench;

namespace Privy.Cli.Tests;

public class LatencySeriesTests
{
    [Fact]
    public void Every_value_lies_in_its_bucket_and_a_bucket_is_at_most_a_thirtysecond_wide() =>
        Gen.Long[0, long.MaxValue / 2].Sample(value =>
        {
            var end = LatencySeries.BucketEnd(LatencySeries.Bucket(value));
            Assert.InRange(end, value, value + value / 32 + 1);
            Assert.Equal(LatencySeries.Bucket(value), LatencySeries.Bucket(end));
            Assert.Equal(LatencySeries.Bucket(value) + 1, LatencySeries.Bucket(end + 1));
        });

    [Fact]
    public void Slots_hold_what_completed_in_them()
    {
        var series = new LatencySeries(TimeSpan.FromMilliseconds(10), 4);
        for (var i = 1; i <= 100; i++) series.Add(1_000_000, i * 1000);
        series.Add(35_000_000, 5_000_000);
        series.Complete();

        var slots = series.Slots;
        Assert.Equal(4, slots.Length);
        Assert.Equal(100, slots[0].Count);
        Assert.Equal(100_000, slots[0].Max);
        Assert.InRange(slots[0].Median, 50_000, 52_000);
        Assert.InRange(slots[0].P99, 99_000, 100_000);
        Assert.Equal(0, slots[1].Count);
        Assert.Equal(0, slots[2].Count);
        Assert.Equal(new LatencySlot(1, 5_000_000, 5_000_000, 5_000_000), slots[3]);
    }

    [Fact]
    public void Slots_grow_as_needed()
    {
        var series = new LatencySeries(TimeSpan.FromMilliseconds(1), 1);
        series.Add(5_000_000_000, 1);
        series.Complete();
        Assert.Equal(5001, series.Slots.Length);
    }

    [Fact]
    public void Merging_adds_counts_and_keeps_the_worst()
    {
        var a = new LatencySeries(TimeSpan.FromMilliseconds(1), 8);
        var b = new LatencySeries(TimeSpan.FromMilliseconds(1), 8);
        a.Add(0, 10);
        b.Add(0, 30);
        b.Add(2_000_000, 7);
        a.Complete();
        b.Complete();
        var merged = LatencySeries.Merge([a, b]);
        Assert.Equal(3, merged.Slots.Length);
        Assert.Equal(new LatencySlot(2, 30, 30, 30), merged.Slots[0]);
        Assert.Equal(1, merged.Slots[2].Count);
    }
}
