using System.Buffers.Binary;

namespace Privy.Hypervisor.Sites;

/// <summary>Reads the program's memory. False: not all of it is there.</summary>
internal delegate bool CodeReader(ulong address, Span<byte> destination);

/// <summary>Writes to the program's memory. False: not all of it is there.</summary>
internal delegate bool CodeWriter(ulong address, ReadOnlySpan<byte> source);

/// <summary>A function of the program.</summary>
/// <param name="Start">Its first byte.</param>
/// <param name="End">One past its last.</param>
/// <param name="Next">Where the next one begins that the table has.</param>
internal readonly record struct CodeRange(ulong Start, ulong End, ulong Next);

/// <summary>
/// The functions of a mapped ELF image by the table that its unwinder searches (LSB Core, Exception Frames: .eh_frame_hdr). Only the encodings that linkers
/// write for x86-64 are read.
/// </summary>
internal static class UnwindTable
{
    private const int HeaderBytes = 64, ProgramHeaderBytes = 56, MostHeaders = 64;
    private const uint LoadType = 1, TableType = 0x6474_E550; // PT_LOAD, PT_GNU_EH_FRAME
    private const uint Executable = 1;
    private const byte Relative4 = 0x1B, Unsigned4 = 0x03, TableRelative4 = 0x3B; // DW_EH_PE_*
    private const int EntryBytes = 8;

    /// <summary>Finds the function that holds an address.</summary>
    /// <param name="read">Reads the program's memory.</param>
    /// <param name="image">Where the file's first byte is mapped.</param>
    /// <param name="address">The address.</param>
    /// <param name="function">The function.</param>
    internal static bool TryFindFunction(CodeReader read, ulong image, ulong address, out CodeRange function)
    {
        function = default;
        if (!TryFindTable(read, image, address, out var table))
            return false;
        Span<byte> header = stackalloc byte[12];
        if (!read(table, header) || header[0] != 1 || header[1] != Relative4 || header[2] != Unsigned4 || header[3] != TableRelative4)
            return false;
        var entries = table + 12;
        uint low = 0, high = BinaryPrimitives.ReadUInt32LittleEndian(header[8..]);
        var next = ulong.MaxValue;
        ulong start = 0, description = 0;
        Span<byte> entry = stackalloc byte[EntryBytes];
        while (low < high)
        {
            var middle = low + ((high - low) / 2);
            if (!read(entries + (middle * (ulong)EntryBytes), entry))
                return false;
            var begin = Plus(table, entry);
            if (begin > address)
                (high, next) = (middle, begin);
            else
                (low, start, description) = (middle + 1, begin, Plus(table, entry[4..]));
        }

        if (start == 0 || !TryReadLength(read, description, start, out var length) || address >= start + length)
            return false;
        function = new CodeRange(start, start + length, next);
        return true;
    }

    private static bool TryFindTable(CodeReader read, ulong image, ulong address, out ulong table)
    {
        table = 0;
        Span<byte> header = stackalloc byte[HeaderBytes];
        if (!read(image, header) || !header[..4].SequenceEqual("\u007fELF"u8) || BinaryPrimitives.ReadUInt16LittleEndian(header[54..]) != ProgramHeaderBytes)
            return false;
        var count = BinaryPrimitives.ReadUInt16LittleEndian(header[56..]);
        var headers = new byte[count * ProgramHeaderBytes];
        if (count is 0 or > MostHeaders || !read(image + BinaryPrimitives.ReadUInt64LittleEndian(header[32..]), headers))
            return false;
        // The segment that begins with the file's first byte tells how far the image was moved.
        ulong? bias = null;
        for (var i = 0; i < count && bias is null; i++)
        {
            if (TypeOf(i) == LoadType && Word(i, 8) == 0)
                bias = image - Word(i, 16);
        }

        if (bias is not { } moved)
            return false;
        var holds = false;
        for (var i = 0; i < count; i++)
        {
            if (TypeOf(i) == TableType)
                table = Word(i, 16) + moved;
            else if (TypeOf(i) == LoadType && (BinaryPrimitives.ReadUInt32LittleEndian(headers.AsSpan((i * ProgramHeaderBytes) + 4)) & Executable) != 0)
                holds |= address - moved - Word(i, 16) < Word(i, 32);
        }

        return holds && table != 0;

        uint TypeOf(int index) => BinaryPrimitives.ReadUInt32LittleEndian(headers.AsSpan(index * ProgramHeaderBytes));
        ulong Word(int index, int offset) => BinaryPrimitives.ReadUInt64LittleEndian(headers.AsSpan((index * ProgramHeaderBytes) + offset));
    }

    /// <summary>The table has no lengths; the description of the frame (FDE) has.</summary>
    private static bool TryReadLength(CodeReader read, ulong description, ulong start, out uint length)
    {
        length = 0;
        Span<byte> bytes = stackalloc byte[16];
        if (!read(description, bytes))
            return false;
        var common = BinaryPrimitives.ReadUInt32LittleEndian(bytes[4..]);
        if (BinaryPrimitives.ReadUInt32LittleEndian(bytes) is 0 or uint.MaxValue || common == 0 || !HasRelativeAddresses(read, description + 4 - common))
            return false;
        length = BinaryPrimitives.ReadUInt32LittleEndian(bytes[12..]);
        return Plus(description + 8, bytes[8..]) == start;
    }

    /// <summary>Whether the frames of a common part (CIE) have their addresses as 4 bytes relative to themselves.</summary>
    private static bool HasRelativeAddresses(CodeReader read, ulong common)
    {
        Span<byte> bytes = stackalloc byte[48];
        if (!read(common, bytes) || BinaryPrimitives.ReadUInt32LittleEndian(bytes[4..]) != 0 || bytes[8] != 1)
            return false;
        var letters = bytes[9..];
        var end = letters.IndexOf((byte)0);
        if (end is < 1 or > 8 || letters[0] != 'z')
            return false;
        var data = letters[(end + 1)..];
        letters = letters[1..end];
        SkipNumber(ref data); // alignment of code
        SkipNumber(ref data); // alignment of data
        data = data[1..]; // column of the return address
        SkipNumber(ref data); // length of what follows
        foreach (var letter in letters)
        {
            switch (letter)
            {
                case (byte)'R':
                    return data[0] == Relative4;
                case (byte)'P':
                    // The personality's address, 4 bytes in most encodings.
                    data = data[((data[0] & 0x0F) is 0x0B or 0x03 ? 5 : 9)..];
                    break;
                case (byte)'L':
                    data = data[1..];
                    break;
                case (byte)'S' or (byte)'B':
                    break;
                default:
                    return false;
            }
        }

        return false;
    }

    private static void SkipNumber(ref Span<byte> data)
    {
        var at = 0;
        while (at < 9 && (data[at] & 0x80) != 0)
            at++;
        data = data[(at + 1)..];
    }

    private static ulong Plus(ulong origin, ReadOnlySpan<byte> distance) => origin + (ulong)BinaryPrimitives.ReadInt32LittleEndian(distance);
}
