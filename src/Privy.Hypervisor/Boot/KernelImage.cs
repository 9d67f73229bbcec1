using System.Buffers.Binary;
using System.Globalization;

namespace Privy.Hypervisor.Boot;

/// <summary>The guest kernel, linked for an address: the work of a linker on the one object file the build embeds.</summary>
public sealed class KernelImage
{
    private const string ResourceName = "privy-kernel.o";
    private const ulong PageSize = 4096;

    // Relocation types (System V ABI, AMD64 supplement, table 4.9).
    private const uint Absolute64 = 1;
    private const uint ProgramCounter32 = 2;
    private const uint ProcedureLinkage32 = 4;

    private readonly Dictionary<string, ulong> _symbols;

    private KernelImage(ulong address, byte[] bytes, int codeSize, Dictionary<string, ulong> symbols)
    {
        Address = address;
        Bytes = bytes;
        CodeSize = codeSize;
        _symbols = symbols;
    }

    /// <summary>The address it is linked for.</summary>
    public ulong Address { get; }

    /// <summary>Code and data, to be copied to <see cref="Address"/>. Nothing in it may be discarded; its data is writable.</summary>
#pragma warning disable CA1819 // handed over to be copied; a copy for safety would serve nobody
    public byte[] Bytes { get; }
#pragma warning restore CA1819

    /// <summary>Bytes at the start that are code, rounded up to pages; the rest is never executed.</summary>
    public int CodeSize { get; }

    /// <summary>Every defined function and the addresses they have.</summary>
    public IReadOnlyDictionary<string, ulong> Symbols => _symbols;

    /// <summary>Address of an exported function.</summary>
    /// <exception cref="InvalidDataException">The image has no such symbol.</exception>
    public ulong Symbol(string name) =>
        _symbols.TryGetValue(name, out ulong address)
            ? address
            : throw new InvalidDataException($"The kernel image has no symbol '{name}'.");

    /// <summary>Links the embedded kernel.</summary>
    /// <param name="address">Where it will lie; a multiple of the page size.</param>
    /// <param name="imports">Addresses of the assembly stubs it calls, within 2 GB of the image.</param>
    /// <exception cref="InvalidDataException">The object needs something that is not there.</exception>
    public static KernelImage Load(ulong address, IReadOnlyDictionary<string, ulong> imports)
    {
        using Stream resource = typeof(KernelImage).Assembly.GetManifestResourceStream(ResourceName)
            ?? throw new InvalidDataException($"The assembly does not carry the kernel ('{ResourceName}').");
        var file = new byte[resource.Length];
        resource.ReadExactly(file);
        return Link(file, address, imports);
    }

    internal static KernelImage Link(byte[] file, ulong address, IReadOnlyDictionary<string, ulong> imports)
    {
        if (address % PageSize != 0)
            throw new ArgumentException("The address of the kernel must be a multiple of the page size.", nameof(address));
        var elf = new ElfObject(file);

        // Unwind tables have a type of their own and stay out: the kernel throws nothing.
        ElfSection[] loaded =
        [
            .. elf.Sections
                .Where(s => (s.Flags & ElfObject.FlagAllocate) != 0 && s.Size != 0
                    && s.Type is ElfObject.SectionProgramBits or ElfObject.SectionNoBits)
                .OrderBy(s => (s.Flags & ElfObject.FlagExecute) == 0),
        ];
        var offsets = new Dictionary<int, ulong>();
        ulong size = 0;
        ulong codeSize = 0;
        foreach (ElfSection section in loaded)
        {
            bool code = (section.Flags & ElfObject.FlagExecute) != 0;
            if (!code && codeSize == 0)
                codeSize = size = AlignUp(size, PageSize);
            size = AlignUp(size, Math.Max(section.Alignment, 1));
            offsets[section.Index] = size;
            size += section.Size;
        }
        size = AlignUp(size, PageSize);
        if (codeSize == 0)
            codeSize = size;

        var bytes = new byte[size];
        foreach (ElfSection section in loaded)
            elf.Content(section).CopyTo(bytes.AsSpan((int)offsets[section.Index]));

        foreach (ElfSection table in elf.Sections)
        {
            if (!offsets.TryGetValue((int)table.Info, out ulong target))
                continue;
            if (table.Type == ElfObject.SectionRelocationsWithoutAddend)
                throw new InvalidDataException($"Section {table.Name}: relocations without addend are not supported.");
            if (table.Type != ElfObject.SectionRelocations)
                continue;
            foreach (ElfRelocation relocation in elf.Relocations(table))
            {
                ulong value = Resolve(elf, relocation.Symbol, address, offsets, imports) + (ulong)relocation.Addend;
                Apply(bytes, address, target + relocation.Offset, relocation.Type, value, table.Name);
            }
        }

        var symbols = new Dictionary<string, ulong>();
        foreach (ElfSymbol symbol in elf.Symbols)
        {
            if (symbol.Type == ElfObject.SymbolFunction && offsets.TryGetValue(symbol.Section, out ulong offset))
                symbols[symbol.Name] = address + offset + symbol.Value;
        }
        return new KernelImage(address, bytes, (int)codeSize, symbols);
    }

    private static ulong Resolve(
        ElfObject elf, int index, ulong address, Dictionary<int, ulong> offsets, IReadOnlyDictionary<string, ulong> imports)
    {
        ElfSymbol symbol = elf.Symbols[index];
        if (symbol.Section == 0)
        {
            return imports.TryGetValue(symbol.Name, out ulong import)
                ? import
                : throw new InvalidDataException($"The kernel image needs '{symbol.Name}', which was not given.");
        }
        if (offsets.TryGetValue(symbol.Section, out ulong offset))
            return address + offset + symbol.Value;
        throw new InvalidDataException($"The kernel image refers to '{symbol.Name}' in a section that is not loaded.");
    }

    private static void Apply(byte[] bytes, ulong address, ulong offset, uint type, ulong value, string table)
    {
        Span<byte> place = bytes.AsSpan((int)offset);
        switch (type)
        {
            case Absolute64:
                BinaryPrimitives.WriteUInt64LittleEndian(place, value);
                break;
            // There is no procedure linkage table: calls go straight to the target.
            case ProgramCounter32:
            case ProcedureLinkage32:
                long distance = (long)(value - (address + offset));
                if (distance != (int)distance)
                {
                    throw new InvalidDataException(string.Create(
                        CultureInfo.InvariantCulture, $"{table}: target 0x{value:x} is too far from 0x{address + offset:x}."));
                }
                BinaryPrimitives.WriteInt32LittleEndian(place, (int)distance);
                break;
            default:
                throw new InvalidDataException(string.Create(
                    CultureInfo.InvariantCulture, $"{table}: relocation type {type} is not supported."));
        }
    }

    private static ulong AlignUp(ulong value, ulong alignment) => (value + alignment - 1) / alignment * alignment;
}
