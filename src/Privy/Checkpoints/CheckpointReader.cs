using System.Numerics;
using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace Privy.Checkpoints;

/// <summary>Reads one checkpoint file, and believes nothing of it.</summary>
internal static unsafe class CheckpointReader
{
    /// <summary>Reads the header.</summary>
    /// <param name="path">The file.</param>
    /// <param name="problem">What is wrong with it, or null.</param>
    internal static CheckpointFormat.FileHeader ReadHeader(string path, out string? problem)
    {
        CheckpointFormat.FileHeader header = default;
        problem = null;
        try
        {
            using SafeFileHandle file = File.OpenHandle(path);
            if (!ReadAll(file, MemoryMarshal.AsBytes(new Span<CheckpointFormat.FileHeader>(ref header)), 0))
                problem = "it is too short for a header";
            else if (header.Magic != CheckpointFormat.Magic)
                problem = "it is no checkpoint, or of another version";
            else if (header.Checksum != CheckpointFormat.Checksum(header))
                problem = "the checksum of its header is wrong";
            else if (Path.GetFileName(path) != CheckpointFormat.FileName(header.Number))
                problem = $"it says that it is checkpoint {header.Number}";
            else if (header.PageSize != SnapshotRegion.PageSize || header.RegionLength <= 0 || header.PreviousNumber < 0 || header.PreviousNumber >= header.Number)
                problem = "its header makes no sense";
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            problem = $"it cannot be read: {e.Message}";
        }
        return header;
    }

    /// <summary>Reads the records, checks everything, and hands each that is right to <paramref name="region"/>, unless that is null.</summary>
    /// <returns>What is wrong, or null.</returns>
    internal static string? ReadRecords(string path, CheckpointFormat.FileHeader header, SnapshotRegion? region)
    {
        try
        {
            using SafeFileHandle file = File.OpenHandle(path, options: FileOptions.SequentialScan);
            using var stream = new FileStream(file, FileAccess.Read, 1 << 20);
            stream.Position = sizeof(CheckpointFormat.FileHeader);
            byte[] buffer = GC.AllocateUninitializedArray<byte>(CheckpointFormat.MaxRecordBytes);
            uint checksum = 0;
            for (uint index = 0; ; index++)
            {
                CheckpointFormat.RecordHeader record = default;
                Span<byte> bytes = MemoryMarshal.AsBytes(new Span<CheckpointFormat.RecordHeader>(ref record));
                if (stream.ReadAtLeast(bytes, bytes.Length, throwOnEndOfStream: false) < bytes.Length)
                    return $"it ends before record {index}";
                if (record.Checksum != CheckpointFormat.Checksum(record) || record.Index != index)
                    return $"the header of record {index} is wrong";
                if (record.Offset == CheckpointFormat.EndOffset)
                {
                    if (record.DataChecksum != checksum)
                        return "its last checksum is wrong";
                    return stream.ReadByte() < 0 ? null : "it goes on after its end";
                }
                if (record.Length <= 0 || record.Length > buffer.Length || record.Length % SnapshotRegion.PageSize != 0
                    || record.Offset < 0 || record.Offset % SnapshotRegion.PageSize != 0 || record.Offset > header.RegionLength - record.Length)
                {
                    return $"record {index} makes no sense";
                }
                Span<byte> data = buffer.AsSpan(0, record.Length);
                if (stream.ReadAtLeast(data, data.Length, throwOnEndOfStream: false) < data.Length)
                    return $"it ends within record {index}";
                if (Crc32C.Compute(data) != record.DataChecksum)
                    return $"the checksum of record {index} is wrong";
                checksum = BitOperations.Crc32C(checksum, record.DataChecksum);
                if (region is not null)
                    data.CopyTo(region.AsSpan<byte>(record.Offset, record.Length));
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return $"it cannot be read: {e.Message}";
        }
    }

    private static bool ReadAll(SafeFileHandle file, Span<byte> bytes, long offset)
    {
        while (bytes.Length > 0)
        {
            int read = RandomAccess.Read(file, bytes, offset);
            if (read == 0)
                return false;
            bytes = bytes[read..];
            offset += read;
        }
        return true;
    }
}
