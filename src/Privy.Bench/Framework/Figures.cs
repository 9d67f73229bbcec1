namespace Privy.Bench.Framework;

/// <summary>Named numbers of a run, by which the goals are judged.</summary>
public sealed class Figures
{
    private readonly Dictionary<string, double> _values = [];

    /// <summary>The number of a name, or null if this run did not measure it.</summary>
    public double? this[string name]
    {
        get => _values.TryGetValue(name, out var value) ? value : null;
        set
        {
            if (value is { } number) _values[name] = number;
        }
    }

    /// <summary>One over another, or null if either is missing.</summary>
    public double? Ratio(string numerator, string denominator) => this[numerator] / this[denominator] is { } ratio && double.IsFinite(ratio) ? ratio : null;

    /// <summary>Takes over those of another part.</summary>
    public void Add(Figures other)
    {
        ArgumentNullException.ThrowIfNull(other);
        foreach (var (name, value) in other._values) _values[name] = value;
    }
}
