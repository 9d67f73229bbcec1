namespace Privy.Library.Tests;

/// <summary>The same tests once more, under <c>privy run</c>: there the engine is the privileged one.</summary>
public sealed class PrivilegedTests
{
    [PrivyRunTheory]
    [InlineData(nameof(RegionTests))]
    [InlineData(nameof(ModelTests))]
    [InlineData(nameof(InstantTests))]
    [InlineData(nameof(DiagnosticsTests))]
    [InlineData(nameof(CheckpointTests))]
    [InlineData(nameof(PrivilegedEngineTests))]
    [InlineData(nameof(StressTests))]
    public void The_suite_passes_on_the_privileged_engine(string suite)
    {
        // The processes that are killed are native ones in any case: a few will do.
        string output = Harness.Run("env", AppContext.BaseDirectory, "PRIVY_TEST_KILLS=5", PrivyRun.Cli!, "run", "--", Environment.ProcessPath!,
            Path.Combine(AppContext.BaseDirectory, "Privy.Library.Tests.dll"), "--run", suite);
        Assert.Contains("Privileged engine: ", output, StringComparison.Ordinal);
        Assert.Contains(" 0 failed", output, StringComparison.Ordinal);
    }

    /// <summary>The same compiled ahead of time: another runtime, which suspends its threads in another way, and has no compiler at work.</summary>
    [AheadOfTimeTheory]
    [InlineData(nameof(RegionTests))]
    [InlineData(nameof(ModelTests))]
    [InlineData(nameof(InstantTests))]
    [InlineData(nameof(DiagnosticsTests))]
    [InlineData(nameof(CheckpointTests))]
    [InlineData(nameof(PrivilegedEngineTests))]
    public void The_suite_passes_when_it_is_compiled_ahead_of_time(string suite)
    {
        string output = Harness.Run("env", AppContext.BaseDirectory, "PRIVY_TEST_KILLS=2", PrivyRun.Cli!, "run", "--", AheadOfTimeTheoryAttribute.Program, "--run", suite);
        Assert.Contains("Privileged engine: ", output, StringComparison.Ordinal);
        Assert.Contains(" 0 failed", output, StringComparison.Ordinal);
    }

    /// <summary>The same as natively, but that what is killed is the virtual machine with the process in it.</summary>
    [PrivyRunFact]
    public void After_a_kill_of_a_privileged_process_a_committed_state_is_restored()
    {
        string folder = Directory.CreateTempSubdirectory("privy-kills").FullName;
        try
        {
            Kills.Run(folder, Kills.Count ?? 20, SnapshotEngine.Privileged, PrivyRun.Cli!, ["run", "--", Environment.ProcessPath!, .. Kills.Program]);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }
}

/// <summary>What tests need that start programs under Privy.</summary>
internal static class PrivyRun
{
    /// <summary>Why no program can be started under Privy, or null.</summary>
    internal static string? Missing =>
        !File.Exists("/dev/kvm") ? "No KVM: /dev/kvm does not exist."
        : Cli is null ? "There is no privy: build it (./privy version), or say where it is in PRIVY_CLI."
        : null;

    internal static string? Cli { get; } = new[] { Environment.GetEnvironmentVariable("PRIVY_CLI"), Path.Combine(Harness.Root, "artifacts", "privy", "privy") }.FirstOrDefault(File.Exists);
}

/// <summary>A theory that needs KVM and the command line; skipped, by name, where there is none.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class PrivyRunTheoryAttribute : TheoryAttribute
{
    public PrivyRunTheoryAttribute() => Skip = PrivyRun.Missing;
}

/// <summary>A theory on this assembly compiled ahead of time; skipped, by name, where that has not been done or there is no KVM.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class AheadOfTimeTheoryAttribute : TheoryAttribute
{
    public AheadOfTimeTheoryAttribute() => Skip = PrivyRun.Missing ?? (File.Exists(Program) ? null : "The tests are not compiled ahead of time: ./privy test does it.");

    internal static string Program { get; } = Path.Combine(Harness.Root, "artifacts", "library-aot", "Privy.Library.Tests");
}

/// <summary>A test that needs KVM and the command line; skipped, by name, where there is none.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class PrivyRunFactAttribute : FactAttribute
{
    public PrivyRunFactAttribute() => Skip = PrivyRun.Missing;
}

/// <summary>What only the privileged engine does, or cannot do.</summary>
[System.Diagnostics.CodeAnalysis.SuppressMessage("Performance", "CA1822", Justification = "As for facts, an instance is made for each test.")]
public sealed class PrivilegedEngineTests
{
    private const int Page = SnapshotRegion.PageSize;

    /// <summary>The writer itself has read the view: its processor knows the old place of the page.</summary>
    [PrivilegedFact]
    public void Who_writes_sees_the_old_bytes_in_the_view_at_once()
    {
        const int Pages = 600;
        using SnapshotRegion region = SnapshotRegion.Create(Pages * Page);
        for (int round = 1; round <= 5; round++)
        {
            region.AsSpan<byte>(0, Pages * Page).Fill((byte)round);
            using Snapshot snapshot = region.TakeSnapshot();
            for (int i = 0; i < Pages; i++)
            {
                int page = i * 7 % Pages;
                // Just read, just written, read again.
                Assert.Equal(round, snapshot.AsSpan<byte>(page * Page, 1)[0]);
                region.AsSpan<byte>(page * Page, 1)[0] = 99;
                Assert.Equal(round, snapshot.AsSpan<byte>(page * Page, 1)[0]);
            }
        }
    }

    [PrivilegedFact]
    public void At_most_63_snapshots_live_and_an_end_makes_room()
    {
        using SnapshotRegion region = SnapshotRegion.Create(4 * Page);
        var snapshots = new List<Snapshot>();
        InsufficientMemoryException? full = null;
        while (full is null)
        {
            region.AsSpan<int>(0, 1)[0] = snapshots.Count;
            try
            {
                snapshots.Add(region.TakeSnapshot());
            }
            catch (InsufficientMemoryException e)
            {
                full = e;
            }
        }
        Assert.Equal(63, snapshots.Count);
        Assert.Contains("63", full.Message, StringComparison.Ordinal);
        for (int i = 0; i < snapshots.Count; i++)
            Assert.Equal(i, snapshots[i].AsSpan<int>(0, 1)[0]);
        snapshots[20].Dispose();
        region.AsSpan<int>(0, 1)[0] = 1000;
        using (Snapshot another = region.TakeSnapshot())
            Assert.Equal(1000, another.AsSpan<int>(0, 1)[0]);
        snapshots.ForEach(s => s.Dispose());
    }

    /// <summary>The host's kernel does not know views: Privy gives it the bytes.</summary>
    [PrivilegedFact]
    public void System_calls_take_their_input_from_views()
    {
        string file = Path.GetTempFileName();
        try
        {
            using SnapshotRegion region = SnapshotRegion.Create(4 * Page);
            region.AsSpan<byte>(0, 4 * Page).Fill(1);
            using Snapshot snapshot = region.TakeSnapshot();
            // One page has a copy, the others are still the region's own.
            region.AsSpan<byte>(Page, Page).Fill(2);
            using (FileStream stream = File.Create(file, bufferSize: 0))
            {
                stream.Write(snapshot.AsSpan<byte>(0, 4 * Page));
                stream.Write(region.AsSpan<byte>(0, 4 * Page));
            }
            byte[] written = File.ReadAllBytes(file);
            Assert.Equal(8 * Page, written.Length);
            Assert.Equal(-1, written.AsSpan(0, 4 * Page).IndexOfAnyExcept((byte)1));
            Assert.Equal(2, written[(5 * Page) + 1]);
            Assert.Equal(1, written[6 * Page]);
        }
        finally
        {
            File.Delete(file);
        }
    }

    [PrivilegedFact]
    public void The_kernel_may_write_to_the_region_like_anybody()
    {
        string file = Path.GetTempFileName();
        try
        {
            byte[] content = [.. Enumerable.Range(0, 20 * Page).Select(i => (byte)(i * 7 + i / Page))];
            File.WriteAllBytes(file, content);
            using SnapshotRegion region = SnapshotRegion.Create(32 * Page);
            region.AsSpan<byte>(0, 32 * Page).Fill(0xaa);
            using Snapshot snapshot = region.TakeSnapshot();
            using (FileStream stream = File.OpenRead(file))
                stream.ReadExactly(region.AsSpan<byte>(100, content.Length));
            Assert.True(region.AsSpan<byte>(100, content.Length).SequenceEqual(content));
            Assert.Equal(-1, snapshot.AsSpan<byte>(0, 32 * Page).IndexOfAnyExcept((byte)0xaa));
            using Snapshot after = region.TakeSnapshot();
            Assert.Equal(21, after.ChangedPages(snapshot).Count);
            Assert.True(after.AsSpan<byte>(100, content.Length).SequenceEqual(content));
        }
        finally
        {
            File.Delete(file);
        }
    }

    [PrivilegedFact]
    public void Forked_children_and_views_live_side_by_side()
    {
        using SnapshotRegion region = SnapshotRegion.Create(300 * Page);
        region.AsSpan<byte>(0, 300 * Page).Fill(1);
        using Snapshot before = region.TakeSnapshot();
        for (int i = 2; i < 6; i++)
        {
            region.AsSpan<byte>(i * 20 * Page, 20 * Page).Fill((byte)i);
            using (var child = System.Diagnostics.Process.Start("/bin/sh", ["-c", "true; (true)"]))
            {
                region.AsSpan<byte>(0, 20 * Page).Fill((byte)i);
                child.WaitForExit();
            }
            using Snapshot after = region.TakeSnapshot();
            Assert.Equal(i, after.AsSpan<byte>(0, 1)[0]);
            Assert.Equal(20 * (i - 1) + 20, after.ChangedPages(before).Count);
            Assert.Equal(-1, before.AsSpan<byte>(0, 300 * Page).IndexOfAnyExcept((byte)1));
        }
    }
}

/// <summary>A test of the privileged engine. Not the test host runs it, which is no privileged process, but <see cref="SuiteRunner"/> on behalf of <see cref="PrivilegedTests"/>.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class PrivilegedFactAttribute : Attribute
{
    internal static string? Skip => SnapshotRegion.IsAvailable(SnapshotEngine.Privileged, out string? reason) ? null : reason;
}
