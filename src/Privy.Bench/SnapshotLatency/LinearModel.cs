namespace Privy.Bench.SnapshotLatency;

/// <summary>A straight line through measurements: a fixed cost, and a cost per byte.</summary>
internal readonly record struct LinearModel(double Intercept, double Slope)
{
    /// <summary>
    /// Least squares of the relative errors, so that the small sizes count as much as the large ones. A cost that seems to fall with the size is
    /// taken as one that does not depend on it.
    /// </summary>
    public static LinearModel Fit(IReadOnlyList<(double X, double Y)> points)
    {
        double w = 0, wx = 0, wy = 0, wxx = 0, wxy = 0;
        foreach (var (x, y) in points)
        {
            var weight = 1 / (y * y);
            w += weight;
            wx += weight * x;
            wy += weight * y;
            wxx += weight * x * x;
            wxy += weight * x * y;
        }

        var slope = Math.Max(0, (w * wxy - wx * wy) / (w * wxx - wx * wx));
        return new LinearModel(Math.Max(0, (wy - slope * wx) / w), slope);
    }

    public double At(double x) => Intercept + Slope * x;
}
