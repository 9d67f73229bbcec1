using System.Diagnostics;
using System.Security.Cryptography;
using Privy.Checkpoints;
using Privy.Diagnostics;
using Privy.Engines;

namespace Privy;

/// <summary>
/// Writes checkpoints of a region to a folder: first a full one, then incremental ones, each with the pages that changed since the one before. A checkpoint counts from the moment
/// on when it is whole and on disk, and whatever happens until then, the one before stays. Everything in it has a checksum.
/// <para>Thread-safe; checkpoints are written one after the other. Writers of the region go on meanwhile.</para>
/// </summary>
public sealed class Checkpointer : IDisposable
{
    private readonly SnapshotRegion _region;
    private readonly string _directory;
    private readonly CheckpointerOptions _options;
    private readonly FileStream _lock;
    private readonly Lock _gate = new();
    private SnapshotMark? _last;
    private CheckpointFormat.FileHeader _lastHeader;
    private long _number;
    private int _increments;
    private long _fullBytes;
    private long _incrementBytes;
    private bool _disposed;

    /// <summary>Opens a folder for checkpoints, and keeps it to itself until it is disposed of. What is there stays there; <see cref="Restore"/> loads it.</summary>
    /// <param name="region">The region.</param>
    /// <param name="directory">The folder; it is made if it does not exist.</param>
    /// <param name="options">How to work, or null for the defaults.</param>
    /// <exception cref="IOException">The folder cannot be used, or another checkpointer has it.</exception>
    public Checkpointer(SnapshotRegion region, string directory, CheckpointerOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(region);
        ArgumentException.ThrowIfNullOrEmpty(directory);
        _region = region;
        _directory = Path.GetFullPath(directory);
        _options = options ?? new CheckpointerOptions();
        Directory.CreateDirectory(_directory);
        try
        {
            _lock = new FileStream(Path.Combine(_directory, "lock"), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
        }
        catch (IOException e)
        {
            throw new IOException($"The folder {_directory} cannot be opened for checkpoints; perhaps another process writes to it: {e.Message}", e);
        }
        foreach (string left in Directory.EnumerateFiles(_directory, "*" + CheckpointFormat.Extension + CheckpointFormat.TemporaryExtension))
            File.Delete(left);
        foreach (long number in Numbers(_directory))
            _number = Math.Max(_number, number);
    }

    /// <summary>Takes a snapshot and writes it.</summary>
    /// <returns>The checkpoint, complete and on disk.</returns>
    /// <exception cref="IOException">It could not be written; the checkpoints before are as they were.</exception>
    /// <exception cref="ObjectDisposedException">The checkpointer or the region has been disposed of.</exception>
    public Checkpoint Write()
    {
        lock (_gate)
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            using Snapshot snapshot = _region.TakeSnapshot();
            return Write(snapshot);
        }
    }

    /// <summary>Writes a snapshot, for instance one that was taken while the program's own rules held. It is not disposed of.</summary>
    /// <param name="snapshot">A snapshot of the region, not older than what was written last.</param>
    /// <returns>The checkpoint, complete and on disk.</returns>
    /// <exception cref="ArgumentException">The snapshot is of another region, or older than the last checkpoint.</exception>
    /// <exception cref="IOException">It could not be written; the checkpoints before are as they were.</exception>
    /// <exception cref="ObjectDisposedException">The checkpointer or the snapshot has been disposed of.</exception>
    /// <exception cref="SnapshotLostException">The snapshot has no bytes any more.</exception>
    public Checkpoint Write(Snapshot snapshot)
    {
        ArgumentNullException.ThrowIfNull(snapshot);
        if (snapshot.Region != _region)
            throw new ArgumentException("The snapshot is of another region.", nameof(snapshot));
        lock (_gate)
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            if (_last is not null && snapshot.Epoch < _last.Epoch)
                throw new ArgumentException("The snapshot is older than the last checkpoint.", nameof(snapshot));
            long start = Stopwatch.GetTimestamp();
            bool full = _last is null || _increments >= _options.IncrementsPerFull || _incrementBytes > _fullBytes;
            PageSet pages = full ? _region.TouchedPages() : snapshot.ChangedPages(_last!);
            var header = new CheckpointFormat.FileHeader
            {
                Magic = CheckpointFormat.Magic,
                Number = _number + 1,
                Identity = BitConverter.ToUInt128(RandomNumberGenerator.GetBytes(16)),
                PreviousNumber = full ? 0 : _lastHeader.Number,
                PreviousIdentity = full ? 0 : _lastHeader.Identity,
                RegionLength = _region.Length,
                PageSize = SnapshotRegion.PageSize,
            };
            SnapshotMark mark = snapshot.CreateMark();
            try
            {
                using var writer = new CheckpointWriter(_directory, header);
                writer.Write(snapshot, pages, skipZeros: full);
                // A view that is lost meanwhile ends the process or throws at the next part; a last look, before the file gets its name.
                if (snapshot.IsLost)
                    throw new SnapshotLostException();
                writer.Complete(_directory);
                _last?.Dispose();
                _last = mark;
                _lastHeader = header;
                _number = header.Number;
                _increments = full ? 0 : _increments + 1;
                _fullBytes = full ? writer.Bytes : _fullBytes;
                _incrementBytes = full ? 0 : _incrementBytes + writer.Bytes;
                if (full)
                    DeleteOldChains();
                var checkpoint = new Checkpoint(header.Number, full, writer.Pages, writer.Bytes, writer.FilePath, Stopwatch.GetElapsedTime(start));
                PrivyEventSource.Log.CheckpointWritten(checkpoint.Number, checkpoint.Pages, checkpoint.Duration.TotalMilliseconds);
                return checkpoint;
            }
            catch
            {
                if (_last != mark)
                    mark.Dispose();
                throw;
            }
        }
    }

    /// <summary>
    /// Loads the newest checkpoint that is complete, with all that it builds on. A file that is corrupt or missing is named and nothing of it is loaded: then the newest
    /// checkpoint that does not need it is. Nobody else may write to the region meanwhile. The next checkpoint is then an increment of the one that was loaded.
    /// </summary>
    /// <returns>What was loaded; number 0 if the folder has no checkpoints.</returns>
    /// <exception cref="CheckpointCorruptException">There are checkpoints, but none that is complete; the region is as it was.</exception>
    /// <exception cref="ArgumentException">The checkpoints are of a region of another length.</exception>
    /// <exception cref="IOException">A file was right when it was checked and wrong when it was loaded; the region's bytes are then undefined.</exception>
    /// <exception cref="ObjectDisposedException">The checkpointer or the region has been disposed of.</exception>
    public RestoredCheckpoint Restore()
    {
        lock (_gate)
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            long[] numbers = [.. Numbers(_directory).OrderDescending()];
            var known = new Dictionary<long, (CheckpointFormat.FileHeader Header, string? Problem)>();
            var problems = new List<string>();
            foreach (long tip in numbers)
            {
                if (Chain(tip, known, out string problem) is not { } chain)
                {
                    if (!problems.Contains(problem))
                        problems.Add(problem);
                    continue;
                }
                CheckpointFormat.FileHeader newest = chain[^1];
                if (newest.RegionLength != _region.Length)
                    throw new ArgumentException($"The checkpoints in {_directory} are of a region of {newest.RegionLength} bytes; this one has {_region.Length}.");
                Load(chain);
                _last?.Dispose();
                using (Snapshot snapshot = _region.TakeSnapshot())
                    _last = snapshot.CreateMark();
                _lastHeader = newest;
                _increments = chain.Count - 1;
                _fullBytes = new FileInfo(FilePath(chain[0].Number)).Length;
                _incrementBytes = chain.Skip(1).Sum(header => new FileInfo(FilePath(header.Number)).Length);
                return new RestoredCheckpoint(tip, [.. chain.Select(header => FilePath(header.Number))], problems);
            }
            if (numbers.Length > 0)
                throw new CheckpointCorruptException(problems);
            return new RestoredCheckpoint(0, [], []);
        }
    }

    /// <summary>Gives the folder free. The checkpoints stay.</summary>
    public void Dispose()
    {
        lock (_gate)
        {
            if (_disposed)
                return;
            _disposed = true;
            _last?.Dispose();
            _lock.Dispose();
        }
    }

    private string FilePath(long number) => Path.Combine(_directory, CheckpointFormat.FileName(number));

    private static IEnumerable<long> Numbers(string directory)
    {
        foreach (string path in Directory.EnumerateFiles(directory, "*" + CheckpointFormat.Extension))
        {
            if (CheckpointFormat.TryParseFileName(Path.GetFileName(path), out long number))
                yield return number;
        }
    }

    /// <summary>What checkpoint <paramref name="tip"/> builds on, the full one first, all of it checked.</summary>
    /// <returns>Null if something is wrong with it.</returns>
    private List<CheckpointFormat.FileHeader>? Chain(
        long tip, Dictionary<long, (CheckpointFormat.FileHeader Header, string? Problem)> known, out string problem)
    {
        var chain = new List<CheckpointFormat.FileHeader>();
        long number = tip;
        problem = "";
        while (true)
        {
            if (!known.TryGetValue(number, out (CheckpointFormat.FileHeader Header, string? Problem) file))
            {
                if (!File.Exists(FilePath(number)))
                {
                    file.Problem = "it is missing";
                }
                else
                {
                    file.Header = CheckpointReader.ReadHeader(FilePath(number), out file.Problem);
                    file.Problem ??= CheckpointReader.ReadRecords(FilePath(number), file.Header, null);
                }
                known[number] = file;
            }
            if (file.Problem is null && chain.Count > 0 && (file.Header.Identity != chain[^1].PreviousIdentity || file.Header.RegionLength != chain[^1].RegionLength))
                file.Problem = $"it is not the one that checkpoint {chain[^1].Number} was made after";
            if (file.Problem is not null)
            {
                problem = $"{FilePath(number)}: {file.Problem}.";
                return null;
            }
            chain.Add(file.Header);
            if (file.Header.PreviousNumber == 0)
                break;
            number = file.Header.PreviousNumber;
        }
        chain.Reverse();
        return chain;
    }

    private void Load(List<CheckpointFormat.FileHeader> chain)
    {
        // A full checkpoint leaves out pages of zeros.
        foreach (PageRange range in _region.TouchedPages())
        {
            for (long offset = range.Offset; offset < range.End; offset += SnapshotRegion.PageSize)
            {
                Span<byte> page = _region.AsSpan<byte>(offset, SnapshotRegion.PageSize);
                if (page.ContainsAnyExcept((byte)0))
                    page.Clear();
            }
        }
        foreach (CheckpointFormat.FileHeader header in chain)
        {
            if (CheckpointReader.ReadRecords(FilePath(header.Number), header, _region) is { } problem)
                throw new IOException($"{FilePath(header.Number)} has changed while it was loaded: {problem}. The region's bytes are undefined now.");
        }
    }

    private void DeleteOldChains()
    {
        // Newest first; whatever comes after the last full checkpoint that is kept goes.
        int fulls = 0;
        foreach (long number in Numbers(_directory).OrderDescending())
        {
            CheckpointFormat.FileHeader header = CheckpointReader.ReadHeader(FilePath(number), out string? problem);
            if (fulls >= _options.ChainsKept)
                Delete(FilePath(number));
            else if (problem is null && header.PreviousNumber == 0)
                fulls++;
        }
    }

    private static void Delete(string path)
    {
        try
        {
            File.Delete(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // The checkpoint is complete all the same; the next full one tries again.
        }
    }
}
