using Privy.Bench.Charts;
using Privy.Bench.Framework;

namespace Privy.Bench.Elevation;

/// <summary>Whether a program that hardly uses the kernel runs as fast under Privy.</summary>
public sealed class ElevationBenchmark : IBenchmark
{
    private static readonly (string Key, string Name)[] Programs = [("chase", "random reads, each waits for the last"), ("scan", "reads in order, per cache line"), ("compute", "matrix product, per step")];

    /// <inheritdoc/>
    public string Name => "elevation";

    /// <inheritdoc/>
    public string Title => "Running privileged";

    /// <inheritdoc/>
    public string Description => "A program that waits for memory and one that computes: native and under Privy";

    /// <inheritdoc/>
    public BenchmarkPart Run(BenchmarkContext context)
    {
        ArgumentNullException.ThrowIfNull(context);
        var bytes = context.Choose(64L << 20, 1L << 30, 1L << 30);
        if (bytes > context.MemoryBytes) throw new BenchException($"{Format.Bytes(bytes)} of memory are needed and {Format.Bytes(context.MemoryBytes)} may be used; free some, or raise --memory");
        Side[] sides = [Side.Native, Side.NativeHuge, .. context.HasPrivy ? (Side[])[context.Privy()] : []];
        var rounds = context.Choose(1, 3, 7);
        var samples = new Dictionary<(string Side, string Program), Sample>();
        foreach (var side in sides)
            foreach (var (program, _) in Programs) samples[(side.Key, program)] = new Sample();
        var csv = new CsvTable("program", "side", "round", "nanoseconds");
        for (var round = 0; round < rounds; round++)
        {
            for (var i = 0; i < sides.Length; i++)
            {
                context.Progress(sides[i].Name, (double)(round * sides.Length + i) / (rounds * sides.Length));
                var run = WorkloadProcess.Run(context, sides[i], "elevated-loops", Arguments.Of(("bytes", bytes), ("pages", sides[i].Key == Side.Native.Key ? "small" : "huge"), ("rounds", context.Choose(2, 5, 9)), ("steps", context.Choose(200_000, 5_000_000, 20_000_000))));
                foreach (var (program, _) in Programs)
                {
                    foreach (var time in run.All(program))
                    {
                        samples[(sides[i].Key, program)].Add(time);
                        csv.Add(program, sides[i].Key, round, time);
                    }
                }
            }
        }

        var part = new BenchmarkPart
        {
            Method = $"Random reads follow one circle through all cache lines of {Format.Bytes(bytes)}, so that each waits for memory and, on small pages, for the page tables. The matrices of the product fit into the cache.",
            Csv = csv,
        };
        var table = new ReportTable("Time of a step: median (smallest–largest)", ["", .. sides.Select(s => s.Name), .. context.HasPrivy ? (string[])["Privy / native", "Privy / native, huge pages"] : []]);
        foreach (var (program, name) in Programs)
        {
            table.Add([name, .. sides.Select(s => samples[(s.Key, program)].Text(Format.Time)), .. context.HasPrivy ? (string[])[Ratio(program, Side.Native), Ratio(program, Side.NativeHuge)] : []]);
            foreach (var side in sides) part.Figures[$"{Name}.{program}.{side.Key}"] = samples[(side.Key, program)].Median;
        }

        part.Tables.Add(table);
        part.Plots.Add(new ReportPlot("", "Median time of a step.", new BarChart
        {
            Title = "programs that hardly use the kernel",
            Y = "time of a step",
            Groups = [.. Programs.Select(p => p.Name.Replace(", ", "\n", StringComparison.Ordinal))],
            Series = [.. sides.Select(s => new BarSeries(s.Name, s.Color, [.. Programs.Select(p => samples[(s.Key, p.Key)].Median)]))],
            LogY = true,
            YText = Format.Time,
            YMark = Format.TimeMark,
        }.Draw()));
        return part;

        string Ratio(string program, Side native) => Format.Times(samples[(Side.Privy.Key, program)].Median / samples[(native.Key, program)].Median);
    }
}
