using System.Globalization;
using Privy.Hypervisor.Diagnostics;
using Spectre.Console;

namespace Privy.Cli.Doctor;

/// <summary><c>privy doctor</c>.</summary>
internal sealed class DoctorReport
{
    private DoctorReport(IReadOnlyList<Check> checks, MachineCosts? measured)
    {
        Checks = checks;
        Measured = measured;
    }

    public IReadOnlyList<Check> Checks { get; }

    /// <summary>What a guest measured; null if none could be started.</summary>
    public MachineCosts? Measured { get; }

    /// <summary>Whether <c>privy run</c> will work.</summary>
    public bool CanRun => Checks.All(c => c.Verdict != Verdict.Problem);

    /// <summary>Looks at everything.</summary>
    public static DoctorReport Examine()
    {
        var checks = new List<Check>();
        SystemProbe.ExamineProcessor(checks);
        KvmProbe.Examine(checks);
        var limitsAt = checks.Count;
        SystemProbe.ExamineMemory(checks);
        SystemProbe.ExamineLimits(checks);
        SystemProbe.ExamineServers(checks);
        // After all others: where one of them has found why nothing can run, a guest that fails would only say it again and worse.
        var measured = checks.Any(c => c.Verdict == Verdict.Problem) ? null : GuestProbe.Examine(checks, limitsAt, CostProbe.Default);
        return new DoctorReport(checks, measured);
    }

    /// <summary>The command: prints the report and the measured costs; the exit status is 0 only if programs can run.</summary>
    public static int Print()
    {
        var report = Examine();
        Print(report);
        if (report.Measured is { } measured) PrintCosts(measured.Costs);
        Terminal.Out.WriteLine();
        var warnings = report.Checks.Count(c => c.Verdict == Verdict.Warning);
        Terminal.Out.WriteLine(!report.CanRun
            ? "'privy run' will not work here until what is marked ✗ is put right ('privy run --engine native' runs programs as ordinary processes)."
            : warnings > 0 ? "'privy run' will work here; what is marked ! costs speed or sets a limit." : "'privy run' will work here.");
        return report.CanRun ? 0 : 1;
    }

    /// <summary>Prints the checks and what to do about each problem.</summary>
    public static void Print(DoctorReport report)
    {
        var nameWidth = report.Checks.Max(c => c.Name.Length);
        var table = Plain();
        table.AddColumn(new TableColumn("").NoWrap());
        table.AddColumn(new TableColumn("").NoWrap());
        table.AddColumn(new TableColumn(""));
        foreach (var check in report.Checks)
        {
            var (mark, style) = check.Verdict switch
            {
                Verdict.Good => ("✓", new Style(Color.Green)),
                Verdict.Warning => ("!", new Style(Color.Yellow)),
                _ => ("✗", new Style(Color.Red)),
            };
            if (Console.IsOutputRedirected)
            {
                // A file or a pipe gets lines as long as they are, without the padding of a table.
                Console.Out.WriteLine($"{mark} {check.Name.PadRight(nameWidth)} {check.Value}");
                if (check.Advice is not null) Console.Out.WriteLine($"  {"".PadRight(nameWidth)} → {check.Advice}");
                continue;
            }

            table.AddRow(new Text(mark, style), new Text(check.Name), new Text(check.Value));
            if (check.Advice is { } advice) table.AddRow(new Text(""), new Text(""), new Text("→ " + advice, style));
        }

        if (table.Rows.Count > 0) Terminal.Out.Write(table);
    }

    private static void PrintCosts(IReadOnlyList<MeasuredCost> costs)
    {
        Terminal.Out.WriteLine();
        if (Console.IsOutputRedirected)
        {
            var width = costs.Max(c => c.Name.Length);
            Console.Out.WriteLine($"{"measured here".PadRight(width)} {"median",10} {"p99",10}");
            foreach (var cost in costs) Console.Out.WriteLine($"{cost.Name.PadRight(width)} {Duration(cost.Median),10} {Duration(cost.P99),10}");
            return;
        }

        var table = Plain();
        table.ShowHeaders = true;
        table.AddColumn(new TableColumn("measured here").NoWrap());
        table.AddColumn(new TableColumn("median").RightAligned().NoWrap());
        table.AddColumn(new TableColumn("p99").RightAligned().NoWrap());
        foreach (var cost in costs) table.AddRow(new Text(cost.Name), new Text(Duration(cost.Median)), new Text(Duration(cost.P99)));
        Terminal.Out.Write(table);
    }

    /// <summary>A time in nanoseconds as a user reads it.</summary>
    internal static string Duration(double nanoseconds) => nanoseconds switch
    {
        < 10 => nanoseconds.ToString("0.0", CultureInfo.InvariantCulture) + " ns",
        < 1000 => nanoseconds.ToString("0", CultureInfo.InvariantCulture) + " ns",
        < 10_000 => (nanoseconds / 1000).ToString("0.0", CultureInfo.InvariantCulture) + " µs",
        _ => (nanoseconds / 1000).ToString("0", CultureInfo.InvariantCulture) + " µs",
    };

    private static Table Plain() => new() { Border = TableBorder.None, ShowHeaders = false };
}
