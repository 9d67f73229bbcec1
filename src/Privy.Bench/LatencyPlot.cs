using System.Globalization;
using ScottPlot;

namespace Privy.Bench;

/// <summary>A curve of <see cref="LatencyPlot"/>.</summary>
/// <param name="Name">The legend's text.</param>
/// <param name="Series">The latencies.</param>
/// <param name="SnapshotBegin">When the snapshot began, since the start of the series.</param>
/// <param name="SnapshotEnd">When it ended.</param>
/// <param name="Color">As #rrggbb.</param>
public sealed record LatencyCurve(string Name, LatencySeries Series, TimeSpan SnapshotBegin, TimeSpan SnapshotEnd, string Color);

/// <summary>Draws latency over time, a panel per server, on the same logarithmic scale.</summary>
public static class LatencyPlot
{
    private const int Width = 1200;
    private const int PanelHeight = 380;

    private static readonly string[] PreferredFonts = ["DejaVu Sans", "Noto Sans", "Liberation Sans", "Arial"];
    private static readonly string? Font = ChooseFont();

    /// <summary>False where no font is installed: pictures are then without any text.</summary>
    public static bool CanWriteText => Font is not null;

    internal static string? FontName => Font;

    /// <summary>Writes the picture as a PNG file.</summary>
    public static void Save(string path, string title, IReadOnlyList<LatencyCurve> curves)
    {
        if (Path.GetDirectoryName(path) is { Length: > 0 } directory) Directory.CreateDirectory(directory);
        File.WriteAllBytes(path, Draw(title, curves));
    }

    /// <summary>The picture as the bytes of a PNG file.</summary>
    public static byte[] Draw(string title, IReadOnlyList<LatencyCurve> curves)
    {
        ArgumentNullException.ThrowIfNull(curves);
        var (low, high) = Range(curves);
        var seconds = curves.Max(c => c.Series.Slots.Length * c.Series.Width.TotalSeconds);

        var multiplot = new Multiplot();
        multiplot.AddPlots(curves.Count);
        for (var i = 0; i < curves.Count; i++)
        {
            var plot = multiplot.GetPlot(i);
            Draw(plot, curves[i], low, high, seconds);
            if (i == 0) plot.Title(title + "\n" + curves[i].Name, size: 18);
            else plot.Title(curves[i].Name, size: 18);
            if (i == curves.Count - 1) plot.XLabel("time, s", size: 15);
        }

        return multiplot.Render(Width, PanelHeight * curves.Count + 40).GetImageBytes(ImageFormat.Png);
    }

    /// <summary>"250 µs", "3 ms", "1.5 s".</summary>
    public static string Duration(double nanoseconds) => nanoseconds switch
    {
        >= 1e9 => (nanoseconds / 1e9).ToString("0.###", CultureInfo.InvariantCulture) + " s",
        >= 1e6 => (nanoseconds / 1e6).ToString("0.###", CultureInfo.InvariantCulture) + " ms",
        _ => (nanoseconds / 1e3).ToString("0.###", CultureInfo.InvariantCulture) + " µs",
    };

    private static void Draw(Plot plot, LatencyCurve curve, double low, double high, double seconds)
    {
        var color = Color.FromHex(curve.Color);
        var snapshot = plot.Add.HorizontalSpan(curve.SnapshotBegin.TotalSeconds, curve.SnapshotEnd.TotalSeconds);
        snapshot.FillStyle.Color = Color.FromHex("#8a8a80").WithAlpha(0.14);
        snapshot.LineStyle.Width = 0;
        snapshot.LegendText = "BGSAVE";

        Add(slot => slot.Median, "median", color.WithAlpha(0.45), 1.5f);
        Add(slot => slot.Max, $"slowest in {curve.Series.Width.TotalMilliseconds:0} ms", color, 1.5f);

        var line = plot.Add.VerticalLine(curve.SnapshotBegin.TotalSeconds);
        line.Color = Color.FromHex("#52514e");
        line.LinePattern = LinePattern.Dashed;
        line.LineWidth = 1;

        var ticks = new ScottPlot.TickGenerators.NumericManual();
        for (var decade = (int)Math.Floor(low); decade <= high; decade++)
        {
            ticks.AddMajor(decade, Duration(Math.Pow(10, decade)));
            for (var i = 2; i < 10; i++) ticks.AddMinor(decade + Math.Log10(i));
        }

        plot.Axes.Left.TickGenerator = ticks;
        plot.YLabel("latency of SET", size: 15);
        plot.Axes.SetLimits(0, seconds, low, high);
        plot.Grid.MajorLineColor = Color.FromHex("#e1e0d9");
        plot.Axes.Left.TickLabelStyle.FontSize = 13;
        plot.Axes.Bottom.TickLabelStyle.FontSize = 13;
        plot.ShowLegend(Alignment.UpperRight, Orientation.Horizontal);
        if (Font is not null) plot.Font.Set(Font);

        void Add(Func<LatencySlot, long> value, string name, Color lineColor, float width)
        {
            var slots = curve.Series.Slots;
            var xs = new List<double>();
            var ys = new List<double>();
            for (var i = 0; i < slots.Length; i++)
            {
                // A slot without a completed request stays out: the line crosses to the slot in which the waiting requests ended.
                if (slots[i].Count == 0) continue;
                xs.Add((i + 0.5) * curve.Series.Width.TotalSeconds);
                ys.Add(Math.Log10(Math.Max(value(slots[i]), 1)));
            }

            var scatter = plot.Add.ScatterLine(xs, ys, lineColor);
            scatter.LineWidth = width;
            scatter.LegendText = name;
        }
    }

    /// <summary>A plain sans serif if there is one, else any font.</summary>
    private static string? ChooseFont()
    {
        var families = SkiaSharp.SKFontManager.Default.FontFamilies.Where(HasLetters).ToArray();
        return PreferredFonts.FirstOrDefault(families.Contains)
            ?? families.FirstOrDefault(f => f.Contains("Sans", StringComparison.Ordinal))
            ?? families.FirstOrDefault();

        // Where nothing is installed, Skia names a family of its own that has no shapes in it.
        static bool HasLetters(string family)
        {
            using var typeface = SkiaSharp.SKTypeface.FromFamilyName(family);
            return typeface is not null && typeface.GetGlyphs("a") is [not 0, ..];
        }
    }

    /// <summary>Whole decades that hold every point, so that panels can be compared.</summary>
    private static (double Low, double High) Range(IReadOnlyList<LatencyCurve> curves)
    {
        double low = double.MaxValue, high = 0;
        foreach (var curve in curves)
        {
            foreach (var slot in curve.Series.Slots)
            {
                if (slot.Count == 0) continue;
                low = Math.Min(low, Math.Log10(Math.Max(slot.Median, 1)));
                high = Math.Max(high, Math.Log10(Math.Max(slot.Max, 1)));
            }
        }

        return low > high ? (3, 9) : (Math.Floor(low), Math.Ceiling(high + 0.1));
    }
}
