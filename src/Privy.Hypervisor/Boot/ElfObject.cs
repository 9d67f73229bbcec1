using System.Buffers.Binary;
using System.Text;

namespace Privy.Hypervisor.Boot;

/// <summary>A section of a relocatable object.</summary>
internal sealed record ElfSection(int Index, string Name, uint Type, ulong Flags, ulong Offset, ulong Size, uint Link, uint Info, ulong Alignment);

/// <summary>A symbol; <see cref="Section"/> is 0 when it is undefined.</summary>
internal sealed record ElfSymbol(string Name, int Section, ulong Value, ulong Size, int Type);

/// <summary>A relocation with an addend.</summary>
internal readonly record struct ElfRelocation(ulong Offset, uint Type, int Symbol, long Addend);

/// <summary>Reads an ELF64 relocatable object for x86-64 (System V ABI, AMD64 supplement).</summary>
internal sealed class ElfObject
{
    internal const uint SectionProgramBits = 1;
    internal const uint SectionSymbols = 2;
    internal const uint SectionRelocations = 4;
    internal const uint SectionNoBits = 8;
    internal const uint SectionRelocationsWithoutAddend = 9;
    internal const ulong FlagAllocate = 2;
    internal const ulong FlagExecute = 4;
    internal const int SymbolFunction = 2;
    internal const int SymbolSection = 3;

    private const int SectionHeaderSize = 64;
    private const int SymbolSize = 24;
    private const int RelocationSize = 24;

    private readonly byte[] _file;

    internal ElfObject(byte[] file)
    {
        _file = file;
        if (file.Length < 64 || !file.AsSpan(0, 4).SequenceEqual("\u007fELF"u8) || file[4] != 2 || file[5] != 1)
            throw new InvalidDataException("Not a little-endian ELF64 file.");
        if (U16(16) != 1 || U16(18) != 62)
            throw new InvalidDataException("Not a relocatable object for x86-64.");

        ulong headers = U64(40);
        // Above 0xff00 sections the real counts are in the first header.
        ulong count = U16(60) != 0 ? U16(60) : U64(headers + 32);
        uint names = U16(62) != 0xffff ? U16(62) : U32(headers + 40);
        ulong nameTable = U64(headers + names * SectionHeaderSize + 24);
        var sections = new ElfSection[count];
        for (int i = 0; i < sections.Length; i++)
        {
            ulong at = headers + (ulong)i * SectionHeaderSize;
            sections[i] = new ElfSection(
                i, Text(nameTable + U32(at)), U32(at + 4), U64(at + 8), U64(at + 24), U64(at + 32), U32(at + 40), U32(at + 44), U64(at + 48));
        }
        Sections = sections;
        Symbols = ReadSymbols();
    }

    internal IReadOnlyList<ElfSection> Sections { get; }

    internal IReadOnlyList<ElfSymbol> Symbols { get; }

    internal ReadOnlySpan<byte> Content(ElfSection section) =>
        section.Type == SectionNoBits ? [] : _file.AsSpan(checked((int)section.Offset), checked((int)section.Size));

    internal IEnumerable<ElfRelocation> Relocations(ElfSection section)
    {
        for (ulong at = section.Offset; at < section.Offset + section.Size; at += RelocationSize)
        {
            ulong info = U64(at + 8);
            yield return new ElfRelocation(U64(at), (uint)info, (int)(info >> 32), (long)U64(at + 16));
        }
    }

    private ElfSymbol[] ReadSymbols()
    {
        ElfSection? table = Sections.FirstOrDefault(s => s.Type == SectionSymbols);
        if (table is null)
            return [];
        ulong names = Sections[(int)table.Link].Offset;
        var symbols = new ElfSymbol[table.Size / SymbolSize];
        for (int i = 0; i < symbols.Length; i++)
        {
            ulong at = table.Offset + (ulong)i * SymbolSize;
            symbols[i] = new ElfSymbol(Text(names + U32(at)), U16(at + 6), U64(at + 8), U64(at + 16), _file[at + 4] & 15);
        }
        return symbols;
    }

    private ushort U16(ulong at) => BinaryPrimitives.ReadUInt16LittleEndian(_file.AsSpan(checked((int)at)));

    private uint U32(ulong at) => BinaryPrimitives.ReadUInt32LittleEndian(_file.AsSpan(checked((int)at)));

    private ulong U64(ulong at) => BinaryPrimitives.ReadUInt64LittleEndian(_file.AsSpan(checked((int)at)));

    private string Text(ulong at)
    {
        ReadOnlySpan<byte> rest = _file.AsSpan(checked((int)at));
        return Encoding.UTF8.GetString(rest[..rest.IndexOf((byte)0)]);
    }
}
