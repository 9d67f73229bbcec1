using Privy.Bench.Framework;

namespace Privy.Cli.Tests.Benchmarks;

public class GoalTests
{
    [Fact]
    public void A_run_that_measured_nothing_leaves_every_goal_open() => Assert.All(Goals.Judge(new Figures()), g => Assert.Null(g.IsReached));

    [Theory]
    [InlineData(100_000, true)]
    [InlineData(100_001, false)]
    public void A_snapshot_of_eight_gigabytes_is_a_thousand_times_faster(double privyNanoseconds, bool isReached)
    {
        var figures = new Figures { ["snapshot-latency.native.8192"] = 100_000_000, ["snapshot-latency.privy.8192"] = privyNanoseconds, ["snapshot-latency.largest"] = 8L << 30 };
        Assert.Equal(isReached, Find(figures, "8 GB against fork with 4 KB pages").IsReached);
    }

    [Fact]
    public void A_size_that_was_not_measured_is_not_judged_by_another()
    {
        var figures = new Figures { ["snapshot-latency.native.4096"] = 100_000_000, ["snapshot-latency.privy.4096"] = 1, ["snapshot-latency.largest"] = 4L << 30 };
        var goal = Find(figures, "8 GB against fork with 4 KB pages");
        Assert.Null(goal.IsReached);
        Assert.Contains("at 4 GB", goal.Measured, StringComparison.Ordinal);
    }

    [Fact]
    public void The_worst_size_decides_about_a_percentile()
    {
        var figures = new Figures
        {
            ["redis-tail.p99.native.1024"] = 10,
            ["redis-tail.p99.privy.1024"] = 5,
            ["redis-tail.p99.native.2048"] = 10,
            ["redis-tail.p99.privy.2048"] = 11,
        };
        Assert.False(Find(figures, "p99 of SET").IsReached);
        figures["redis-tail.p99.privy.2048"] = 10;
        Assert.True(Find(figures, "p99 of SET").IsReached);
    }

    [Fact]
    public void The_slowest_SET_is_judged_at_each_size()
    {
        var figures = new Figures { ["redis-tail.p100.native.4096"] = 100, ["redis-tail.p100.privy.4096"] = 10 };
        Assert.True(Find(figures, "4 GB: slowest SET").IsReached);
        Assert.Null(Find(figures, "8 GB: slowest SET").IsReached);
    }

    [Fact]
    public void The_worst_test_decides_about_throughput()
    {
        var figures = new Figures
        {
            ["redis-throughput.set.16.native"] = 100,
            ["redis-throughput.set.16.privy"] = 120,
            ["redis-throughput.get.128.native"] = 100,
            ["redis-throughput.get.128.privy"] = 94,
            ["redis-throughput.get.1.native"] = 100,
            ["redis-throughput.get.1.privy"] = 81,
        };
        Assert.False(Find(figures, "pipeline 16 and 128").IsReached);
        Assert.True(Find(figures, "pipeline 1,").IsReached);
    }

    [Fact]
    public void A_writer_keeps_half_its_speed_only_if_the_snapshots_were_taken()
    {
        var figures = new Figures { ["snapshot-frequency.kept.privy.10000"] = 0.9, ["snapshot-frequency.rate.privy.10000"] = 20 };
        Assert.False(Find(figures, "at 100 snapshots a second").IsReached);
        figures["snapshot-frequency.rate.privy.10000"] = 100;
        Assert.True(Find(figures, "at 100 snapshots a second").IsReached);
    }

    private static GoalVerdict Find(Figures figures, string text) => Goals.Judge(figures).Single(g => g.Text.Contains(text, StringComparison.Ordinal));
}
