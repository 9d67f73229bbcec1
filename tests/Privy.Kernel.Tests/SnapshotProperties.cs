using Privy.Kernel.Tests.Simulation;

namespace Privy.Kernel.Tests;

/// <summary>Random programs on the simulated machine: every space always reads what it must, and nothing is lost.</summary>
public sealed class SnapshotProperties
{
    private const int Steps = 250;

    /// <summary>Seeds a group; the environment variable is for long runs.</summary>
    private static readonly int Seeds =
        int.TryParse(Environment.GetEnvironmentVariable("PRIVY_TEST_SEEDS"), out int seeds) ? seeds : 60;

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(4)]
    [InlineData(5)]
    [InlineData(6)]
    [InlineData(7)]
    public unsafe void Every_space_reads_what_it_must(int group)
    {
        ulong shootdowns = 0;
        ulong spared = 0;
        ulong ahead = 0;
        ulong collapsed = 0;
        int views = 0;
        ulong read = 0;
        ulong undone = 0;
        int retries = 0;
        for (int seed = group * 100_000; seed < group * 100_000 + Seeds; seed++)
        {
            using var world = new World(seed, mainVcpus: 1 + seed % 2, generous: seed % 3 == 0);
            Run(world, seed, Steps);
            shootdowns += world.Machine.K->Shootdowns;
            spared += world.Machine.K->ShootdownsSpared;
            ahead += world.Machine.K->CopiedAhead;
            collapsed += world.Machine.K->Collapsed;
            views += world.Views;
            read += world.Machine.K->CopiedForReaders;
            undone += world.Machine.K->CopiesUndone;
            retries += world.Machine.Retries;
        }
        // The runs must have gone where the difficulties are.
        Assert.True(shootdowns > 10, $"{shootdowns} shootdowns");
        Assert.True(spared > 10, $"{spared} spared");
        Assert.True(retries > 10, $"{retries} retries");
        Assert.True(ahead > 100, $"{ahead} pages copied ahead");
        Assert.True(collapsed > 0, "no large page restored");
        Assert.True(views > 10, $"{views} views");
        Assert.True(read > 50, $"{read} pages copied for readers");
        Assert.True(undone > 5, $"{undone} copies of regions undone");
    }

    /// <summary>The same for the machine code that runs in the guest.</summary>
    [Fact]
    public unsafe void The_image_does_the_same()
    {
        var code = new ImageCode();
        int retries = 0;
        for (int seed = 900_000; seed < 900_000 + Seeds; seed++)
        {
            using var world = new World(seed, mainVcpus: 2, generous: seed % 3 == 0, code);
            Run(world, seed, Steps);
            retries += world.Machine.Retries;
        }
        Assert.True(retries > 10, $"{retries} retries");
    }

    /// <summary>What the tests below do wrong, done right.</summary>
    [Fact]
    public unsafe void Views_read_what_they_must()
    {
        ulong shootdowns = 0;
        ulong undone = 0;
        ulong copied = 0;
        ulong blocks = 0;
        for (int seed = 0; seed < 2 * Seeds; seed++)
        {
            using var world = new World(seed, mainVcpus: 1 + seed % 2, generous: seed % 3 == 0, viewsOnly: true);
            Run(world, seed, Steps);
            shootdowns += world.Machine.K->Shootdowns;
            undone += world.Machine.K->CopiesUndone;
            copied += world.Machine.K->CopiedForReaders;
            blocks += world.Machine.K->BlocksCopied;
        }
        Assert.True(shootdowns > 10, $"{shootdowns} shootdowns");
        Assert.True(undone > 20, $"{undone} copies undone");
        Assert.True(blocks > 20, $"{blocks} times 2 MB copied for a reader");
        Assert.True(copied - (512 * blocks) > 100, $"{copied} pages copied for readers, of which {blocks} times 2 MB");
    }

    [Fact]
    public void Without_shootdowns_the_property_fails() => FailsWithout(KernelState.AllShootdowns, viewsOnly: false, mainVcpus: 2);

    [Fact]
    public void Without_shootdowns_views_change() => FailsWithout(KernelState.AllShootdowns, viewsOnly: true, mainVcpus: 2);

    /// <summary>A vCPU of main that writes reads views, too.</summary>
    [Fact]
    public void Without_flushes_of_the_writer_itself_views_change() => FailsWithout(KernelState.OwnFlushes, viewsOnly: true, mainVcpus: 1);

    private static unsafe void FailsWithout(int leftOut, bool viewsOnly, int mainVcpus)
    {
        int failures = 0;
        for (int seed = 0; seed < 20; seed++)
        {
            using var world = new World(seed, mainVcpus, generous: true, viewsOnly: viewsOnly);
            world.Machine.K->SkipShootdown = leftOut;
            try
            {
                Run(world, seed, Steps);
            }
            catch (SimulationException e)
            {
                // A wrong byte, not merely a right that lasted too long.
                if (e.Message.Contains(" reads ", StringComparison.Ordinal))
                    failures++;
            }
        }
        Assert.True(failures > 0, "stale translations went unnoticed: the simulated TLB is too kind");
    }

    private static unsafe void Run(World world, int seed, int steps)
    {
        int step = 0;
        try
        {
            for (; step < steps; step++)
            {
                world.Step();
                if (step % 20 == 0)
                    Invariants.Verify(world);
                if (step % 40 == 39)
                    world.ReadAll();
            }
            Invariants.Verify(world);
            while (world.Snapshots.Count != 0)
            {
                world.Release(world.Snapshots.Values.First());
                Invariants.Verify(world);
                world.ReadAll();
            }
            Assert.Equal(0UL, world.Machine.K->FramesInUse);
            Assert.Equal(0UL, world.Machine.K->RetiredCount);
        }
        catch (Exception e) when (e is SimulationException or Xunit.Sdk.XunitException)
        {
            throw new SimulationException(
                $"seed {seed}, step {step}: {e.Message}{Environment.NewLine}{world.Log}{Environment.NewLine}{e.StackTrace}");
        }
    }
}
