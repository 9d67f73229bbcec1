using System.Numerics;
using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;
using Privy.Engines;

namespace Privy.Checkpoints;

/// <summary>Writes one checkpoint file. It has its name only when it is whole and on disk.</summary>
internal sealed class CheckpointWriter : IDisposable
{
    private const int BufferBytes = 4 * CheckpointFormat.MaxRecordBytes;

    private readonly string _path;
    private readonly string _temporary;
    private readonly SafeFileHandle _file;
    private readonly byte[] _buffer = GC.AllocateUninitializedArray<byte>(BufferBytes);
    private int _used;
    private uint _records;
    private uint _checksum;
    private bool _complete;

    internal CheckpointWriter(string directory, CheckpointFormat.FileHeader header)
    {
        _path = Path.Combine(directory, CheckpointFormat.FileName(header.Number));
        _temporary = _path + CheckpointFormat.TemporaryExtension;
        _file = File.OpenHandle(_temporary, FileMode.Create, FileAccess.Write, FileShare.None);
        header.Checksum = CheckpointFormat.Checksum(header);
        Append(MemoryMarshal.AsBytes(new ReadOnlySpan<CheckpointFormat.FileHeader>(in header)));
    }

    internal long Pages { get; private set; }

    internal long Bytes { get; private set; }

    internal string FilePath => _path;

    /// <summary>Writes runs of pages of a snapshot; of a full checkpoint, those that are not zero.</summary>
    internal void Write(Snapshot snapshot, PageSet pages, bool skipZeros)
    {
        foreach (PageRange range in pages)
        {
            for (long offset = range.Offset; offset < range.End;)
            {
                int length = (int)Math.Min(range.End - offset, CheckpointFormat.MaxRecordBytes);
                ReadOnlySpan<byte> bytes = snapshot.AsSpan<byte>(offset, length);
                if (skipZeros)
                    WriteNonZero(offset, bytes);
                else
                    Record(offset, bytes);
                offset += length;
            }
        }
    }

    internal void Complete(string directory)
    {
        Record(CheckpointFormat.EndOffset, []);
        Flush();
        RandomAccess.FlushToDisk(_file);
        _file.Dispose();
        File.Move(_temporary, _path, overwrite: true);
        _complete = true;
        NativeMethods.SynchronizeDirectory(directory);
    }

    public void Dispose()
    {
        _file.Dispose();
        if (!_complete)
            File.Delete(_temporary);
    }

    private void WriteNonZero(long offset, ReadOnlySpan<byte> bytes)
    {
        int start = -1;
        for (int at = 0; at <= bytes.Length; at += SnapshotRegion.PageSize)
        {
            bool content = at < bytes.Length && bytes.Slice(at, SnapshotRegion.PageSize).ContainsAnyExcept((byte)0);
            if (content && start < 0)
            {
                start = at;
            }
            else if (!content && start >= 0)
            {
                Record(offset + start, bytes[start..at]);
                start = -1;
            }
        }
    }

    private unsafe void Record(long offset, ReadOnlySpan<byte> bytes)
    {
        if (_used + sizeof(CheckpointFormat.RecordHeader) + bytes.Length > _buffer.Length)
            Flush();
        // Copied first: what is summed up is what is written, whatever happens to the memory.
        Span<byte> copy = _buffer.AsSpan(_used + sizeof(CheckpointFormat.RecordHeader), bytes.Length);
        bytes.CopyTo(copy);
        var header = new CheckpointFormat.RecordHeader
        {
            Offset = offset,
            Length = bytes.Length,
            DataChecksum = offset == CheckpointFormat.EndOffset ? _checksum : Crc32C.Compute(copy),
            Index = _records++,
        };
        header.Checksum = CheckpointFormat.Checksum(header);
        _checksum = BitOperations.Crc32C(_checksum, header.DataChecksum);
        MemoryMarshal.Write(_buffer.AsSpan(_used), in header);
        _used += sizeof(CheckpointFormat.RecordHeader) + bytes.Length;
        Pages += bytes.Length / SnapshotRegion.PageSize;
    }

    private void Append(ReadOnlySpan<byte> bytes)
    {
        bytes.CopyTo(_buffer.AsSpan(_used));
        _used += bytes.Length;
    }

    private void Flush()
    {
        RandomAccess.Write(_file, _buffer.AsSpan(0, _used), Bytes);
        Bytes += _used;
        _used = 0;
    }
}
