using Privy.Hypervisor.Processes;

namespace Privy.Hypervisor.Tests.Processes;

public sealed class SnapshotStatisticsTests
{
    [Fact]
    public void Nothing_at_first() => Assert.Equal((0, 0, 0), new SnapshotStatistics().Summarise());

    [Fact]
    public void The_median_is_right_to_a_sixteenth_and_the_rest_exactly()
    {
        var seed = Environment.TickCount;
        var random = new Random(seed);
        for (var round = 0; round < 200; round++)
        {
            var statistics = new SnapshotStatistics();
            var times = Enumerable.Range(0, random.Next(1, 300)).Select(_ => (long)Math.Exp(random.NextDouble() * 43)).ToArray();
            foreach (var time in times)
                statistics.Add(time);
            Array.Sort(times);
            var (count, median, max) = statistics.Summarise();
            Assert.Equal(times.Length, count);
            Assert.Equal(times[^1], max);
            var exact = times[times.Length / 2];
            Assert.True(median <= exact && median >= exact - (exact / 16), $"seed {seed}: median {exact}, reported {median}");
        }
    }
}
