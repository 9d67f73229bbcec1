namespace Privy;

/// <summary>The instant of a snapshot, without its bytes: what changed since can be asked for. Made by <see cref="Snapshot.CreateMark"/>.</summary>
public sealed class SnapshotMark : IDisposable
{
    private int _disposed;

    internal SnapshotMark(SnapshotPoint point) => Point = point;

    /// <summary>The <see cref="Snapshot.Epoch"/> of its snapshot.</summary>
    public long Epoch => Point.Epoch;

    internal SnapshotPoint Point { get; }

    internal bool IsDisposed => Volatile.Read(ref _disposed) != 0;

    /// <summary>Forgets what has changed since.</summary>
    public void Dispose()
    {
        if (Interlocked.Exchange(ref _disposed, 1) == 0)
            Point.Region.RemoveReference(Point);
    }
}
