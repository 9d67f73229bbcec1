using System.Diagnostics;
using System.Diagnostics.CodeAnalysis;
using System.Runtime.CompilerServices;
using Privy.Diagnostics;
using Privy.Engines;

namespace Privy;

/// <summary>
/// Memory for a database, of which snapshots can be taken. All threads may read and write it at any time, through spans or pointers, as they would any other memory.
/// <para>It lives until it is disposed of; it is never collected.</para>
/// </summary>
public sealed unsafe class SnapshotRegion : IDisposable
{
    /// <summary>Bytes of a page, the unit in which snapshots copy and notice changes.</summary>
    public const int PageSize = 4096;

    private readonly ISnapshotEngine _engine;
    private readonly Lock _gate = new();
    private readonly List<SnapshotPoint> _points = [];
    private readonly byte* _memory;
    private long _epoch;
    private int _alive;
    private long _lastTime;
    private long _totalTime;
    private long _maxTime;
    private volatile bool _disposed;

    private SnapshotRegion(ISnapshotEngine engine, long length)
    {
        _engine = engine;
        _memory = engine.Memory;
        Length = length;
    }

    /// <summary>Length in bytes.</summary>
    public long Length { get; }

    /// <summary>What makes the snapshots.</summary>
    public SnapshotEngine Engine => _engine.Kind;

    /// <summary>First byte, valid until <see cref="Dispose"/>. It lies at the start of a page.</summary>
    /// <exception cref="ObjectDisposedException">The region has been disposed of.</exception>
    public byte* Pointer
    {
        get
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            return _memory;
        }
    }

    /// <summary>What the snapshots have cost so far.</summary>
    public SnapshotStatistics Statistics
    {
        get
        {
            lock (_gate)
            {
                EngineCounters counters = _disposed ? default : _engine.Counters;
                long copies = 0;
                foreach (SnapshotPoint point in _points)
                    copies += point.ViewOpen ? point.Engine.CopyBytes : 0;
                return new SnapshotStatistics
                {
                    SnapshotsTaken = _epoch,
                    SnapshotsAlive = _alive,
                    Faults = counters.Faults,
                    PagesCopied = counters.PagesCopied,
                    CopyBytes = copies,
                    SnapshotsLost = counters.SnapshotsLost,
                    LastSnapshotTime = Stopwatch.GetElapsedTime(0, _lastTime),
                    MeanSnapshotTime = Stopwatch.GetElapsedTime(0, _epoch == 0 ? 0 : _totalTime / _epoch),
                    MaxSnapshotTime = Stopwatch.GetElapsedTime(0, _maxTime),
                };
            }
        }
    }

    /// <summary>Makes a region, filled with zeros. Its memory is taken when it is first touched, page by page.</summary>
    /// <param name="length">Bytes, a multiple of <see cref="PageSize"/>; may be far more than will be used.</param>
    /// <param name="options">How it is made, or null for the defaults.</param>
    /// <returns>The region, to be disposed of by the caller.</returns>
    /// <exception cref="ArgumentOutOfRangeException">The length is not a positive multiple of <see cref="PageSize"/>.</exception>
    /// <exception cref="InsufficientMemoryException">There is no room for a region of that size.</exception>
    /// <exception cref="PlatformNotSupportedException">There is no engine for it on this system; the message says why, and what to do.</exception>
    public static SnapshotRegion Create(long length, SnapshotRegionOptions? options = null)
    {
        if (length <= 0 || length % PageSize != 0)
            throw new ArgumentOutOfRangeException(nameof(length), length, $"The length of a region must be a positive multiple of {PageSize} bytes.");
        options ??= new SnapshotRegionOptions();
        var region = new SnapshotRegion(EngineSelection.Create(length, options), length);
        PrivyMeter.Add(region);
        return region;
    }

    /// <summary>Is there such an engine on this system?</summary>
    /// <param name="engine">The engine.</param>
    /// <param name="reason">If not, why, and what to do.</param>
    public static bool IsAvailable(SnapshotEngine engine, [NotNullWhen(false)] out string? reason)
    {
        reason = EngineSelection.WhyNot(engine);
        return reason is null;
    }

    /// <summary>A part of the region, for reading and writing. It must not be used after <see cref="Dispose"/>.</summary>
    /// <typeparam name="T">What the bytes are; any type without references.</typeparam>
    /// <param name="offset">Where the part starts, in bytes.</param>
    /// <param name="count">How many <typeparamref name="T"/> it holds.</param>
    /// <returns>The part.</returns>
    /// <exception cref="ArgumentOutOfRangeException">The part does not lie in the region.</exception>
    /// <exception cref="ObjectDisposedException">The region has been disposed of.</exception>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public Span<T> AsSpan<T>(long offset, int count)
        where T : unmanaged
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        CheckPart<T>(offset, count);
        return new Span<T>(_memory + offset, count);
    }

    /// <summary>
    /// Takes a snapshot of one instant across all threads: each write that happened before it is in the snapshot, none that happens after it. Any thread may call it
    /// at any time, also while others write.
    /// </summary>
    /// <returns>The snapshot, to be disposed of by the caller: as long as it lives, the first write to each page costs a copy.</returns>
    /// <exception cref="ObjectDisposedException">The region has been disposed of.</exception>
    /// <exception cref="InsufficientMemoryException">There is no room for another view.</exception>
    public Snapshot TakeSnapshot()
    {
        SnapshotPoint point;
        long time;
        lock (_gate)
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            long start = Stopwatch.GetTimestamp();
            EngineSnapshot taken = _engine.Take();
            time = Stopwatch.GetTimestamp() - start;
            point = new SnapshotPoint(this, taken, ++_epoch);
            _points.Add(point);
            _alive++;
            _lastTime = time;
            _totalTime += time;
            _maxTime = Math.Max(_maxTime, time);
        }
        TimeSpan elapsed = Stopwatch.GetElapsedTime(0, time);
        PrivyMeter.SnapshotTaken(elapsed);
        PrivyEventSource.Log.SnapshotTaken(point.Epoch, elapsed.TotalMicroseconds);
        return new Snapshot(point);
    }

    /// <summary>Gives the memory back. Snapshots and marks of the region are disposed of, too; spans and pointers to it must not be used any more.</summary>
    public void Dispose()
    {
        SnapshotStatistics last;
        lock (_gate)
        {
            if (_disposed)
                return;
            last = Statistics;
            _disposed = true;
            foreach (SnapshotPoint point in _points)
            {
                point.IsRemoved = true;
                if (point.ViewOpen)
                    _engine.FreeView(_engine.CloseView(point.Engine));
                _engine.Remove(point.Engine);
            }
            _points.Clear();
            _alive = 0;
            _engine.Close();
        }
        PrivyMeter.Remove(this, last);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal void CheckPart<T>(long offset, int count)
        where T : unmanaged
    {
        if (offset < 0 || count < 0 || offset > Length || count > (Length - offset) / sizeof(T))
            OutOfRange(offset, count, sizeof(T));
    }

    internal void AddReference(SnapshotPoint point, object owner)
    {
        lock (_gate)
        {
            ObjectDisposedException.ThrowIf(point.IsRemoved, owner);
            point.References++;
        }
    }

    internal void RemoveReference(SnapshotPoint point)
    {
        lock (_gate)
        {
            if (--point.References == 0 && !point.IsRemoved)
                Remove(point);
        }
    }

    internal void CloseSnapshot(SnapshotPoint point)
    {
        byte* view;
        lock (_gate)
        {
            if (point.IsRemoved)
                return;
            point.ViewOpen = false;
            _alive--;
            view = _engine.CloseView(point.Engine);
            if (--point.References == 0)
                Remove(point);
        }
        _engine.FreeView(view);
    }

    internal PageSet Changed(SnapshotPoint newer, object newerOwner, SnapshotPoint older, object olderOwner)
    {
        var words = new ulong[(Length / PageSize + 63) / 64];
        lock (_gate)
        {
            ObjectDisposedException.ThrowIf(newer.IsRemoved, newerOwner);
            ObjectDisposedException.ThrowIf(older.IsRemoved, olderOwner);
            if (newer != older)
                _engine.Changed(newer.Engine, older.Engine, words);
        }
        return new PageSet(words);
    }

    /// <summary>Pages that may hold something other than zeros, now or in a snapshot taken before.</summary>
    internal PageSet TouchedPages()
    {
        var words = new ulong[(Length / PageSize + 63) / 64];
        lock (_gate)
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            _engine.Touched(words);
        }
        return new PageSet(words);
    }

    private void Remove(SnapshotPoint point)
    {
        point.IsRemoved = true;
        _points.Remove(point);
        _engine.Remove(point.Engine);
    }

    [DoesNotReturn]
    private void OutOfRange(long offset, int count, int size) =>
        throw new ArgumentOutOfRangeException(
            nameof(offset), offset, $"{count} elements of {size} bytes from offset {offset} on do not lie in the region's {Length} bytes.");
}
