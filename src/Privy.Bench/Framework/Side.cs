namespace Privy.Bench.Framework;

/// <summary>One side of a comparison.</summary>
/// <param name="Key">Its name in CSV files and figures.</param>
/// <param name="Name">Its name in tables and pictures.</param>
/// <param name="Color">Its colour in pictures, as #rrggbb.</param>
/// <param name="Launcher">What precedes a program's command line; empty for an ordinary process.</param>
public sealed record Side(string Key, string Name, string Color, IReadOnlyList<string> Launcher)
{
    /// <summary>An ordinary process.</summary>
    public static Side Native { get; } = new("native", "native", "#c8442f", []);

    /// <summary>An ordinary process on transparent huge pages.</summary>
    public static Side NativeHuge { get; } = new("native-huge", "native, huge pages", "#d9922e", []);

    /// <summary>A privileged process; its launcher comes from <see cref="BenchmarkContext.Privy"/>.</summary>
    public static Side Privy { get; } = new("privy", "Privy", "#2a6fbf", []);
}
