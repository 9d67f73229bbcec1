using System.Globalization;

namespace Privy.Hypervisor.Boot;

/// <summary>The host's vDSO and its data pages, found in /proc/self/maps.</summary>
/// <param name="Start">First byte of the lowest data page.</param>
/// <param name="End">One past the last byte of the code.</param>
/// <param name="ImageBase">The vDSO's ELF header, for AT_SYSINFO_EHDR.</param>
internal sealed record Vdso(ulong Start, ulong End, ulong ImageBase)
{
    /// <summary>Finds the pages; null when the host kernel has no vDSO or its parts do not lie together.</summary>
    internal static Vdso? Find()
    {
        ulong start = 0, end = 0, image = 0;
        foreach (var line in File.ReadLines("/proc/self/maps"))
        {
            var isCode = line.EndsWith("[vdso]", StringComparison.Ordinal);
            if (!isCode && !line.Contains("[vvar", StringComparison.Ordinal))
                continue;
            var dash = line.IndexOf('-', StringComparison.Ordinal);
            var from = ulong.Parse(line.AsSpan(0, dash), NumberStyles.HexNumber, CultureInfo.InvariantCulture);
            var to = ulong.Parse(line.AsSpan(dash + 1, line.IndexOf(' ', StringComparison.Ordinal) - dash - 1), NumberStyles.HexNumber, CultureInfo.InvariantCulture);
            if (start != 0 && from != end)
                return null;
            if (start == 0)
                start = from;
            end = to;
            if (isCode)
                image = from;
        }

        return image == 0 ? null : new Vdso(start, end, image);
    }
}
