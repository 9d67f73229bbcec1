using Privy.Bench.Framework;
using Spectre.Console;

namespace Privy.Cli;

/// <summary>Results of benchmarks on the terminal.</summary>
internal static class BenchmarkOutput
{
    /// <summary>The tables and remarks of a benchmark.</summary>
    public static void Print(BenchmarkOutcome outcome)
    {
        Terminal.Out.WriteLine();
        if (outcome.Part is not { } part)
        {
            Terminal.Error($"{outcome.Benchmark.Name} could not be measured: {outcome.Failure}");
            return;
        }

        Terminal.Out.WriteLine($"{outcome.Benchmark.Title} ({outcome.Elapsed.TotalSeconds:0} s)");
        foreach (var table in part.Tables)
        {
            Terminal.Out.WriteLine(table.Title);
            Write(table.Columns, table.Rows);
        }

        foreach (var remark in part.Remarks) Terminal.Out.WriteLine("* " + remark);
    }

    /// <summary>The goals that this run can tell about.</summary>
    public static void Print(IReadOnlyList<GoalVerdict> goals)
    {
        if (goals.All(g => g.IsReached is null)) return;
        Terminal.Out.WriteLine();
        Terminal.Out.WriteLine("Goals");
        Write(["", "goal", "measured", "reached"], goals.Select(g => (string[])[g.Text, g.Target, g.Measured, g.IsReached switch { true => "yes", false => "no", null => "–" }]));
    }

    private static void Write(IReadOnlyList<string> columns, IEnumerable<IReadOnlyList<string>> rows)
    {
        var table = new Table().Border(Terminal.Out.Profile.Capabilities.Ansi ? TableBorder.Rounded : TableBorder.Ascii2);
        for (var i = 0; i < columns.Count; i++) table.AddColumn(i == 0 ? new TableColumn(new Text(columns[i])) : new TableColumn(new Text(columns[i])).RightAligned());
        foreach (var row in rows) table.AddRow(row.Select(cell => new Text(cell)));
        Terminal.Out.Write(table);
    }
}
