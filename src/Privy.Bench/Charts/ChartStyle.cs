using System.Globalization;
using ScottPlot;
using ScottPlot.TickGenerators;

namespace Privy.Bench.Charts;

/// <summary>What all pictures of the report have in common.</summary>
internal static class ChartStyle
{
    public const int Width = 1000;
    public const int Height = 480;

    /// <summary>Colours for curves that are not a side of their own.</summary>
    public static readonly string[] Palette = ["#c8442f", "#2a6fbf", "#d9922e", "#3a8f5c", "#7b52a3", "#5f6b73"];

    public static void Apply(Plot plot, string title, string x, string y)
    {
        plot.Title(title, size: 17);
        plot.XLabel(x, size: 14);
        plot.YLabel(y, size: 14);
        plot.Axes.Left.TickLabelStyle.FontSize = 13;
        plot.Axes.Bottom.TickLabelStyle.FontSize = 13;
        plot.Grid.MajorLineColor = Color.FromHex("#e1e0d9");
    }

    public static byte[] Png(Plot plot)
    {
        if (LatencyPlot.FontName is { } font) plot.Font.Set(font);
        return plot.GetImage(Width, Height).GetImageBytes(ImageFormat.Png);
    }

    /// <summary>Marks at the powers of ten of an axis that holds logarithms.</summary>
    public static NumericManual Decades(double low, double high, Func<double, string> text)
    {
        var ticks = new NumericManual();
        for (var decade = (int)Math.Floor(low); decade <= Math.Ceiling(high); decade++)
        {
            ticks.AddMajor(decade, text(Math.Pow(10, decade)));
            for (var i = 2; i < 10; i++) ticks.AddMinor(decade + Math.Log10(i));
        }

        return ticks;
    }

    /// <summary>A number without trailing zeros.</summary>
    public static string Number(double value) => value.ToString("#,0.######", CultureInfo.InvariantCulture);
}
