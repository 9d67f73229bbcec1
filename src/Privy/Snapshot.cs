using Privy.Engines;

namespace Privy;

/// <summary>
/// A region's bytes at one instant. Taken by <see cref="SnapshotRegion.TakeSnapshot"/>, readable by any thread until it is disposed of.
/// Thread-safe, except that a span or pointer got from it must not be used after <see cref="Dispose"/>.
/// </summary>
public sealed unsafe class Snapshot : IDisposable
{
    private readonly SnapshotPoint _point;
    private int _disposed;

    internal Snapshot(SnapshotPoint point) => _point = point;

    /// <summary>The region it was taken of.</summary>
    public SnapshotRegion Region => _point.Region;

    /// <summary>Its place in the order of the region's snapshots: 1 for the first.</summary>
    public long Epoch => _point.Epoch;

    /// <summary>Length of the view in bytes: the region's.</summary>
    public long Length => _point.Region.Length;

    /// <summary>Did it lose its bytes, because there was no memory for a copy? Then reading it throws.</summary>
    public bool IsLost => _point.Engine.Lost;

    /// <summary>First byte of the view, for reading only, valid until <see cref="Dispose"/>.</summary>
    /// <exception cref="ObjectDisposedException">The snapshot or its region has been disposed of.</exception>
    /// <exception cref="SnapshotLostException">There was no memory for a copy it needed.</exception>
    public byte* Pointer
    {
        get
        {
            ObjectDisposedException.ThrowIf(Volatile.Read(ref _disposed) != 0 || _point.IsRemoved, this);
            if (_point.Engine.Lost)
                throw new SnapshotLostException();
            return _point.Engine.View;
        }
    }

    /// <summary>A part of the view. It must not be used after <see cref="Dispose"/>.</summary>
    /// <typeparam name="T">What the bytes are; any type without references.</typeparam>
    /// <param name="offset">Where the part starts, in bytes.</param>
    /// <param name="count">How many <typeparamref name="T"/> it holds.</param>
    /// <returns>The part, read-only.</returns>
    /// <exception cref="ArgumentOutOfRangeException">The part does not lie in the region.</exception>
    /// <exception cref="ObjectDisposedException">The snapshot or its region has been disposed of.</exception>
    /// <exception cref="SnapshotLostException">There was no memory for a copy it needed.</exception>
    public ReadOnlySpan<T> AsSpan<T>(long offset, int count)
        where T : unmanaged
    {
        byte* view = Pointer;
        Region.CheckPart<T>(offset, count);
        return new ReadOnlySpan<T>(view + offset, count);
    }

    /// <summary>
    /// The pages written between an older snapshot and this one, from the page tables, without comparing bytes. A page counts if something was written to it,
    /// even if its bytes are now the same as before; a page that does not count has the same bytes in both.
    /// </summary>
    /// <param name="older">An earlier snapshot of the same region, not disposed of.</param>
    /// <returns>The pages.</returns>
    /// <exception cref="ArgumentException">It is of another region, or not older.</exception>
    /// <exception cref="ObjectDisposedException">One of the two has been disposed of.</exception>
    public PageSet ChangedPages(Snapshot older)
    {
        ArgumentNullException.ThrowIfNull(older);
        ObjectDisposedException.ThrowIf(Volatile.Read(ref older._disposed) != 0, older);
        return ChangedSince(older._point, older, nameof(older));
    }

    /// <summary>The pages written between an older snapshot's mark and this one; see <see cref="ChangedPages(Snapshot)"/>.</summary>
    /// <param name="older">The mark of an earlier snapshot of the same region, not disposed of.</param>
    /// <returns>The pages.</returns>
    /// <exception cref="ArgumentException">It is of another region, or not older.</exception>
    /// <exception cref="ObjectDisposedException">One of the two has been disposed of.</exception>
    public PageSet ChangedPages(SnapshotMark older)
    {
        ArgumentNullException.ThrowIfNull(older);
        ObjectDisposedException.ThrowIf(older.IsDisposed, older);
        return ChangedSince(older.Point, older, nameof(older));
    }

    /// <summary>
    /// Makes a mark of this instant, which outlives the snapshot: it keeps no bytes and causes no copies, but
    /// <see cref="ChangedPages(SnapshotMark)"/> of later snapshots can refer to it.
    /// </summary>
    /// <returns>The mark, to be disposed of by the caller.</returns>
    /// <exception cref="ObjectDisposedException">The snapshot or its region has been disposed of.</exception>
    public SnapshotMark CreateMark()
    {
        ObjectDisposedException.ThrowIf(Volatile.Read(ref _disposed) != 0, this);
        Region.AddReference(_point, this);
        return new SnapshotMark(_point);
    }

    /// <summary>Gives the copies back. Views of other snapshots stay as they are.</summary>
    public void Dispose()
    {
        if (Interlocked.Exchange(ref _disposed, 1) == 0)
            Region.CloseSnapshot(_point);
    }

    private PageSet ChangedSince(SnapshotPoint older, object olderOwner, string parameter)
    {
        ObjectDisposedException.ThrowIf(Volatile.Read(ref _disposed) != 0, this);
        if (older.Region != Region)
            throw new ArgumentException("The older snapshot is of another region.", parameter);
        if (older.Epoch > Epoch)
            throw new ArgumentException("The other snapshot is not older than this one.", parameter);
        return Region.Changed(_point, this, older, olderOwner);
    }
}
