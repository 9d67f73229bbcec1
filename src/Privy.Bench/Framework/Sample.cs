namespace Privy.Bench.Framework;

/// <summary>Repeated measurements of one thing: the median, and the spread as smallest and largest.</summary>
public sealed class Sample
{
    private readonly List<double> _values = [];

    /// <summary>How many there are.</summary>
    public int Count => _values.Count;

    /// <summary>The smallest.</summary>
    public double Min => _values.Min();

    /// <summary>The largest.</summary>
    public double Max => _values.Max();

    /// <summary>The middle one, or the mean of the two in the middle.</summary>
    public double Median
    {
        get
        {
            if (_values.Count == 0) throw new InvalidOperationException("no values");
            var sorted = _values.Order().ToArray();
            return (sorted[(sorted.Length - 1) / 2] + sorted[sorted.Length / 2]) / 2;
        }
    }

    /// <summary>The values in the order they were measured.</summary>
    public IReadOnlyList<double> Values => _values;

    /// <summary>Adds a measurement.</summary>
    public void Add(double value) => _values.Add(value);

    /// <summary>Adds measurements.</summary>
    public void Add(IEnumerable<double> values) => _values.AddRange(values);

    /// <summary>"1.2 ms (1.1 ms–1.9 ms)": the median, and the spread if there is more than one value. A dash for none.</summary>
    public string Text(Func<double, string> format)
    {
        ArgumentNullException.ThrowIfNull(format);
        return _values.Count switch
        {
            0 => "–",
            1 => format(_values[0]),
            _ => $"{format(Median)} ({format(Min)}–{format(Max)})",
        };
    }
}
