using System.Globalization;
using Privy.Bench.Charts;
using Privy.Bench.Framework;

namespace Privy.Bench.Library;

/// <summary>What the library's snapshots and checkpoints cost, with the portable engine natively and with the privileged one.</summary>
public sealed class LibraryBenchmark : IBenchmark
{
    private const long Gigabyte = 1L << 30;

    /// <summary>The size that the goals speak of.</summary>
    private const long Size = 4 * Gigabyte;

    /// <inheritdoc/>
    public string Name => "library";

    /// <inheritdoc/>
    public string Title => "The library: snapshots, views and checkpoints";

    /// <inheritdoc/>
    public string Description => "TakeSnapshot by size of the region, writers beside snapshots, reading a view, incremental checkpoints";

    /// <inheritdoc/>
    public BenchmarkPart Run(BenchmarkContext context)
    {
        ArgumentNullException.ThrowIfNull(context);
        long[] sizes = context.Quick ? [Gigabyte / 4, Size] : [Gigabyte / 4, Gigabyte, Size, 16 * Gigabyte];
        var touched = context.Choose(128L << 20, Gigabyte, 2 * Gigabyte);
        var checkpoint = context.Choose(32L << 20, 512L << 20, Gigabyte);
        if (touched * 3 / 2 > context.MemoryBytes) throw new BenchException($"{Format.Bytes(touched * 1.5)} of memory are needed and {Format.Bytes(context.MemoryBytes)} may be used; free some, or raise --memory");
        var sides = context.Sides();
        var part = new BenchmarkPart
        {
            Method = $"A region of each size, of which {Format.Bytes(touched)} at most hold data. A thread writes to 256 pages scattered over these; another takes a snapshot every 10 ms, which lives until the next (for the times of TakeSnapshot: ends at once). " +
                $"The speed kept is that of a writer to 64, 256 or 1,024 pages against itself without snapshots, in turn: each page costs a copy after each snapshot. Reading: all words of 256 MB added up, one page in 64 of the view being a copy. Checkpoints: {Format.Bytes(checkpoint)}, a full one, then 1% of the pages changed at random.",
            Csv = new CsvTable("side", "what", "values"),
        };
        var takes = new ReportTable("TakeSnapshot beside a writer", ["region", "", "snapshots", "p50", "p99", "max"]);
        var others = new ReportTable("Beside and after it", ["", "speed kept at 100/s: 64 pages", "256 pages", "1,024 pages", "writer's processor time for each of 256 copies", "a view's speed", "full checkpoint", "increment", "its size against the changed pages", "its time against the full one"]);
        part.Tables.Add(takes);
        part.Tables.Add(others);
        var curves = new List<Curve>();
        foreach (var side in sides)
        {
            context.Progress(side.Name, (double)curves.Count / sides.Count);
            var folder = Directory.CreateDirectory(Path.Combine(context.TemporaryDirectory, "privy-checkpoints-" + Guid.NewGuid().ToString("N"))).FullName;
            try
            {
                var run = WorkloadProcess.Run(
                    context,
                    side,
                    "library-costs",
                    Arguments.Of(
                        ("sizes", string.Join(',', sizes)), ("size", Size), ("bytes", touched), ("checkpoint", checkpoint),
                        ("milliseconds", context.Choose(500, 3000, 6000)), ("folder", folder)),
                    phase => context.Progress($"{side.Name}: {phase}", (double)curves.Count / sides.Count));
                Add(part, run, side, takes, others);
                curves.Add(new Curve(side.Name, side.Color, [.. run.Lines("take").Select(l => (l[0] / Gigabyte, l[2]))]));
            }
            catch (BenchException e)
            {
                context.Cancellation.ThrowIfCancellationRequested();
                part.Remarks.Add(e.Message);
            }
            finally
            {
                Directory.Delete(folder, recursive: true);
            }
        }

        if (part.Csv.Count == 0) throw new BenchException(part.Remarks.FirstOrDefault() ?? "nothing was measured");
        part.Plots.Add(new ReportPlot("", "Median time of TakeSnapshot by size of the region.", new LineChart
        {
            Title = "TakeSnapshot",
            X = "size of the region, GB",
            Y = "time",
            LogX = true,
            LogY = true,
            XMarks = [.. sizes.Select(s => (double)s / Gigabyte)],
            YText = Format.TimeMark,
            Curves = curves,
        }.Draw()));
        part.Remarks.Add("The time of TakeSnapshot is that of the call: page tables that the program's next accesses make are in the speed kept. Other programs' turns on the processors are in both.");
        return part;
    }

    private void Add(BenchmarkPart part, WorkloadProcess run, Side side, ReportTable takes, ReportTable others)
    {
        foreach (var what in (string[])["take", "kept", "scan", "checkpoint"])
            foreach (var line in run.Lines(what)) part.Csv.Add(side.Key, what, string.Join(' ', line.Select(v => v.ToString("R", CultureInfo.InvariantCulture))));

        var lines = run.Lines("take");
        foreach (var line in lines)
            takes.Add(Format.Bytes(line[0]), side.Name, Format.Whole(line[1]), Format.Time(line[2]), Format.Time(line[3]), Format.Time(line[4]));
        var scan = Samples(run.Lines("scan").Select(l => l[2]));
        var full = run.Lines("checkpoint").First(l => l[0] == 1);
        var increments = run.Lines("checkpoint").Where(l => l[0] == 0).ToArray();
        var bytes = Samples(increments.Select(l => l[2] / (l[1] * SnapshotRegion.PageSize)));
        var time = Samples(increments.Select(l => l[3] / full[3]));
        others.Add(
            side.Name,
            Kept(64).Text(Ratio),
            Kept(256).Text(Ratio),
            Kept(1024).Text(Ratio),
            Samples(run.Lines("kept").Where(l => (int)l[0] == 256).Select(l => l[5])).Text(Format.Time),
            scan.Text(Ratio),
            $"{Format.Bytes(full[2])} in {Format.Time(full[3])}",
            Samples(increments.Select(l => l[3])).Text(Format.Time),
            bytes.Text(Ratio),
            time.Text(Ratio));
        part.Figures[$"{Name}.take.{side.Key}"] = lines.First(l => (long)l[0] == Size)[2];
        if (lines.Any(l => (long)l[0] == 16 * Gigabyte)) part.Figures[$"{Name}.growth.{side.Key}"] = lines[^1][2] / lines[0][2];
        part.Figures[$"{Name}.kept.{side.Key}"] = Kept(256).Median;
        part.Figures[$"{Name}.scan.{side.Key}"] = scan.Median;
        part.Figures[$"{Name}.increment-bytes.{side.Key}"] = bytes.Median;
        part.Figures[$"{Name}.increment-time.{side.Key}"] = time.Median;

        Sample Kept(int pages) => Samples(run.Lines("kept").Where(l => (int)l[0] == pages).Select(l => l[1]));
    }

    private static Sample Samples(IEnumerable<double> values)
    {
        var sample = new Sample();
        sample.Add(values);
        return sample;
    }

    private static string Ratio(double value) => value.ToString("0.000", CultureInfo.InvariantCulture);
}
