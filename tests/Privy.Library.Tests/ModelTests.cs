using CsCheck;

namespace Privy.Library.Tests;

/// <summary>Random sequences of operations against a model that copies everything.</summary>
public sealed class ModelTests
{
    private const int Page = SnapshotRegion.PageSize;
    private const int Pages = 200;
    private const int Length = Pages * Page;

    private abstract record Step;

    private sealed record Write(int Offset, int Length, byte Salt) : Step;

    private sealed record Take : Step;

    private sealed record Release(int Which) : Step;

    private sealed record Mark(int Which) : Step;

    private sealed record Unmark(int Which) : Step;

    private sealed record Compare(int Newer, int Older, bool WithMark) : Step;

    private static readonly Gen<Step[]> Steps = Gen.Frequency(
        // Long writes now and then: runs of pages, and whole ranges that are protected at once.
        (10, Gen.Select(Gen.Int[0, Length - 1], Gen.Int[1, 3000], Gen.Byte, (o, l, s) => (Step)new Write(o, l, s))),
        (2, Gen.Select(Gen.Int[0, Length - 1], Gen.Int[1, Length], Gen.Byte, (o, l, s) => (Step)new Write(o, l, s))),
        (4, Gen.Const<Step>(new Take())),
        (3, Gen.Int[0, 100].Select(i => (Step)new Release(i))),
        (2, Gen.Int[0, 100].Select(i => (Step)new Mark(i))),
        (2, Gen.Int[0, 100].Select(i => (Step)new Unmark(i))),
        (4, Gen.Select(Gen.Int[0, 100], Gen.Int[0, 100], Gen.Bool, (n, o, m) => (Step)new Compare(n, o, m)))).Array[1, 60];

    [EngineFact]
    public void Every_snapshot_keeps_its_bytes_and_knows_its_changes() => Steps.Sample(steps => Run(steps, null), iter: 300, threads: 1);

    [Fact]
    public void The_last_resort_does_so_too() => Steps.Sample(steps => Run(steps, SnapshotEngine.Copying), iter: 100, threads: 1);

    private static void Run(Step[] steps, SnapshotEngine? engine)
    {
        using SnapshotRegion region = SnapshotRegion.Create(Length, new() { Engine = engine });
        var live = new byte[Length];
        // For each page, how often it has been written to: two instants with the same number have the same bytes there.
        var writes = new int[Pages];
        var snapshots = new List<(Snapshot Snapshot, byte[] Bytes, int[] Writes)>();
        var marks = new List<(SnapshotMark Mark, byte[] Bytes, int[] Writes)>();
        foreach (Step step in steps)
        {
            switch (step)
            {
                case Write w:
                    int length = Math.Min(w.Length, Length - w.Offset);
                    Span<byte> part = region.AsSpan<byte>(w.Offset, length);
                    Assert.True(part.SequenceEqual(live.AsSpan(w.Offset, length)));
                    for (int i = 0; i < length; i++)
                        live[w.Offset + i] = (byte)(live[w.Offset + i] * 3 + w.Salt + i);
                    for (int page = w.Offset / Page; page <= (w.Offset + length - 1) / Page; page++)
                        writes[page]++;
                    live.AsSpan(w.Offset, length).CopyTo(part);
                    break;
                case Take when snapshots.Count < 6:
                    snapshots.Add((region.TakeSnapshot(), live.ToArray(), writes.ToArray()));
                    break;
                case Release r when snapshots.Count > 0:
                    (Snapshot released, byte[] expected, _) = snapshots[r.Which % snapshots.Count];
                    Assert.True(released.AsSpan<byte>(0, Length).SequenceEqual(expected), "bytes at release");
                    released.Dispose();
                    snapshots.RemoveAt(r.Which % snapshots.Count);
                    break;
                case Mark m when snapshots.Count > 0:
                    var marked = snapshots[m.Which % snapshots.Count];
                    marks.Add((marked.Snapshot.CreateMark(), marked.Bytes, marked.Writes));
                    break;
                case Unmark u when marks.Count > 0:
                    marks[u.Which % marks.Count].Mark.Dispose();
                    marks.RemoveAt(u.Which % marks.Count);
                    break;
                case Compare c when c.WithMark && snapshots.Count > 0 && marks.Count > 0:
                    var newer = snapshots[c.Newer % snapshots.Count];
                    var mark = marks[c.Older % marks.Count];
                    if (mark.Mark.Epoch <= newer.Snapshot.Epoch)
                        CheckChanges(region.Engine, newer.Snapshot.ChangedPages(mark.Mark), newer.Bytes, newer.Writes, mark.Bytes, mark.Writes);
                    break;
                case Compare c when snapshots.Count > 0:
                    newer = snapshots[c.Newer % snapshots.Count];
                    var older = snapshots[c.Older % snapshots.Count];
                    if (older.Snapshot.Epoch <= newer.Snapshot.Epoch)
                        CheckChanges(region.Engine, newer.Snapshot.ChangedPages(older.Snapshot), newer.Bytes, newer.Writes, older.Bytes, older.Writes);
                    break;
            }
        }
        foreach ((Snapshot snapshot, byte[] bytes, _) in snapshots)
        {
            Assert.True(snapshot.AsSpan<byte>(0, Length).SequenceEqual(bytes), "bytes at the end");
            snapshot.Dispose();
        }
        foreach (var mark in marks)
            mark.Mark.Dispose();
        Assert.True(region.AsSpan<byte>(0, Length).SequenceEqual(live), "live bytes");
        Assert.Equal(0, region.Statistics.CopyBytes);
    }

    private static void CheckChanges(SnapshotEngine engine, PageSet changed, byte[] newer, int[] newerWrites, byte[] older, int[] olderWrites)
    {
        long count = 0;
        for (int page = 0; page < Pages; page++)
        {
            bool differs = !newer.AsSpan(page * Page, Page).SequenceEqual(older.AsSpan(page * Page, Page));
            // The last resort compares; the others know of every write, whatever it wrote.
            bool expected = engine == SnapshotEngine.Copying ? differs : newerWrites[page] != olderWrites[page];
            Assert.True(expected || !differs);
            Assert.True(expected == changed.Contains(page * Page + 17), $"page {page}: {(expected ? "changed" : "not changed")}");
            count += expected ? 1 : 0;
        }
        Assert.Equal(count, changed.Count);
        Assert.Equal(count * Page, changed.Sum(range => range.Length));
        long end = -1;
        foreach (PageRange range in changed)
        {
            Assert.True(range.Offset > end, "runs are ascending and as long as possible");
            Assert.True(changed.Contains(range.Offset) && changed.Contains(range.End - 1));
            end = range.End;
        }
        Assert.False(changed.Contains(-1) || changed.Contains(Length));
    }
}
