namespace Privy.Bench.Soak;

/// <summary>The checksum at the end of an RDB file: CRC-64 with the polynomial of Jones, reflected, starting from 0.</summary>
public static class Crc64
{
    private const ulong Polynomial = 0x95AC9329AC4BC9B5; // 0xad93d23594c935a9 with its bits reversed

    // Slicing by eight: table n advances a byte by n bytes more.
    private static readonly ulong[][] Tables = MakeTables();

    /// <summary>Continues a checksum.</summary>
    public static ulong Append(ulong crc, ReadOnlySpan<byte> data)
    {
        var t = Tables;
        while (data.Length >= 8)
        {
            crc ^= BitConverter.ToUInt64(data);
            crc = t[7][crc & 255] ^ t[6][crc >> 8 & 255] ^ t[5][crc >> 16 & 255] ^ t[4][crc >> 24 & 255]
                ^ t[3][crc >> 32 & 255] ^ t[2][crc >> 40 & 255] ^ t[1][crc >> 48 & 255] ^ t[0][crc >> 56];
            data = data[8..];
        }

        foreach (var b in data) crc = t[0][(crc ^ b) & 255] ^ (crc >> 8);
        return crc;
    }

    private static ulong[][] MakeTables()
    {
        var tables = new ulong[8][];
        for (var n = 0; n < 8; n++)
        {
            tables[n] = new ulong[256];
            for (var i = 0; i < 256; i++)
            {
                var crc = n == 0 ? (ulong)i : tables[n - 1][i];
                if (n == 0)
                {
                    for (var bit = 0; bit < 8; bit++) crc = (crc & 1) != 0 ? (crc >> 1) ^ Polynomial : crc >> 1;
                }
                else
                {
                    crc = tables[0][crc & 255] ^ (crc >> 8);
                }

                tables[n][i] = crc;
            }
        }

        return tables;
    }
}
