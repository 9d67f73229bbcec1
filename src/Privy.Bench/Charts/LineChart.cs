using ScottPlot;

namespace Privy.Bench.Charts;

/// <summary>A curve.</summary>
/// <param name="Name">Its name in the legend.</param>
/// <param name="Color">As #rrggbb.</param>
/// <param name="Points">Its points.</param>
/// <param name="IsModel">A computed curve: dashed and without marks at its points.</param>
internal sealed record Curve(string Name, string Color, IReadOnlyList<(double X, double Y)> Points, bool IsModel = false);

/// <summary>Curves over an axis of numbers. Logarithmic axes leave out points that are not positive.</summary>
internal sealed class LineChart
{
    public required string Title { get; init; }
    public required string X { get; init; }
    public required string Y { get; init; }
    public required IReadOnlyList<Curve> Curves { get; init; }
    public bool LogX { get; init; }
    public bool LogY { get; init; }
    public Func<double, string> XText { get; init; } = ChartStyle.Number;
    public Func<double, string> YText { get; init; } = ChartStyle.Number;

    /// <summary>Marks of the x axis; null for the powers of ten, or whatever fits.</summary>
    public IReadOnlyList<double>? XMarks { get; init; }

    public byte[] Draw()
    {
        using var plot = new Plot();
        var xs = new List<double>();
        var ys = new List<double>();
        foreach (var curve in Curves)
        {
            var points = curve.Points.Where(p => (!LogX || p.X > 0) && (!LogY || p.Y > 0)).Select(p => (X: LogX ? Math.Log10(p.X) : p.X, Y: LogY ? Math.Log10(p.Y) : p.Y)).ToArray();
            if (points.Length == 0) continue;
            xs.AddRange(points.Select(p => p.X));
            ys.AddRange(points.Select(p => p.Y));
            var line = plot.Add.Scatter(points.Select(p => p.X).ToArray(), points.Select(p => p.Y).ToArray(), Color.FromHex(curve.Color));
            // A model has the colour of what it is a model of; the caption says what dashes mean.
            if (!curve.IsModel) line.LegendText = curve.Name;
            line.LineWidth = 2;
            line.MarkerSize = curve.IsModel ? 0 : 7;
            if (curve.IsModel) line.LinePattern = LinePattern.Dashed;
        }

        ChartStyle.Apply(plot, Title, X, Y);
        if (ys.Count > 0)
        {
            var (low, high) = LogY ? (Math.Floor(ys.Min()), Math.Ceiling(ys.Max() + 0.01)) : (Math.Min(0, ys.Min()), ys.Max() * 1.08 + 1e-9);
            var margin = Math.Max((xs.Max() - xs.Min()) * 0.03, 1e-6);
            plot.Axes.SetLimits(xs.Min() - margin, xs.Max() + margin, low, high);
            if (LogY) plot.Axes.Left.TickGenerator = ChartStyle.Decades(low, high, YText);
            else plot.Axes.Left.TickGenerator = new ScottPlot.TickGenerators.NumericAutomatic { LabelFormatter = YText };
            if (XMarks is not null)
            {
                var ticks = new ScottPlot.TickGenerators.NumericManual();
                foreach (var mark in XMarks) ticks.AddMajor(LogX ? Math.Log10(mark) : mark, XText(mark));
                plot.Axes.Bottom.TickGenerator = ticks;
            }
            else if (LogX)
            {
                plot.Axes.Bottom.TickGenerator = ChartStyle.Decades(xs.Min(), xs.Max(), XText);
            }
        }

        plot.ShowLegend(Alignment.UpperLeft);
        return ChartStyle.Png(plot);
    }
}
