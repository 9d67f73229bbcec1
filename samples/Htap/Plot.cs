using System.Globalization;
using System.Text;

namespace Htap;

/// <summary>Throughput over time as an SVG picture.</summary>
internal static class Plot
{
    private const int Width = 900;
    private const int Height = 420;
    private const int Left = 80;
    private const int Right = 20;
    private const int Top = 40;
    private const int Bottom = 50;

    private static readonly string[] Colours = ["#555555", "#d62728", "#1f77b4", "#2ca02c"];

    internal static void Write(string path, IReadOnlyList<Result> results)
    {
        double seconds = results.Max(r => r.Series.Count) * Runner.SeriesMilliseconds / 1000.0;
        double most = Math.Max(1, results.Max(r => r.Series.DefaultIfEmpty().Max()));
        var svg = new StringBuilder();
        svg.Append(CultureInfo.InvariantCulture, $"<svg xmlns='http://www.w3.org/2000/svg' width='{Width}' height='{Height}' font-family='sans-serif' font-size='13'>\n<rect width='100%' height='100%' fill='white'/>\n");
        svg.Append(CultureInfo.InvariantCulture, $"<text x='{Left}' y='22' font-size='15'>Transactions per second while an analyst queries fresh snapshots</text>\n");
        for (int i = 0; i <= 4; i++)
        {
            double y = Y(most * i / 4, most);
            svg.Append(CultureInfo.InvariantCulture, $"<line x1='{Left}' y1='{y:F1}' x2='{Width - Right}' y2='{y:F1}' stroke='#dddddd'/><text x='{Left - 8}' y='{y + 4:F1}' text-anchor='end'>{most * i / 4 / 1000:F0}k</text>\n");
            double x = Left + (Width - Left - Right) * i / 4.0;
            svg.Append(CultureInfo.InvariantCulture, $"<text x='{x:F1}' y='{Height - Bottom + 20}' text-anchor='middle'>{seconds * i / 4:F1} s</text>\n");
        }
        for (int r = 0; r < results.Count; r++)
        {
            string colour = Colours[r % Colours.Length];
            svg.Append(CultureInfo.InvariantCulture, $"<polyline fill='none' stroke-width='2' stroke='{colour}' points='");
            for (int i = 0; i < results[r].Series.Count; i++)
                svg.Append(CultureInfo.InvariantCulture, $"{Left + (Width - Left - Right) * ((i + 1) * Runner.SeriesMilliseconds / 1000.0) / seconds:F1},{Y(results[r].Series[i], most):F1} ");
            svg.Append(CultureInfo.InvariantCulture, $"'/>\n<text x='{Left + 10 + r * 200}' y='{Height - 10}' fill='{colour}'>{results[r].Mode}</text>\n");
        }
        File.WriteAllText(path, svg.Append("</svg>\n").ToString());
    }

    private static double Y(double value, double most) => Height - Bottom - (Height - Top - Bottom) * value / most;
}
