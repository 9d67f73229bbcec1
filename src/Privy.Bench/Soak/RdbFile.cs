using System.Buffers.Binary;
using System.Globalization;
using System.Text;

namespace Privy.Bench.Soak;

/// <summary>Reads an RDB file of strings, without expiry and compression, and checks its form and its checksum.</summary>
public static class RdbFile
{
    /// <summary>Is told of one key.</summary>
    public delegate void KeyReader(ReadOnlySpan<byte> key, ReadOnlySpan<byte> value);

    private const byte TypeString = 0, Auxiliary = 0xFA, ResizeDatabase = 0xFB, SelectDatabase = 0xFE, End = 0xFF;
    private const int HeadLength = 9, ChecksumLength = 8;

    /// <summary>Reads a file and returns how many keys it has.</summary>
    /// <exception cref="InvalidDataException">The file is not whole, or not of this form.</exception>
    public static long Read(ReadOnlySpan<byte> file, KeyReader reader)
    {
        ArgumentNullException.ThrowIfNull(reader);
        if (file.Length < HeadLength + 1 + ChecksumLength || !file.StartsWith("REDIS"u8)) throw new InvalidDataException($"{file.Length} bytes are not an RDB file");
        var checksum = BinaryPrimitives.ReadUInt64LittleEndian(file[^ChecksumLength..]);
        var computed = Crc64.Append(0, file[..^ChecksumLength]);
        if (checksum != computed) throw new InvalidDataException($"the checksum is {checksum:x16}, the bytes give {computed:x16}");
        var at = HeadLength;
        var body = file[..^ChecksumLength];
        long keys = 0;
        Span<byte> number = stackalloc byte[20], other = stackalloc byte[20];
        while (true)
        {
            var operation = Byte(body, ref at);
            switch (operation)
            {
                case End:
                    if (at != body.Length) throw new InvalidDataException($"{body.Length - at} bytes follow the end");
                    return keys;
                case Auxiliary:
                    _ = Text(body, ref at, number);
                    _ = Text(body, ref at, number);
                    break;
                case ResizeDatabase:
                    _ = Length(body, ref at, out _);
                    _ = Length(body, ref at, out _);
                    break;
                case SelectDatabase:
                    _ = Length(body, ref at, out _);
                    break;
                case TypeString:
                    reader(Text(body, ref at, number), Text(body, ref at, other));
                    keys++;
                    break;
                default:
                    throw new InvalidDataException($"unknown operation 0x{operation:x2} at byte {at - 1}");
            }
        }
    }

    private static byte Byte(ReadOnlySpan<byte> file, ref int at) =>
        at < file.Length ? file[at++] : throw new InvalidDataException("the file ends too early");

    private static ReadOnlySpan<byte> Bytes(ReadOnlySpan<byte> file, ref int at, long count)
    {
        if (count < 0 || count > file.Length - at) throw new InvalidDataException($"{count} bytes at byte {at} run past the end");
        at += (int)count;
        return file.Slice(at - (int)count, (int)count);
    }

    private static long Length(ReadOnlySpan<byte> file, ref int at, out bool encoded)
    {
        var first = Byte(file, ref at);
        encoded = first >> 6 == 3;
        return (first >> 6) switch
        {
            0 => first & 0x3F,
            1 => (first & 0x3F) << 8 | Byte(file, ref at),
            2 when first == 0x80 => BinaryPrimitives.ReadUInt32BigEndian(Bytes(file, ref at, 4)),
            2 when first == 0x81 => (long)BinaryPrimitives.ReadUInt64BigEndian(Bytes(file, ref at, 8)),
            3 => first & 0x3F,
            _ => throw new InvalidDataException($"unknown length 0x{first:x2} at byte {at - 1}"),
        };
    }

    private static ReadOnlySpan<byte> Text(ReadOnlySpan<byte> file, ref int at, Span<byte> number)
    {
        var length = Length(file, ref at, out var encoded);
        if (!encoded) return Bytes(file, ref at, length);
        long value = length switch
        {
            0 => (sbyte)Byte(file, ref at),
            1 => BinaryPrimitives.ReadInt16LittleEndian(Bytes(file, ref at, 2)),
            2 => BinaryPrimitives.ReadInt32LittleEndian(Bytes(file, ref at, 4)),
            _ => throw new InvalidDataException($"unknown encoding {length} at byte {at}"),
        };
        return number[..Encoding.ASCII.GetBytes(value.ToString(CultureInfo.InvariantCulture), number)];
    }
}
