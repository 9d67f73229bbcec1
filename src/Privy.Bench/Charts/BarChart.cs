using ScottPlot;

namespace Privy.Bench.Charts;

/// <summary>Bars of one colour, one in each group; NaN for none.</summary>
internal sealed record BarSeries(string Name, string Color, IReadOnlyList<double> Values);

/// <summary>Groups of bars, one bar for each side.</summary>
internal sealed class BarChart
{
    public required string Title { get; init; }
    public required string Y { get; init; }
    public required IReadOnlyList<string> Groups { get; init; }
    public required IReadOnlyList<BarSeries> Series { get; init; }
    public bool LogY { get; init; }

    /// <summary>The number above a bar.</summary>
    public Func<double, string> YText { get; init; } = ChartStyle.Number;

    /// <summary>A mark of the axis.</summary>
    public Func<double, string> YMark { get; init; } = ChartStyle.Number;

    public byte[] Draw()
    {
        using var plot = new Plot();
        var values = Series.SelectMany(s => s.Values).Where(v => double.IsFinite(v) && (!LogY || v > 0)).ToArray();
        // On a logarithmic axis bars stand on the decade below the smallest.
        var floor = LogY && values.Length > 0 ? Math.Floor(Math.Log10(values.Min()) - 0.05) : 0;
        var width = 0.8 / Series.Count;
        for (var s = 0; s < Series.Count; s++)
        {
            var bars = new List<Bar>();
            for (var g = 0; g < Groups.Count; g++)
            {
                var value = Series[s].Values[g];
                if (!double.IsFinite(value) || (LogY && value <= 0)) continue;
                bars.Add(new Bar
                {
                    Position = g + (s - (Series.Count - 1) / 2.0) * width,
                    Value = LogY ? Math.Log10(value) : value,
                    ValueBase = floor,
                    Size = width * 0.92,
                    FillColor = Color.FromHex(Series[s].Color),
                    LineWidth = 0,
                    Label = YText(value),
                });
            }

            var added = plot.Add.Bars(bars);
            added.LegendText = Series[s].Name;
            added.ValueLabelStyle.FontSize = 11;
        }

        ChartStyle.Apply(plot, Title, "", Y);
        var ticks = new ScottPlot.TickGenerators.NumericManual();
        for (var g = 0; g < Groups.Count; g++) ticks.AddMajor(g, Groups[g]);
        plot.Axes.Bottom.TickGenerator = ticks;
        if (values.Length > 0)
        {
            // Room above the highest bar for its number and the legend.
            var high = LogY ? Math.Log10(values.Max()) : values.Max();
            var top = LogY ? high + Math.Max(0.25 * (high - floor), 0.4) : Math.Max(high * 1.25, 1e-9);
            plot.Axes.SetLimits(-0.6, Groups.Count - 0.4, floor, top);
            if (LogY) plot.Axes.Left.TickGenerator = ChartStyle.Decades(floor, top, YMark);
            else plot.Axes.Left.TickGenerator = new ScottPlot.TickGenerators.NumericAutomatic { LabelFormatter = YMark };
        }

        plot.ShowLegend(Alignment.UpperRight, Orientation.Horizontal);
        return ChartStyle.Png(plot);
    }
}
