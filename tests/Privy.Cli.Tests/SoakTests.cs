using System.Buffers.Binary;
using System.Text;
using Privy.Bench.Soak;

namespace Privy.Cli.Tests;

public class SoakTests
{
    /// <summary>The check value that Redis' own crc64.c names for this CRC.</summary>
    [Fact]
    public void Checksum_is_that_of_Redis() => Assert.Equal(0xe9c6d914c4b8d9caUL, Crc64.Append(0, "123456789"u8));

    [Fact]
    public void Checksum_does_not_depend_on_the_pieces()
    {
        var bytes = new byte[1000];
        new Random(4).NextBytes(bytes);
        var whole = Crc64.Append(0, bytes);
        for (var cut = 0; cut < 40; cut++) Assert.Equal(whole, Crc64.Append(Crc64.Append(0, bytes.AsSpan(0, cut)), bytes.AsSpan(cut)));
    }

    [Fact]
    public void Keys_of_all_encodings_are_read()
    {
        var read = new Dictionary<string, string>();
        Assert.Equal(5, RdbFile.Read(File(), (key, value) => read.Add(Encoding.ASCII.GetString(key), Encoding.ASCII.GetString(value))));
        Assert.Equal(new Dictionary<string, string> { ["a"] = "7", ["b"] = "-2", ["c"] = "1000", ["d"] = "-70000", ["long"] = new string('v', 300) }, read);
    }

    [Fact]
    public void Every_flipped_bit_and_every_cut_is_found()
    {
        var file = File();
        for (var i = 0; i < file.Length; i++)
        {
            Assert.Throws<InvalidDataException>(() => RdbFile.Read(file.AsSpan(0, i), (_, _) => { }));
            for (var bit = 0; bit < 8; bit++)
            {
                file[i] ^= (byte)(1 << bit);
                Assert.Throws<InvalidDataException>(() => RdbFile.Read(file, (_, _) => { }));
                file[i] ^= (byte)(1 << bit);
            }
        }
    }

    [Fact]
    public void Growth_is_told_from_a_bad_minute()
    {
        Assert.Null(Growth.Find("it", [900, 100, 101, 99, 5000, 100, 102, 100, 101, 100], 1.05, 0, v => $"{v}"));
        Assert.Equal("it grew: 110 in the first third, 170 in the last", Growth.Find("it", [100, 100, 110, 120, 130, 140, 150, 160, 170, 180], 1.05, 0, v => $"{v}"));
        Assert.Null(Growth.Find("it", [1, 2, 3], 1, 0, v => $"{v}"));
    }

    private static byte[] File()
    {
        List<byte> file = [.. "REDIS0010"u8, 0xFA, 9, .. "redis-ver"u8, 6, .. "7.0.15"u8, 0xFA, 5, .. "ctime"u8, 0xC2, 1, 2, 3, 4, 0xFE, 0, 0xFB, 5, 0];
        file.AddRange([0, 1, (byte)'a', 1, (byte)'7', 0, 1, (byte)'b', 0xC0, 0xFE, 0, 1, (byte)'c', 0xC1, 0xE8, 3]);
        file.AddRange([0, 1, (byte)'d', 0xC2, .. BitConverter.GetBytes(-70000)]);
        file.AddRange([0, 4, .. "long"u8, 0x40 | 300 >> 8, 300 & 255, .. Enumerable.Repeat((byte)'v', 300), 0xFF]);
        var checksum = new byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(checksum, Crc64.Append(0, file.ToArray()));
        return [.. file, .. checksum];
    }
}
