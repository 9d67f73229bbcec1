using System.Globalization;

namespace Privy.Hypervisor.Tests.Sites;

/// <summary>A shared object as it is mapped in the process that runs the tests.</summary>
internal sealed unsafe class MappedImage
{
    private readonly List<(ulong Start, ulong End)> _parts = [];

    private MappedImage()
    {
    }

    /// <summary>The C library.</summary>
    internal static MappedImage Library { get; } = Find("libc.so.6");

    internal ulong Base => _parts[0].Start;

    /// <summary>The executable part.</summary>
    internal (ulong Start, ulong End) Code { get; private set; }

    internal bool Read(ulong address, Span<byte> destination)
    {
        var end = address + (ulong)destination.Length;
        if (!_parts.Exists(part => address >= part.Start && end <= part.End))
            return false;
        new ReadOnlySpan<byte>((void*)address, destination.Length).CopyTo(destination);
        return true;
    }

    /// <summary>Addresses of all SYSCALL instructions, or what looks like one.</summary>
    internal IEnumerable<ulong> Syscalls()
    {
        var bytes = new byte[Code.End - Code.Start];
        _ = Read(Code.Start, bytes);
        for (var i = 0; i + 1 < bytes.Length; i++)
        {
            if (bytes[i] == 0x0F && bytes[i + 1] == 0x05)
                yield return Code.Start + (ulong)i;
        }
    }

    private static MappedImage Find(string name)
    {
        var image = new MappedImage();
        foreach (var line in File.ReadLines("/proc/self/maps").Where(l => l.EndsWith(name, StringComparison.Ordinal)))
        {
            var words = line.Split(' ');
            var range = words[0].Split('-').Select(word => ulong.Parse(word, NumberStyles.HexNumber, CultureInfo.InvariantCulture)).ToArray();
            if (!words[1].StartsWith('r'))
                continue;
            image._parts.Add((range[0], range[1]));
            if (words[1].Contains('x', StringComparison.Ordinal))
                image.Code = (range[0], range[1]);
        }

        return image;
    }
}
