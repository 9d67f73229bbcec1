using System.Runtime.InteropServices;

namespace Privy.Engines.Copying;

/// <summary>The last resort: a snapshot is a copy of the region, of one instant only if nobody writes while it is made. What has changed is found by comparing.</summary>
internal sealed unsafe class CopyingEngine : ISnapshotEngine
{
    private const int ReadWrite = NativeMethods.ProtectionRead | NativeMethods.ProtectionWrite;
    private const int Anonymous = NativeMethods.MapPrivate | NativeMethods.MapAnonymous | NativeMethods.MapNoReserve;

    private readonly long _length;
    private long _copied;

    internal CopyingEngine(long length, bool populate)
    {
        _length = length;
        Memory = NativeMethods.Map(length, ReadWrite, Anonymous, -1, "a region");
        NativeMethods.Advise(Memory, length, NativeMethods.AdviseHugePage);
        try
        {
            if (populate)
                NativeMethods.Populate(Memory, length);
        }
        catch
        {
            Close();
            throw;
        }
    }

    public SnapshotEngine Kind => SnapshotEngine.Copying;

    public byte* Memory { get; }

    public EngineCounters Counters => new(0, Volatile.Read(ref _copied), 0);

    public EngineSnapshot Take()
    {
        byte* copy = NativeMethods.Map(_length, ReadWrite, Anonymous, -1, "a copy");
        NativeMethods.Advise(copy, _length, NativeMethods.AdviseHugePage);
        NativeMemory.Copy(Memory, copy, (nuint)_length);
        NativeMethods.Protect(copy, _length, NativeMethods.ProtectionRead);
        Volatile.Write(ref _copied, _copied + _length / SnapshotRegion.PageSize);
        return new Copy(copy, _length);
    }

    public byte* CloseView(EngineSnapshot snapshot)
    {
        snapshot.View = null;
        return null;
    }

    public void FreeView(byte* view)
    {
    }

    // The bytes are kept until now, because a mark can still be asked what has changed.
    public void Remove(EngineSnapshot snapshot) => NativeMethods.Unmap(((Copy)snapshot).Bytes, _length);

    public void Changed(EngineSnapshot newer, EngineSnapshot older, Span<ulong> pages)
    {
        byte* a = ((Copy)newer).Bytes;
        byte* b = ((Copy)older).Bytes;
        for (long page = 0; page < _length / SnapshotRegion.PageSize; page++)
        {
            long offset = page * SnapshotRegion.PageSize;
            if (!new ReadOnlySpan<byte>(a + offset, SnapshotRegion.PageSize).SequenceEqual(new ReadOnlySpan<byte>(b + offset, SnapshotRegion.PageSize)))
                pages[(int)(page >> 6)] |= 1ul << (int)(page & 63);
        }
    }

    public void Touched(Span<ulong> pages) => PageSets.Fill(pages, 0, _length / SnapshotRegion.PageSize);

    public void Close() => NativeMethods.Unmap(Memory, _length);

    private sealed class Copy : EngineSnapshot
    {
        private readonly long _length;

        internal Copy(byte* bytes, long length)
        {
            Bytes = bytes;
            View = bytes;
            _length = length;
        }

        internal byte* Bytes { get; }

        internal override bool Lost => false;

        internal override long CopyBytes => _length;
    }
}
