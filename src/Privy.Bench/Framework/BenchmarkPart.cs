namespace Privy.Bench.Framework;

/// <summary>What a benchmark adds to the report.</summary>
public sealed class BenchmarkPart
{
    /// <summary>How it was measured, in a few sentences.</summary>
    public required string Method { get; init; }

    /// <summary>Tables, in order.</summary>
    public List<ReportTable> Tables { get; } = [];

    /// <summary>Pictures, in order.</summary>
    public List<ReportPlot> Plots { get; } = [];

    /// <summary>What a reader must know: what was left out, what is a model, what disturbs.</summary>
    public List<string> Remarks { get; } = [];

    /// <summary>Every single measurement.</summary>
    public required CsvTable Csv { get; init; }

    /// <summary>The numbers that goals are judged by.</summary>
    public Figures Figures { get; } = new();
}

/// <summary>A table of the report.</summary>
/// <param name="Title">Its heading.</param>
/// <param name="Columns">Heads of the columns; the first column is set flush left, the others flush right.</param>
public sealed record ReportTable(string Title, IReadOnlyList<string> Columns)
{
    /// <summary>The rows, each as long as <see cref="Columns"/>.</summary>
    public List<IReadOnlyList<string>> Rows { get; } = [];

    /// <summary>Adds a row.</summary>
    public void Add(params string[] cells)
    {
        if (cells.Length != Columns.Count) throw new ArgumentException($"{cells.Length} cells for {Columns.Count} columns", nameof(cells));
        Rows.Add(cells);
    }
}

/// <summary>A picture of the report.</summary>
/// <param name="Name">Appended to the benchmark's name for the file; empty for the only one.</param>
/// <param name="Caption">What it shows.</param>
/// <param name="Png">The PNG file's bytes.</param>
public sealed record ReportPlot(string Name, string Caption, byte[] Png);
