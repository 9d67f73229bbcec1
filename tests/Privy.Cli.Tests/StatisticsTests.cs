using Privy.Bench;

namespace Privy.Cli.Tests;

public class StatisticsTests
{
    private static IEnumerable<TimeSpan> Milliseconds(params int[] values) => values.Select(v => TimeSpan.FromMilliseconds(v));

    [Fact]
    public void Median()
    {
        Assert.Equal(TimeSpan.FromMilliseconds(3), Statistics.Median(Milliseconds(9, 1, 3)));
        Assert.Equal(TimeSpan.FromMilliseconds(4), Statistics.Median(Milliseconds(9, 1, 3, 5)));
        Assert.Throws<ArgumentException>(() => Statistics.Median([]));
    }

    [Fact]
    public void Percentile()
    {
        var values = Milliseconds([.. Enumerable.Range(1, 100).Reverse()]).ToArray();
        Assert.Equal(TimeSpan.FromMilliseconds(50), Statistics.Percentile(values, 50));
        Assert.Equal(TimeSpan.FromMilliseconds(99), Statistics.Percentile(values, 99));
        Assert.Equal(TimeSpan.FromMilliseconds(100), Statistics.Percentile(values, 100));
        Assert.Equal(TimeSpan.FromMilliseconds(1), Statistics.Percentile(values, 0));
    }

    [Fact]
    public void Fork_table()
    {
        var row = new ForkLatencyRow(4L << 30, [.. Milliseconds(50, 70, 60)], [TimeSpan.FromMicroseconds(300)], null);
        Assert.Equal("60,000 µs", ForkLatencyBenchmark.Cell(row.Native, max: false));
        Assert.Equal("70,000 µs", ForkLatencyBenchmark.Cell(row.Native, max: true));
        Assert.Equal("200×", ForkLatencyBenchmark.Ratio(row));
        Assert.Equal("–", ForkLatencyBenchmark.Ratio(row with { Privileged = null }));
    }

    [Theory]
    [InlineData(3.21, "3.2 µs")]
    [InlineData(67, "67 µs")]
    public void Times_below_a_millisecond(double microseconds, string text) =>
        Assert.Equal(text, DemoCommand.Time(TimeSpan.FromMicroseconds(microseconds)));

    [Theory]
    [InlineData(2.854, "2.85 ms")]
    [InlineData(36.84, "36.8 ms")]
    [InlineData(122.3, "122 ms")]
    [InlineData(1234, "1.23 s")]
    public void Times(double milliseconds, string text) => Assert.Equal(text, DemoCommand.Time(TimeSpan.FromMilliseconds(milliseconds)));
}
