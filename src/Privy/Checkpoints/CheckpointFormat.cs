using System.Globalization;
using System.Runtime.InteropServices;

namespace Privy.Checkpoints;

/// <summary>
/// A checkpoint file: a header, then records, the last of which is the end. Numbers are little-endian.
/// <para>A record is a header and the bytes of a run of pages. A full checkpoint leaves out pages of zeros; an incremental one has all pages that
/// changed since its predecessor, which it names by number and identity.</para>
/// </summary>
internal static class CheckpointFormat
{
    internal const ulong Magic = 0x31304b4356495250; // "PRIVCK01"
    internal const int MaxRecordBytes = 1 << 20;
    internal const string Extension = ".privy";
    internal const string TemporaryExtension = ".tmp";

    /// <summary>A record header with this offset is the end of the file.</summary>
    internal const long EndOffset = -1;

    private const string Prefix = "checkpoint-";

    internal static string FileName(long number) => string.Create(CultureInfo.InvariantCulture, $"{Prefix}{number:d10}{Extension}");

    internal static bool TryParseFileName(string name, out long number)
    {
        number = 0;
        return name.StartsWith(Prefix, StringComparison.Ordinal) && name.EndsWith(Extension, StringComparison.Ordinal)
            && long.TryParse(name.AsSpan(Prefix.Length, name.Length - Prefix.Length - Extension.Length), NumberStyles.None, CultureInfo.InvariantCulture, out number)
            && name == FileName(number);
    }

    /// <summary>The checksum of everything in a header but its checksum, which comes last.</summary>
    internal static uint Checksum<T>(in T header)
        where T : unmanaged =>
        Crc32C.Compute(MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in header))[..^sizeof(uint)]);

    [StructLayout(LayoutKind.Sequential, Pack = 1)]
    internal struct FileHeader
    {
        internal ulong Magic;
        internal long Number;
        /// <summary>Random: the same number can be written twice in the life of a folder.</summary>
        internal UInt128 Identity;
        /// <summary>0 in a full checkpoint.</summary>
        internal long PreviousNumber;
        internal UInt128 PreviousIdentity;
        internal long RegionLength;
        internal uint PageSize;
        internal uint Checksum;
    }

    [StructLayout(LayoutKind.Sequential, Pack = 1)]
    internal struct RecordHeader
    {
        /// <summary>Offset in the region, or <see cref="EndOffset"/>.</summary>
        internal long Offset;
        /// <summary>Bytes that follow; at the end 0.</summary>
        internal int Length;
        /// <summary>Of the bytes; at the end, of the checksums of all records before.</summary>
        internal uint DataChecksum;
        /// <summary>Counts from 0, so that no record can be missing.</summary>
        internal uint Index;
        internal uint Checksum;
    }
}
