using System.Buffers.Binary;
using System.Runtime.InteropServices;

namespace Privy.Hypervisor.Boot;

/// <summary>One program header (elf.h, Elf64_Phdr).</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct ProgramHeader
{
    internal const int Bytes = 56;

    internal uint Type;
    internal uint Flags;
    internal ulong Offset;
    internal ulong Address;
    internal ulong PhysicalAddress;
    internal ulong FileSize;
    internal ulong MemorySize;
    internal ulong Alignment;
}

/// <summary>A program that cannot be started; the message says why, the status is the shell's for the case (126 or 127).</summary>
public sealed class ProgramException(string message, int exitStatus) : Exception(message)
{
    /// <summary>Not found.</summary>
    public const int NotFound = 127;

    /// <summary>Found, but not executable.</summary>
    public const int NotExecutable = 126;

    /// <summary>The status with which <c>privy run</c> ends.</summary>
    public int ExitStatus { get; } = exitStatus;
}

/// <summary>The headers of a 64-bit x86 ELF program or shared object.</summary>
internal sealed class ElfImage
{
    private const int HeaderBytes = 64;
    private const uint LoadType = 1;
    private const uint InterpreterType = 3;

    private ElfImage(string path, ulong entry, bool relocatable, ulong headersOffset, ProgramHeader[] headers)
    {
        Path = path;
        Entry = entry;
        Relocatable = relocatable;
        HeadersOffset = headersOffset;
        Headers = headers;
    }

    internal string Path { get; }

    /// <summary>Entry point, before relocation.</summary>
    internal ulong Entry { get; }

    /// <summary>ET_DYN: may be loaded anywhere.</summary>
    internal bool Relocatable { get; }

    /// <summary>File offset of the program headers.</summary>
    internal ulong HeadersOffset { get; }

    internal ProgramHeader[] Headers { get; }

    internal IEnumerable<ProgramHeader> Segments => Headers.Where(h => h.Type == LoadType);

    /// <summary>Lowest address of the image, rounded down to a page.</summary>
    internal ulong Low => Segments.Min(s => s.Address) & ~4095UL;

    /// <summary>One past the highest address of the image, rounded up to a page.</summary>
    internal ulong High => (Segments.Max(s => s.Address + s.MemorySize) + 4095) & ~4095UL;

    /// <summary>Path of the program interpreter; null for a static program.</summary>
    internal string? Interpreter { get; private init; }

    /// <summary>Address at which the program headers are mapped, before relocation; 0 when no segment holds them.</summary>
    internal ulong HeadersAddress
    {
        get
        {
            foreach (var segment in Segments)
            {
                if (HeadersOffset >= segment.Offset && HeadersOffset < segment.Offset + segment.FileSize)
                    return HeadersOffset - segment.Offset + segment.Address;
            }

            return 0;
        }
    }

    /// <summary>The name that uname -m gives on such a machine (elf.h, EM_*).</summary>
    private static string Architecture(int machine) => machine switch
    {
        2 or 43 => "sparc",
        3 => "i386",
        8 => "mips",
        20 => "ppc",
        21 => "ppc64",
        22 => "s390x",
        40 => "arm",
        183 => "aarch64",
        243 => "riscv64",
        258 => "loongarch64",
        _ => $"ELF machine {machine}",
    };

    /// <summary>Reads and checks the headers.</summary>
    /// <exception cref="ProgramException">It is no 64-bit x86 program, or a broken one.</exception>
    internal static ElfImage Read(string path, Stream file)
    {
        Span<byte> header = stackalloc byte[HeaderBytes];
        if (file.ReadAtLeast(header, HeaderBytes, throwOnEndOfStream: false) < HeaderBytes || !header[..4].SequenceEqual("\u007fELF"u8))
            throw Refuse(path, "is not an ELF program; give a program, or a script that begins with #!");
        if (header[4] != 2)
            throw Refuse(path, "is a 32-bit program; Privy runs 64-bit x86 programs");
        var machine = BinaryPrimitives.ReadUInt16LittleEndian(header[18..]);
        if (header[5] != 1 || machine != 62)
            throw Refuse(path, $"is for another processor ({Architecture(machine)}); Privy runs 64-bit x86 programs");
        var type = BinaryPrimitives.ReadUInt16LittleEndian(header[16..]);
        if (type is not 2 and not 3)
            throw Refuse(path, $"is not a program (ELF type {type})");
        var entry = BinaryPrimitives.ReadUInt64LittleEndian(header[24..]);
        var offset = BinaryPrimitives.ReadUInt64LittleEndian(header[32..]);
        var size = BinaryPrimitives.ReadUInt16LittleEndian(header[54..]);
        var count = BinaryPrimitives.ReadUInt16LittleEndian(header[56..]);
        if (size != ProgramHeader.Bytes || count == 0 || offset > (ulong)file.Length || offset + ((ulong)count * size) > (ulong)file.Length)
            throw Refuse(path, "is damaged: its program headers lie outside the file");

        var bytes = new byte[count * size];
        file.Position = (long)offset;
        file.ReadExactly(bytes);
        var headers = MemoryMarshal.Cast<byte, ProgramHeader>(bytes).ToArray();
        string? interpreter = null;
        var loads = 0;
        ulong previousEnd = 0;
        foreach (var h in headers)
        {
            if (h.Type == LoadType)
            {
                const ulong addressLimit = 1UL << 46;
                if (h.FileSize > h.MemorySize || h.Offset > (ulong)file.Length || h.FileSize > (ulong)file.Length - h.Offset
                    || h.Address > addressLimit || h.MemorySize > addressLimit || (h.Address & 4095) != (h.Offset & 4095) || h.Address < previousEnd)
                    throw Refuse(path, "is damaged: a segment does not fit the file");
                previousEnd = h.Address + h.MemorySize;
                loads++;
            }
            else if (h.Type == InterpreterType)
            {
                if (h.FileSize is 0 or > 4096 || h.Offset > (ulong)file.Length || h.FileSize > (ulong)file.Length - h.Offset)
                    throw Refuse(path, "is damaged: the name of its interpreter lies outside the file");
                var name = new byte[h.FileSize];
                file.Position = (long)h.Offset;
                file.ReadExactly(name);
                if (name[^1] != 0)
                    throw Refuse(path, "is damaged: the name of its interpreter has no end");
                interpreter = System.Text.Encoding.UTF8.GetString(name, 0, Array.IndexOf(name, (byte)0));
                if (interpreter.Any(char.IsControl))
                    throw Refuse(path, "is damaged: the name of its interpreter is none");
            }
        }

        if (loads == 0)
            throw Refuse(path, "is damaged: it has nothing to load");
        // Started elsewhere it would natively die at once; here there is the guest's kernel.
        if (!headers.Any(h => h.Type == LoadType && entry >= h.Address && entry < h.Address + h.MemorySize))
            throw Refuse(path, "is damaged: its entry point lies outside of it");
        return new ElfImage(path, entry, type == 3, offset, headers) { Interpreter = interpreter };
    }

    private static ProgramException Refuse(string path, string why) => new($"{path} {why}", ProgramException.NotExecutable);
}
