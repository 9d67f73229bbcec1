using System.Diagnostics;
using Privy.Engines;
using Privy.Engines.Portable;

namespace Privy.Library.Tests;

/// <summary>What only the portable engine does, or cannot do.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class PortableFactAttribute : FactAttribute
{
    public PortableFactAttribute(bool systemCalls = false)
    {
        SnapshotRegion.IsAvailable(SnapshotEngine.Portable, out string? reason);
        Skip = reason ?? (systemCalls && Userfaultfd.UserModeFaultsOnly ? "userfaultfd answers only faults of user mode here (it takes root, or vm.unprivileged_userfaultfd=1)." : null);
    }
}

public sealed class PortableEngineTests
{
    private const int Page = SnapshotRegion.PageSize;
    private static readonly SnapshotRegionOptions Portable = new() { Engine = SnapshotEngine.Portable };

    [PortableFact]
    public unsafe void A_snapshot_that_cannot_be_given_a_copy_is_lost_and_nothing_else_is()
    {
        using SnapshotRegion region = SnapshotRegion.Create(8 * Page, Portable);
        region.AsSpan<byte>(0, 8 * Page).Fill(1);
        using Snapshot healthy = region.TakeSnapshot();
        using Snapshot lost = region.TakeSnapshot();
        Assert.Equal(1, lost.AsSpan<byte>(3 * Page, 1)[0]);
        // As if there were no memory: the kernel refuses to make a copy here.
        NativeMethods.Protect(lost.Pointer + 3 * Page, Page, NativeMethods.ProtectionRead);
        region.AsSpan<byte>(2 * Page, 1)[0] = 2;
        Assert.False(lost.IsLost);
        region.AsSpan<byte>(3 * Page, 1)[0] = 2;
        Assert.True(lost.IsLost);
        Assert.Throws<SnapshotLostException>(() => lost.AsSpan<byte>(0, 1).Length);
        Assert.Throws<SnapshotLostException>(() => (nint)lost.Pointer);
        Assert.Equal(1, region.Statistics.SnapshotsLost);
        region.AsSpan<byte>(4 * Page, 1)[0] = 2;
        Assert.Equal(-1, healthy.AsSpan<byte>(0, 8 * Page).IndexOfAnyExcept((byte)1));
        // Only bytes were lost; what changed is known.
        Assert.Empty(lost.ChangedPages(healthy));
        using Snapshot next = region.TakeSnapshot();
        Assert.Equal(3, next.ChangedPages(lost).Count);
        Assert.Equal([1, 1, 2, 2, 2, 1, 1, 1], Enumerable.Range(0, 8).Select(i => next.AsSpan<byte>(i * Page, 1)[0]));
    }

    [PortableFact(systemCalls: true)]
    public void The_kernel_may_write_to_the_region_like_anybody()
    {
        string file = Path.GetTempFileName();
        try
        {
            byte[] content = [.. Enumerable.Range(0, 20 * Page).Select(i => (byte)(i * 7 + i / Page))];
            File.WriteAllBytes(file, content);
            using SnapshotRegion region = SnapshotRegion.Create(32 * Page, Portable);
            region.AsSpan<byte>(0, 32 * Page).Fill(0xaa);
            using Snapshot snapshot = region.TakeSnapshot();
            using (FileStream stream = File.OpenRead(file))
                stream.ReadExactly(region.AsSpan<byte>(100, content.Length));
            Assert.True(region.AsSpan<byte>(100, content.Length).SequenceEqual(content));
            Assert.Equal(-1, snapshot.AsSpan<byte>(0, 32 * Page).IndexOfAnyExcept((byte)0xaa));
            using (FileStream stream = File.Create(file))
                stream.Write(snapshot.AsSpan<byte>(0, 32 * Page));
            Assert.True(File.ReadAllBytes(file).AsSpan().SequenceEqual(snapshot.AsSpan<byte>(0, 32 * Page)));
        }
        finally
        {
            File.Delete(file);
        }
    }

    [PortableFact]
    public void Child_processes_start_and_leave_the_region_alone()
    {
        using SnapshotRegion region = SnapshotRegion.Create(64 * Page, Portable);
        region.AsSpan<byte>(0, 64 * Page).Fill(1);
        using Snapshot snapshot = region.TakeSnapshot();
        using (Process child = Process.Start("true"))
            child.WaitForExit();
        region.AsSpan<byte>(0, 64 * Page).Fill(2);
        Assert.Equal(-1, snapshot.AsSpan<byte>(0, 64 * Page).IndexOfAnyExcept((byte)1));
        Assert.Equal(-1, region.AsSpan<byte>(0, 64 * Page).IndexOfAnyExcept((byte)2));
    }

    [PortableFact]
    public void A_region_leaves_nothing_behind()
    {
        // The first one brings in code and lazily made objects.
        Use();
        int descriptors = Directory.GetFiles("/proc/self/fd").Length;
        int threads = Process.GetCurrentProcess().Threads.Count;
        long maps = File.ReadLines("/proc/self/maps").Count();
        for (int i = 0; i < 50; i++)
            Use();
        Assert.InRange(Directory.GetFiles("/proc/self/fd").Length, 0, descriptors + 10);
        Assert.InRange(Process.GetCurrentProcess().Threads.Count, 0, threads + 10);
        Assert.InRange(File.ReadLines("/proc/self/maps").Count(), 0, maps + 40);
        Assert.DoesNotContain(File.ReadLines("/proc/self/maps"), line => line.Contains("privy-region", StringComparison.Ordinal));

        static void Use()
        {
            using SnapshotRegion region = SnapshotRegion.Create(16 * Page, Portable);
            Snapshot left = region.TakeSnapshot();
            region.AsSpan<byte>(0, 1)[0]++;
            using Snapshot snapshot = region.TakeSnapshot();
            Assert.Equal(1, snapshot.ChangedPages(left).Count);
        }
    }
}
