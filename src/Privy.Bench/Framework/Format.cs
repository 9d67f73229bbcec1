using System.Globalization;

namespace Privy.Bench.Framework;

/// <summary>Numbers as the report writes them.</summary>
public static class Format
{
    /// <summary>Nanoseconds with three digits in a fitting unit: "431 ns", "12.3 µs", "1.50 s".</summary>
    public static string Time(double nanoseconds) => Math.Abs(nanoseconds) switch
    {
        >= 999.5e6 => Digits(nanoseconds / 1e9) + " s",
        >= 999.5e3 => Digits(nanoseconds / 1e6) + " ms",
        >= 999.5 => Digits(nanoseconds / 1e3) + " µs",
        _ => Digits(nanoseconds) + " ns",
    };

    /// <summary>Nanoseconds as the mark of an axis: "100 µs", "2.5 ms".</summary>
    public static string TimeMark(double nanoseconds) => Math.Abs(nanoseconds) switch
    {
        >= 1e9 => Mark(nanoseconds / 1e9) + " s",
        >= 1e6 => Mark(nanoseconds / 1e6) + " ms",
        >= 1e3 => Mark(nanoseconds / 1e3) + " µs",
        0 => "0",
        _ => Mark(nanoseconds) + " ns",
    };

    private static string Mark(double value) => value.ToString("#,0.###", CultureInfo.InvariantCulture);

    /// <summary>A number with a thousands separator and about three significant digits.</summary>
    public static string Digits(double value) => Math.Abs(value) switch
    {
        >= 99.95 => value.ToString("#,0", CultureInfo.InvariantCulture),
        >= 9.995 => value.ToString("0.0", CultureInfo.InvariantCulture),
        0 => "0",
        >= 0.0995 => value.ToString("0.00", CultureInfo.InvariantCulture),
        _ => value.ToString("0.####", CultureInfo.InvariantCulture),
    };

    /// <summary>A whole number with a thousands separator.</summary>
    public static string Whole(double value) => value.ToString("#,0", CultureInfo.InvariantCulture);

    /// <summary>"12.3×"; a dash where there is nothing to compare.</summary>
    public static string Times(double? ratio) => ratio is { } value && double.IsFinite(value) ? Digits(value) + "×" : "–";

    /// <summary>A size in GB or MB.</summary>
    public static string Bytes(double bytes) => Math.Abs(bytes) >= 1L << 30
        ? (bytes / (1L << 30)).ToString("0.##", CultureInfo.InvariantCulture) + " GB"
        : (bytes / (1L << 20)).ToString("0", CultureInfo.InvariantCulture) + " MB";
}
