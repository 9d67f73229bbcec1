using CsCheck;
using Privy.Checkpoints;

namespace Privy.Library.Tests;

public sealed class CheckpointTests : IDisposable
{
    private const int Page = SnapshotRegion.PageSize;
    private static readonly SnapshotRegionOptions AnyEngine = new() { AllowCopying = true };
    private readonly string _folder = Directory.CreateTempSubdirectory("privy-checkpoints").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void The_checksum_is_the_known_one()
    {
        Assert.Equal(0xe3069283u, Crc32C.Compute("123456789"u8));
        Assert.Equal(0u, Crc32C.Compute([]));
        byte[] bytes = Enumerable.Range(0, 1000).Select(i => (byte)i).ToArray();
        for (int split = 0; split <= 1000; split += 37)
            Assert.Equal(Crc32C.Compute(bytes), Crc32C.Compute(bytes.AsSpan(split), Crc32C.Compute(bytes.AsSpan(0, split))));
    }

    [Fact]
    public void A_full_one_and_its_increments_come_back()
    {
        using SnapshotRegion region = SnapshotRegion.Create(1000 * Page, AnyEngine);
        using (var checkpointer = new Checkpointer(region, _folder))
        {
            Assert.Equal(new RestoredCheckpoint(0, [], []).Number, checkpointer.Restore().Number);
            region.AsSpan<byte>(0, 700 * Page).Fill(7);
            Checkpoint first = checkpointer.Write();
            Assert.True(first is { Number: 1, IsFull: true, Pages: 700 });
            Assert.Equal(new FileInfo(first.Path).Length, first.FileBytes);
            foreach (int page in (int[])[3, 4, 5, 100, 999])
                region.AsSpan<byte>(page * Page + 50, 1)[0]++;
            Checkpoint second = checkpointer.Write();
            Assert.True(second is { Number: 2, IsFull: false, Pages: 5 });
            Assert.InRange(second.FileBytes, 5 * Page, 5 * Page + 500);
            // Nothing has changed.
            Assert.True(checkpointer.Write() is { Number: 3, IsFull: false, Pages: 0 });
            region.AsSpan<byte>(5 * Page, Page).Clear();
            Assert.Equal(1, checkpointer.Write().Pages);
        }
        using SnapshotRegion copy = SnapshotRegion.Create(1000 * Page, AnyEngine);
        // What was there before goes.
        copy.AsSpan<byte>(900 * Page, 50 * Page).Fill(9);
        using var reader = new Checkpointer(copy, _folder);
        RestoredCheckpoint restored = reader.Restore();
        Assert.Equal(4, restored.Number);
        Assert.Equal(4, restored.Files.Count);
        Assert.Empty(restored.Problems);
        Assert.True(copy.AsSpan<byte>(0, 1000 * Page).SequenceEqual(region.AsSpan<byte>(0, 1000 * Page)));
        // It goes on where the other stopped.
        copy.AsSpan<byte>(20 * Page, 1)[0]++;
        Assert.True(reader.Write() is { Number: 5, IsFull: false, Pages: 1 });
    }

    [Fact]
    public void Chains_end_and_old_ones_go()
    {
        using SnapshotRegion region = SnapshotRegion.Create(100 * Page, AnyEngine);
        region.AsSpan<byte>(0, 100 * Page).Fill(1);
        using var checkpointer = new Checkpointer(region, _folder, new() { IncrementsPerFull = 2, ChainsKept = 2 });
        var full = new List<bool>();
        for (int i = 0; i < 10; i++)
        {
            region.AsSpan<byte>(i * Page, 1)[0]++;
            full.Add(checkpointer.Write().IsFull);
        }
        Assert.True(full.SequenceEqual([true, false, false, true, false, false, true, false, false, true]), string.Join(' ', full));
        Assert.True(Files().Select(Number).SequenceEqual([7L, 8, 9, 10]), string.Join(' ', Files()));
        Assert.Equal(10, checkpointer.Restore().Number);
    }

    [Fact]
    public void When_increments_have_outgrown_the_full_one_another_full_one_comes()
    {
        using SnapshotRegion region = SnapshotRegion.Create(100 * Page, AnyEngine);
        region.AsSpan<byte>(0, 100 * Page).Fill(1);
        using var checkpointer = new Checkpointer(region, _folder);
        var full = new List<bool>();
        for (byte i = 2; i < 7; i++)
        {
            region.AsSpan<byte>(0, 60 * Page).Fill(i);
            full.Add(checkpointer.Write().IsFull);
        }
        Assert.True(full.SequenceEqual([true, false, false, true, false]), string.Join(' ', full));
    }

    /// <summary>Whatever happens to a file, a state that was is restored, or none, and the file is named.</summary>
    [Fact]
    public void What_is_corrupt_is_named_and_not_loaded()
    {
        const int Count = 6;
        using SnapshotRegion region = SnapshotRegion.Create(Program.Length, AnyEngine);
        using (var checkpointer = new Checkpointer(region, _folder, new() { IncrementsPerFull = 2 }))
        {
            for (int number = 1; number <= Count; number++)
            {
                Program.Step(region, number);
                checkpointer.Write();
            }
        }
        // Two chains: 1-3 and 4-6.
        byte[][] contents = [.. Files().Select(File.ReadAllBytes)];
        Gen.Select(Gen.Int[1, Count], Gen.Int[0, 4], Gen.Int[0, int.MaxValue]).Sample((number, kind, at) =>
        {
            string path = Path.Combine(_folder, CheckpointFormat.FileName(number));
            byte[] content = contents[number - 1];
            switch (kind)
            {
                case 0:
                    File.Delete(path);
                    break;
                case 1:
                    File.WriteAllBytes(path, content[..(at % content.Length)]);
                    break;
                case 2:
                    byte[] flipped = [.. content];
                    flipped[at % content.Length] ^= (byte)(1 << at % 8);
                    File.WriteAllBytes(path, flipped);
                    break;
                case 3:
                    File.WriteAllBytes(path, [.. content, 0]);
                    break;
                default:
                    // Another checkpoint's bytes under this name.
                    File.WriteAllBytes(path, contents[number % Count]);
                    break;
            }
            int expected = number switch
            {
                // A chain of which the newest is whole is all that is needed.
                <= 3 => Count,
                // The full one of the newer chain: the older chain is whole.
                4 => 3,
                _ => number - 1,
            };
            using SnapshotRegion target = SnapshotRegion.Create(Program.Length, AnyEngine);
            using var reader = new Checkpointer(target, _folder);
            RestoredCheckpoint restored = reader.Restore();
            Assert.Equal(expected, restored.Number);
            Program.Check(target, restored.Number);
            // The last one, deleted, leaves no trace: like a checkpoint that was never complete.
            bool visible = number > 3 && !(kind == 0 && number == Count);
            Assert.Equal(visible, restored.Problems.Any(p => p.StartsWith(path + ":", StringComparison.Ordinal)));
            Assert.Equal(visible ? 1 : 0, restored.Problems.Count);
            File.WriteAllBytes(path, content);
        }, iter: 150, threads: 1);
    }

    [Fact]
    public void If_nothing_is_whole_nothing_is_loaded()
    {
        using SnapshotRegion region = SnapshotRegion.Create(10 * Page, AnyEngine);
        region.AsSpan<byte>(0, 10 * Page).Fill(3);
        using var checkpointer = new Checkpointer(region, _folder);
        checkpointer.Write();
        region.AsSpan<byte>(0, 1)[0] = 4;
        checkpointer.Write();
        string full = Files().First();
        using (FileStream file = File.OpenWrite(full))
            file.SetLength(file.Length - 1);
        region.AsSpan<byte>(0, 10 * Page).Fill(5);
        var e = Assert.Throws<CheckpointCorruptException>(() => checkpointer.Restore());
        Assert.Contains(full, e.Message, StringComparison.Ordinal);
        Assert.Single(e.Problems);
        Assert.Equal(-1, region.AsSpan<byte>(0, 10 * Page).IndexOfAnyExcept((byte)5));
        // Its own chain is broken; that is noticed when it is read, and a full one cures it.
        using var again = new SnapshotRegionAndCheckpointer(_folder, checkpointer);
        Assert.True(again.Checkpointer.Write().IsFull);
        Assert.Equal(3, again.Checkpointer.Restore().Number);
    }

    [Fact]
    public void A_folder_belongs_to_one_and_a_region_must_fit()
    {
        using SnapshotRegion region = SnapshotRegion.Create(10 * Page, AnyEngine);
        using SnapshotRegion other = SnapshotRegion.Create(11 * Page, AnyEngine);
        using (var checkpointer = new Checkpointer(region, _folder))
        {
            var e = Assert.Throws<IOException>(() => new Checkpointer(other, _folder));
            Assert.Contains(_folder, e.Message, StringComparison.Ordinal);
            using Snapshot foreign = other.TakeSnapshot();
            Assert.Throws<ArgumentException>(() => checkpointer.Write(foreign));
            using Snapshot older = region.TakeSnapshot();
            checkpointer.Write();
            Assert.Throws<ArgumentException>(() => checkpointer.Write(older));
        }
        using var second = new Checkpointer(other, _folder);
        Assert.Throws<ArgumentException>(() => second.Restore());
        second.Dispose();
        Assert.Throws<ObjectDisposedException>(() => second.Write());
        Assert.Throws<ObjectDisposedException>(() => second.Restore());
    }

    [Fact]
    public void Without_room_the_one_before_stays()
    {
        using SnapshotRegion region = SnapshotRegion.Create(10 * Page, AnyEngine);
        using var checkpointer = new Checkpointer(region, _folder);
        region.AsSpan<byte>(0, 1)[0] = 1;
        checkpointer.Write();
        region.AsSpan<byte>(0, 1)[0] = 2;
        // A folder where the temporary file would be.
        string blocked = Path.Combine(_folder, CheckpointFormat.FileName(2) + ".tmp");
        Directory.CreateDirectory(blocked);
        Assert.ThrowsAny<Exception>(() => checkpointer.Write());
        Directory.Delete(blocked);
        // The change is not forgotten.
        Assert.True(checkpointer.Write() is { Number: 2, IsFull: false, Pages: 1 });
        Assert.Equal(2, checkpointer.Restore().Number);
    }

    /// <summary>Kills a process 200 times while it writes checkpoints, and looks each time at what is left.</summary>
    [Fact]
    public void After_a_kill_a_committed_state_is_restored() => Kills.Run(_folder, Kills.Count ?? 200, null, Environment.ProcessPath!, Kills.Program);

    private IEnumerable<string> Files() => Directory.GetFiles(_folder, "*" + CheckpointFormat.Extension).Order();

    private static long Number(string path) => CheckpointFormat.TryParseFileName(Path.GetFileName(path), out long number) ? number : -1;

    /// <summary>The folder, opened anew with a region of its own.</summary>
    private sealed class SnapshotRegionAndCheckpointer : IDisposable
    {
        private readonly SnapshotRegion _region = SnapshotRegion.Create(10 * Page, AnyEngine);

        internal SnapshotRegionAndCheckpointer(string folder, Checkpointer before)
        {
            before.Dispose();
            Checkpointer = new Checkpointer(_region, folder);
        }

        internal Checkpointer Checkpointer { get; }

        public void Dispose()
        {
            Checkpointer.Dispose();
            _region.Dispose();
        }
    }
}
