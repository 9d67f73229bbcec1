using System.Runtime.CompilerServices;

namespace Privy.Library.Tests;

/// <summary>
/// Writers never stop while snapshots are taken. Each writes a numbered sequence of words to places that a generator gives, so that from the number of its last write in a
/// snapshot every byte it owns follows; and with each word it writes how far it has seen its neighbour come.
/// </summary>
public sealed class InstantTests
{
    private const int Page = SnapshotRegion.PageSize;
    private const int Pages = 300;
    private const int Writers = 3;
    private const int WordsPerPage = Page / 8;

    /// <summary>Snapshots a run takes; the environment variable is for long runs.</summary>
    private static readonly int Rounds = int.TryParse(Environment.GetEnvironmentVariable("PRIVY_TEST_ROUNDS"), out int rounds) ? rounds : 300;

    private readonly ulong _seed = ulong.TryParse(Environment.GetEnvironmentVariable("PRIVY_TEST_SEED"), out ulong seed) ? seed : (ulong)Random.Shared.NextInt64();

    [EngineFact]
    public void A_snapshot_is_one_instant_of_all_threads() => Run(allocate: false);

    /// <summary>The garbage collector stops threads, which may be waiting for a page just then.</summary>
    [EngineFact]
    public void Collections_of_garbage_go_on_meanwhile() => Run(allocate: true);

    private void Run(bool allocate)
    {
        using SnapshotRegion region = SnapshotRegion.Create(Pages * Page);
        var writers = new Writer[Writers];
        for (int i = 0; i < Writers; i++)
            writers[i] = new Writer(region, i, _seed, allocate);
        foreach (Writer writer in writers)
            writer.Neighbour = writers[(writer.Index + 1) % Writers];
        int collections = GC.CollectionCount(0);
        var threads = writers.Select(w => new Thread(w.Run) { IsBackground = true }).ToArray();
        var models = Enumerable.Range(0, Writers).Select(i => new Model(i, _seed)).ToArray();
        var alive = new List<(Snapshot Snapshot, ulong[][] Expected)>();
        var random = new Random64(_seed ^ 1);
        foreach (Thread thread in threads)
            thread.Start();
        try
        {
            for (int round = 0; round < Rounds; round++)
            {
                // Enough to write until long after the snapshot, not so much that the model falls behind more and more.
                foreach (Writer writer in writers)
                    writer.Limit = writer.Done + 200_000;
                Thread.SpinWait(random.Below(20_000));
                var before = writers.Select(w => w.Done).ToArray();
                Snapshot snapshot = region.TakeSnapshot();
                var after = writers.Select(w => w.Done).ToArray();
                var last = new uint[Writers];
                for (int i = 0; i < Writers; i++)
                {
                    last[i] = Last(snapshot, i);
                    Assert.True(last[i] >= before[i], $"seed {_seed}, writer {i}: a write from before is missing: {last[i]} < {before[i]}");
                    Assert.True(last[i] <= after[i] + 1, $"seed {_seed}, writer {i}: a write from after is there: {last[i]} > {after[i]} + 1");
                    models[i].Advance(last[i]);
                }
                var expected = models.Select(m => m.Words.ToArray()).ToArray();
                Check(snapshot, expected, last);
                alive.Add((snapshot, expected));
                if (alive.Count > random.Below(4))
                {
                    int which = random.Below(alive.Count);
                    Check(alive[which].Snapshot, alive[which].Expected, null);
                    alive[which].Snapshot.Dispose();
                    alive.RemoveAt(which);
                }
                if (round % 10 == 0)
                    Assert.All(threads, t => Assert.True(t.IsAlive));
            }
            foreach ((Snapshot snapshot, ulong[][] expected) in alive)
            {
                Check(snapshot, expected, null);
                snapshot.Dispose();
            }
        }
        finally
        {
            foreach (Writer writer in writers)
                writer.Stop = true;
            foreach (Thread thread in threads)
                thread.Join();
        }
        if (allocate)
            Assert.True(GC.CollectionCount(0) > collections, "the run had no collection");
        Assert.True(region.Statistics.PagesCopied > Rounds, $"{region.Statistics.PagesCopied} copies");
    }

    /// <summary>Word <paramref name="word"/> of a writer: its words are spread over all pages, beside those of the others.</summary>
    private static long Offset(int writer, int word) => ((long)word * Writers + writer) * 8;

    private const int Words = Pages * WordsPerPage / Writers;

    private static uint Last(Snapshot snapshot, int writer)
    {
        uint last = 0;
        ReadOnlySpan<ulong> words = snapshot.AsSpan<ulong>(0, Pages * WordsPerPage);
        for (int word = 0; word < Words; word++)
            last = Math.Max(last, (uint)words[word * Writers + writer]);
        return last;
    }

    private void Check(Snapshot snapshot, ulong[][] expected, uint[]? last)
    {
        ReadOnlySpan<ulong> words = snapshot.AsSpan<ulong>(0, Pages * WordsPerPage);
        for (int writer = 0; writer < Writers; writer++)
        {
            for (int word = 0; word < Words; word++)
            {
                ulong value = words[word * Writers + writer];
                if (last is not null)
                {
                    // What is known of the neighbour differs from run to run, but nobody has seen anything that is not in the snapshot.
                    if (value >> 32 > last[(writer + 1) % Writers])
                        Assert.Fail($"seed {_seed}: write {(uint)value} of writer {writer} had seen write {value >> 32} of its neighbour, of which the snapshot has only {last[(writer + 1) % Writers]}");
                    if ((uint)value != expected[writer][word])
                        Assert.Fail($"seed {_seed}, snapshot {snapshot.Epoch}, writer {writer}, word {word}: {(uint)value} in place of {expected[writer][word]}");
                    expected[writer][word] = value;
                }
                else if (value != expected[writer][word])
                {
                    Assert.Fail($"seed {_seed}, snapshot {snapshot.Epoch}, writer {writer}, word {word}: {value:x} in place of {expected[writer][word]:x}");
                }
            }
        }
    }

    private sealed class Model(int writer, ulong seed)
    {
        private readonly ulong[] _words = new ulong[InstantTests.Words];
        private Random64 _random = new(seed + (ulong)writer);
        private uint _number;

        internal ulong[] Words => _words;

        internal void Advance(uint number)
        {
            while (_number < number)
                _words[_random.Below(InstantTests.Words)] = ++_number;
        }
    }

    private sealed unsafe class Writer(SnapshotRegion region, int index, ulong seed, bool allocate)
    {
        private readonly byte* _memory = region.Pointer;
        private uint _done;
        private object? _garbage;

        internal int Index => index;

        internal Writer? Neighbour { get; set; }

        internal volatile bool Stop;

        internal volatile uint Limit;

        internal uint Done => Volatile.Read(ref _done);

        internal void Run()
        {
            var random = new Random64(seed + (ulong)index);
            uint number = 0;
            while (!Stop)
            {
                if (number >= Limit)
                {
                    Thread.Yield();
                    continue;
                }
                ulong* place = (ulong*)(_memory + Offset(index, random.Below(Words)));
                Volatile.Write(ref Unsafe.AsRef<ulong>(place), ++number | (ulong)Neighbour!.Done << 32);
                Volatile.Write(ref _done, number);
                if (allocate)
                    _garbage = new object[100 + number % 100];
            }
            GC.KeepAlive(_garbage);
        }
    }
}
