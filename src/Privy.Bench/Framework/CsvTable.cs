using System.Globalization;
using System.Text;

namespace Privy.Bench.Framework;

/// <summary>Measurements as lines of comma-separated values.</summary>
/// <param name="columns">The heads of the columns.</param>
public sealed class CsvTable(params string[] columns)
{
    private readonly List<string[]> _rows = [];

    /// <summary>How many rows there are, without the head.</summary>
    public int Count => _rows.Count;

    /// <summary>Adds a row; numbers are written without loss and independent of the user's language.</summary>
    public void Add(params object[] cells)
    {
        ArgumentNullException.ThrowIfNull(cells);
        if (cells.Length != columns.Length) throw new ArgumentException($"{cells.Length} cells for {columns.Length} columns", nameof(cells));
        _rows.Add([.. cells.Select(cell => Convert.ToString(cell, CultureInfo.InvariantCulture) ?? "")]);
    }

    /// <inheritdoc/>
    public override string ToString()
    {
        var text = new StringBuilder();
        foreach (var row in _rows.Prepend(columns)) text.AppendJoin(',', row.Select(Quote)).Append('\n');
        return text.ToString();
    }

    private static string Quote(string cell) =>
        cell.AsSpan().ContainsAny(",\"\n") ? '"' + cell.Replace("\"", "\"\"", StringComparison.Ordinal) + '"' : cell;
}
