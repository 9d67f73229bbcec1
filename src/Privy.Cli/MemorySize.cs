using System.Globalization;

namespace Privy.Cli;

/// <summary>Sizes as users write them: 512M, 8G, 8GiB, 1073741824.</summary>
internal static class MemorySize
{
    public const long Gigabyte = 1L << 30;

    /// <summary>Reads a whole number with an optional unit (K, M, G or T, binary; a following B or iB is accepted). Without one it counts <paramref name="defaultUnit"/>.</summary>
    public static bool TryParse(ReadOnlySpan<char> text, out long bytes, long defaultUnit = 1)
    {
        bytes = 0;
        text = text.Trim();
        var digits = 0;
        while (digits < text.Length && char.IsAsciiDigit(text[digits])) digits++;
        if (digits == 0 || !long.TryParse(text[..digits], NumberStyles.None, CultureInfo.InvariantCulture, out var number) || number == 0)
            return false;

        var suffix = text[digits..];
        var unit = defaultUnit;
        if (suffix.Length > 0)
        {
            unit = char.ToUpperInvariant(suffix[0]) switch { 'B' => 1, 'K' => 1L << 10, 'M' => 1L << 20, 'G' => 1L << 30, 'T' => 1L << 40, _ => 0 };
            var rest = suffix[1..];
            var restIsValid = rest.IsEmpty || unit != 1 && (rest.Equals("B", StringComparison.OrdinalIgnoreCase) || rest.Equals("iB", StringComparison.OrdinalIgnoreCase));
            if (unit == 0 || !restIsValid) return false;
        }

        if (number > long.MaxValue / unit) return false;
        bytes = number * unit;
        return true;
    }

    /// <summary>A size in the largest unit that keeps it at or above one.</summary>
    public static string Format(long bytes) => bytes switch
    {
        >= 1L << 40 => Number(bytes / (double)(1L << 40), "TB"),
        >= 1L << 30 => Number(bytes / (double)(1L << 30), "GB"),
        >= 1L << 20 => Number(bytes / (double)(1L << 20), "MB"),
        >= 1L << 10 => Number(bytes / (double)(1L << 10), "KB"),
        _ => string.Create(CultureInfo.InvariantCulture, $"{bytes} B"),
    };

    private static string Number(double value, string unit) => value.ToString(value < 10 && value != Math.Floor(value) ? "0.0" : "0", CultureInfo.InvariantCulture) + " " + unit;
}
