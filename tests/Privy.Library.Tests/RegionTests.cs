namespace Privy.Library.Tests;

/// <summary>The rules of the interface: what is refused, and how.</summary>
public sealed class RegionTests
{
    private const int Page = SnapshotRegion.PageSize;

    [Theory]
    [InlineData(0)]
    [InlineData(-4096)]
    [InlineData(1)]
    [InlineData(4097)]
    [InlineData(long.MaxValue)]
    public void A_length_that_is_no_multiple_of_a_page_is_refused(long length)
    {
        var e = Assert.Throws<ArgumentOutOfRangeException>(() => SnapshotRegion.Create(length, new() { AllowCopying = true }));
        Assert.Contains("4096", e.Message, StringComparison.Ordinal);
    }

    [EngineFact]
    public void A_region_larger_than_the_address_space_is_refused()
    {
        var e = Assert.Throws<InsufficientMemoryException>(() => SnapshotRegion.Create(1L << 50));
        Assert.Contains("1125899906842624", e.Message, StringComparison.Ordinal);
    }

    [EngineFact]
    public void Much_more_can_be_reserved_than_there_is()
    {
        using SnapshotRegion region = SnapshotRegion.Create(256L << 30);
        region.AsSpan<long>(region.Length - 8, 1)[0] = 42;
        Assert.Equal(42, region.AsSpan<long>(region.Length - 8, 1)[0]);
        Assert.Equal(0, region.AsSpan<long>(region.Length / 2, 1)[0]);
    }

    [EngineFact]
    public unsafe void A_new_region_is_zero_and_says_what_it_is()
    {
        using SnapshotRegion region = SnapshotRegion.Create(16 * Page, new() { Populate = true });
        Assert.Equal(16 * Page, region.Length);
        Assert.NotEqual(SnapshotEngine.Copying, region.Engine);
        Assert.Equal(-1, region.AsSpan<byte>(0, 16 * Page).IndexOfAnyExcept((byte)0));
        Assert.Equal(0, (nint)region.Pointer % Page);
    }

    [EngineTheory]
    [InlineData(-1, 1)]
    [InlineData(0, -1)]
    [InlineData(0, 1025)]
    [InlineData(8, 1024)]
    [InlineData(8192, 1)]
    [InlineData(8192 - 4, 1)]
    [InlineData(long.MaxValue, 1)]
    [InlineData(long.MinValue, 1)]
    [InlineData(0, int.MaxValue)]
    public void A_part_outside_is_refused(long offset, int count)
    {
        using SnapshotRegion region = SnapshotRegion.Create(2 * Page);
        using Snapshot snapshot = region.TakeSnapshot();
        Assert.Throws<ArgumentOutOfRangeException>(() => region.AsSpan<long>(offset, count).Length);
        Assert.Throws<ArgumentOutOfRangeException>(() => snapshot.AsSpan<long>(offset, count).Length);
    }

    [EngineTheory]
    [InlineData(0, 1024)]
    [InlineData(8192, 0)]
    [InlineData(8192 - 8, 1)]
    [InlineData(3, 1)]
    public void A_part_inside_is_given(long offset, int count)
    {
        using SnapshotRegion region = SnapshotRegion.Create(2 * Page);
        using Snapshot snapshot = region.TakeSnapshot();
        Assert.Equal(count, region.AsSpan<long>(offset, count).Length);
        Assert.Equal(count, snapshot.AsSpan<long>(offset, count).Length);
    }

    [EngineFact]
    public unsafe void After_disposal_everything_says_so()
    {
        SnapshotRegion region = SnapshotRegion.Create(4 * Page);
        Snapshot closed = region.TakeSnapshot();
        SnapshotMark closedMark = closed.CreateMark();
        closedMark.Dispose();
        closedMark.Dispose();
        closed.Dispose();
        closed.Dispose();
        Snapshot open = region.TakeSnapshot();
        SnapshotMark mark = open.CreateMark();
        Assert.Throws<ObjectDisposedException>(() => closed.AsSpan<byte>(0, 1).Length);
        Assert.Throws<ObjectDisposedException>(() => (nint)closed.Pointer);
        Assert.Throws<ObjectDisposedException>(() => closed.CreateMark());
        Assert.Throws<ObjectDisposedException>(() => open.ChangedPages(closed));
        Assert.Throws<ObjectDisposedException>(() => open.ChangedPages(closedMark));
        Assert.Throws<ObjectDisposedException>(() => closed.ChangedPages(mark));
        region.Dispose();
        region.Dispose();
        Assert.Throws<ObjectDisposedException>(() => region.AsSpan<byte>(0, 1).Length);
        Assert.Throws<ObjectDisposedException>(() => (nint)region.Pointer);
        Assert.Throws<ObjectDisposedException>(() => region.TakeSnapshot());
        Assert.Throws<ObjectDisposedException>(() => open.AsSpan<byte>(0, 1).Length);
        Assert.Throws<ObjectDisposedException>(() => open.CreateMark());
        Assert.Throws<ObjectDisposedException>(() => open.ChangedPages(mark));
        open.Dispose();
        mark.Dispose();
        Assert.Equal(2, region.Statistics.SnapshotsTaken);
    }

    [EngineFact]
    public void Changes_are_asked_for_in_the_right_order_and_within_one_region()
    {
        using SnapshotRegion region = SnapshotRegion.Create(4 * Page);
        using SnapshotRegion other = SnapshotRegion.Create(4 * Page);
        using Snapshot first = region.TakeSnapshot();
        using Snapshot second = region.TakeSnapshot();
        using Snapshot foreign = other.TakeSnapshot();
        Assert.Throws<ArgumentException>(() => first.ChangedPages(second));
        Assert.Throws<ArgumentException>(() => second.ChangedPages(foreign));
        Assert.Throws<ArgumentNullException>(() => second.ChangedPages((Snapshot)null!));
        Assert.Throws<ArgumentNullException>(() => second.ChangedPages((SnapshotMark)null!));
        Assert.Equal(0, second.ChangedPages(first).Count);
        Assert.Equal(0, second.ChangedPages(second).Count);
    }

    /// <summary>
    /// An engine may guess which pages will be written again. Pages that nobody has written must not be in the set whatever it guesses, and all others must, whoever has
    /// written to them and whatever was read there before.
    /// </summary>
    [EngineFact]
    public unsafe void What_has_changed_is_exact_where_the_same_pages_are_written_again_and_again()
    {
        const int Pages = 8 * 512;
        const int Hot = 300;
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        string file = Path.GetTempFileName();
        File.WriteAllBytes(file, new byte[Page]);
        // Without a buffer: it is the kernel that writes to the region.
        using var stream = new FileStream(file, new FileStreamOptions { BufferSize = 0 });
        using SnapshotRegion region = SnapshotRegion.Create(Pages * Page);
        region.AsSpan<byte>(0, Pages * Page).Fill(1);
        int[] hot = [.. Enumerable.Range(0, Hot).Select(_ => random.Next(Pages)).Distinct()];
        var kept = new List<(Snapshot Snapshot, int[] Versions)>();
        var versions = new int[Pages];
        for (int round = 0; round < 60; round++)
        {
            kept.Add((region.TakeSnapshot(), [.. versions]));
            // Now most of them, now few; sometimes elsewhere; by two threads, or by the kernel.
            double share = random.NextDouble();
            int[] pages = [.. hot.Where(_ => random.NextDouble() < share), .. Enumerable.Range(0, random.Next(3) * 20).Select(_ => random.Next(Pages))];
            random.Shuffle(pages);
            int run = random.Next(Pages - 100);
            if (random.Next(4) == 0)
                pages = [.. pages, .. Enumerable.Range(run, random.Next(100))];
            int read = pages.Length / 4;
            Parallel.For(0, 2, thread =>
            {
                for (int i = thread; i < pages.Length; i += 2)
                {
                    byte* word = region.Pointer + ((long)pages[i] * Page) + (thread * 8);
                    // Some are read before they are written, and pages beside them are only read.
                    if (i < read)
                        Volatile.Read(ref *(region.Pointer + ((long)hot[i % hot.Length] * Page)));
                    (*(long*)word)++;
                }
            });
            foreach (int page in pages)
                versions[page]++;
            if (region.Engine != SnapshotEngine.Portable && random.Next(2) == 0)
            {
                int page = hot[random.Next(hot.Length)];
                stream.Position = 0;
                stream.ReadExactly(region.AsSpan<byte>((long)page * Page, 16));
                versions[page]++;
            }
            using Snapshot now = region.TakeSnapshot();
            // Not each time: what has been read of a view is not copied ahead.
            bool compare = random.Next(4) == 0;
            foreach ((Snapshot older, int[] then) in kept)
            {
                PageSet changed = now.ChangedPages(older);
                for (int page = 0; page < Pages; page++)
                {
                    bool same = !compare || now.AsSpan<byte>((long)page * Page, Page).SequenceEqual(older.AsSpan<byte>((long)page * Page, Page));
                    Assert.True(changed.Contains((long)page * Page) == (versions[page] != then[page]), $"seed {seed}, round {round}, page {page}: written {versions[page] - then[page]} times");
                    Assert.True(same || versions[page] != then[page], $"seed {seed}, round {round}, page {page} differs");
                }
            }
            if (kept.Count == 3)
            {
                int which = random.Next(3);
                kept[which].Snapshot.Dispose();
                kept.RemoveAt(which);
            }
        }
        File.Delete(file);
    }

    [EngineFact]
    public void Statistics_count()
    {
        using SnapshotRegion region = SnapshotRegion.Create(64 * Page);
        region.AsSpan<byte>(0, 64 * Page).Fill(1);
        using (Snapshot snapshot = region.TakeSnapshot())
        {
            Assert.Equal(0, region.Statistics.PagesCopied);
            for (int i = 0; i < 10; i++)
                region.AsSpan<byte>(i * 3 * Page, 1)[0] = 2;
            SnapshotStatistics during = region.Statistics;
            Assert.Equal(10, during.PagesCopied);
            Assert.Equal(10 * Page, during.CopyBytes);
            Assert.True(during.Faults >= 10);
            Assert.Equal(1, during.SnapshotsAlive);
            Assert.Equal(1, snapshot.Epoch);
        }
        SnapshotStatistics after = region.Statistics;
        Assert.Equal(0, after.CopyBytes);
        Assert.Equal(0, after.SnapshotsAlive);
        Assert.Equal(1, after.SnapshotsTaken);
        Assert.Equal(10, after.PagesCopied);
        Assert.True(after.LastSnapshotTime > TimeSpan.Zero && after.MaxSnapshotTime >= after.MeanSnapshotTime);
        // Nobody reads the old bytes now: no more copies.
        region.AsSpan<byte>(50 * Page, 1)[0] = 2;
        Assert.Equal(10, region.Statistics.PagesCopied);
    }

    [EngineFact]
    public void The_last_resort_must_be_asked_for()
    {
        Assert.True(SnapshotRegion.IsAvailable(SnapshotEngine.Copying, out _));
        using SnapshotRegion region = SnapshotRegion.Create(Page, new() { AllowCopying = true });
        Assert.NotEqual(SnapshotEngine.Copying, region.Engine);
        using SnapshotRegion copying = SnapshotRegion.Create(Page, new() { Engine = SnapshotEngine.Copying });
        Assert.Equal(SnapshotEngine.Copying, copying.Engine);
    }

    [Fact]
    public void An_engine_that_is_not_there_says_why()
    {
        foreach (SnapshotEngine engine in Enum.GetValues<SnapshotEngine>())
        {
            if (SnapshotRegion.IsAvailable(engine, out string? reason))
                continue;
            var e = Assert.Throws<PlatformNotSupportedException>(() => SnapshotRegion.Create(Page, new() { Engine = engine }));
            Assert.Equal(reason, e.Message);
        }
    }
}
