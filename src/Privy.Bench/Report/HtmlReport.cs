using System.Globalization;
using System.Net;
using System.Text;
using Privy.Bench.Framework;

namespace Privy.Bench.Report;

/// <summary>The report as one HTML file that needs no other: pictures are inside.</summary>
public static class HtmlReport
{
    private const string Style = """
        :root { color-scheme: light dark; --line: #d5d4cc; --soft: #6b6a64; --good: #1d7a45; --bad: #b3261e; }
        @media (prefers-color-scheme: dark) { :root { --line: #45443f; --soft: #a3a29a; --good: #58c184; --bad: #f2807a; } }
        body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
        h1 { font-size: 1.7rem; } h2 { margin-top: 3rem; border-bottom: 1px solid var(--line); } h3 { font-size: 1rem; margin-bottom: .3rem; }
        .scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
        th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: right; font-variant-numeric: tabular-nums; }
        th:first-child, td:first-child, .goals td, .goals th, .head td { text-align: left; }
        img { max-width: 100%; height: auto; background: white; border: 1px solid var(--line); }
        figure { margin: 1.2rem 0; } figcaption, .soft { color: var(--soft); font-size: .9rem; }
        .good { color: var(--good); font-weight: 600; } .bad { color: var(--bad); font-weight: 600; }
        """;

    /// <summary>The file's text.</summary>
    public static string Write(ReportHead head, IReadOnlyList<BenchmarkOutcome> outcomes, IReadOnlyList<GoalVerdict> goals)
    {
        ArgumentNullException.ThrowIfNull(head);
        ArgumentNullException.ThrowIfNull(outcomes);
        ArgumentNullException.ThrowIfNull(goals);
        var text = new StringBuilder();
        text.Append("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Privy: benchmarks</title>\n<style>\n")
            .Append(Style).Append("\n</style>\n</head>\n<body>\n<h1>Privy: benchmarks</h1>\n<table class=\"head\">\n");
        foreach (var (name, value) in (ReadOnlySpan<(string, string)>)[("Machine", head.Machine), ("KVM", head.Kvm), ("Date", head.Date), ("Commit", head.Commit), ("Again", head.Command)])
            text.Append(CultureInfo.InvariantCulture, $"<tr><td>{name}</td><td>{Encode(value)}</td></tr>\n");
        text.Append("</table>\n");
        WriteGoals(text, goals);
        foreach (var outcome in outcomes) WritePart(text, outcome);
        return text.Append("</body>\n</html>\n").ToString();
    }

    private static void WriteGoals(StringBuilder text, IReadOnlyList<GoalVerdict> goals)
    {
        if (goals.All(g => g.IsReached is null)) return;
        text.Append("<h2>Goals</h2>\n<div class=\"scroll\"><table class=\"goals\">\n<tr><th></th><th>goal</th><th>measured</th><th>reached</th></tr>\n");
        foreach (var goal in goals)
        {
            var (style, word) = Word(goal);
            text.Append(CultureInfo.InvariantCulture, $"<tr><td>{Encode(goal.Text)}</td><td>{Encode(goal.Target)}</td><td>{Encode(goal.Measured)}</td><td class=\"{style}\">{word}</td></tr>\n");
        }

        text.Append("</table></div>\n");
    }

    private static (string Style, string Word) Word(GoalVerdict goal) => goal.IsReached switch
    {
        true => ("good", "yes"),
        false => ("bad", "no"),
        null => ("soft", "–"),
    };

    private static void WritePart(StringBuilder text, BenchmarkOutcome outcome)
    {
        text.Append(CultureInfo.InvariantCulture, $"<h2 id=\"{outcome.Benchmark.Name}\">{Encode(outcome.Benchmark.Title)}</h2>\n");
        if (outcome.Part is not { } part)
        {
            text.Append(CultureInfo.InvariantCulture, $"<p class=\"bad\">Not measured: {Encode(outcome.Failure ?? "unknown")}</p>\n");
            return;
        }

        text.Append(CultureInfo.InvariantCulture, $"<p>{Encode(part.Method)} <span class=\"soft\">(privy bench {outcome.Benchmark.Name}; {outcome.Elapsed.TotalSeconds:0} s)</span></p>\n");
        foreach (var table in part.Tables) WriteTable(text, table);
        foreach (var plot in part.Plots)
            text.Append(CultureInfo.InvariantCulture, $"<figure><img alt=\"{Encode(plot.Caption)}\" src=\"data:image/png;base64,{Convert.ToBase64String(plot.Png)}\"><figcaption>{Encode(plot.Caption)}</figcaption></figure>\n");
        if (part.Remarks.Count == 0) return;
        text.Append("<ul class=\"soft\">\n");
        foreach (var remark in part.Remarks) text.Append(CultureInfo.InvariantCulture, $"<li>{Encode(remark)}</li>\n");
        text.Append("</ul>\n");
    }

    private static void WriteTable(StringBuilder text, ReportTable table)
    {
        text.Append(CultureInfo.InvariantCulture, $"<h3>{Encode(table.Title)}</h3>\n<div class=\"scroll\"><table>\n<tr>");
        foreach (var column in table.Columns) text.Append(CultureInfo.InvariantCulture, $"<th>{Encode(column)}</th>");
        text.Append("</tr>\n");
        foreach (var row in table.Rows)
        {
            text.Append("<tr>");
            foreach (var cell in row) text.Append(CultureInfo.InvariantCulture, $"<td>{Encode(cell)}</td>");
            text.Append("</tr>\n");
        }

        text.Append("</table></div>\n");
    }

    private static string Encode(string text) => WebUtility.HtmlEncode(text);
}
