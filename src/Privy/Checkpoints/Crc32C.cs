using System.Numerics;
using System.Runtime.InteropServices;

namespace Privy.Checkpoints;

/// <summary>CRC-32C (Castagnoli), the checksum that processors have an instruction for.</summary>
internal static class Crc32C
{
    /// <summary>The checksum of <paramref name="bytes"/>, or of what <paramref name="previous"/> is the checksum of followed by them.</summary>
    internal static uint Compute(ReadOnlySpan<byte> bytes, uint previous = 0)
    {
        uint crc = ~previous;
        ReadOnlySpan<ulong> words = MemoryMarshal.Cast<byte, ulong>(bytes);
        foreach (ulong word in words)
            crc = BitOperations.Crc32C(crc, word);
        foreach (byte b in bytes[(words.Length * sizeof(ulong))..])
            crc = BitOperations.Crc32C(crc, b);
        return ~crc;
    }
}
