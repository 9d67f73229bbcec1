using Privy.Bench;
using Privy.Bench.Framework;
using Privy.Bench.Report;
using Privy.Bench.SnapshotLatency;

namespace Privy.Cli.Tests.Benchmarks;

public class FrameworkTests
{
    [Fact]
    public void Names_are_unique_and_fit_the_command_line() =>
        Assert.All(BenchmarkList.All.CountBy(b => b.Name), n =>
        {
            Assert.Equal(1, n.Value);
            Assert.Matches("^[a-z]+(-[a-z]+)*$", n.Key);
        });

    [Fact]
    public void Csv_quotes_what_would_break_a_line()
    {
        var csv = new CsvTable("a", "b");
        csv.Add("x,y \"z\"", 1.5);
        Assert.Equal("a,b\n\"x,y \"\"z\"\"\",1.5\n", csv.ToString());
        Assert.Throws<ArgumentException>(() => csv.Add(1));
    }

    [Fact]
    public void A_sample_shows_its_median_and_spread()
    {
        var sample = new Sample();
        Assert.Equal("–", sample.Text(Format.Whole));
        sample.Add([5]);
        Assert.Equal("5", sample.Text(Format.Whole));
        sample.Add([1, 2, 1000]);
        Assert.Equal(3.5, sample.Median);
        Assert.Equal("4 (1–1,000)", sample.Text(Format.Whole));
    }

    [Theory]
    [InlineData(431, "431 ns")]
    [InlineData(1_234, "1.23 µs")]
    [InlineData(12_345_678, "12.3 ms")]
    [InlineData(999_600, "1.00 ms")]
    [InlineData(1.5e9, "1.50 s")]
    public void Times_have_a_fitting_unit(double nanoseconds, string text) => Assert.Equal(text, Format.Time(nanoseconds));

    [Fact]
    public void The_model_is_the_line_through_the_points()
    {
        var line = LinearModel.Fit([(1, 12), (2, 14), (8, 26)]);
        Assert.Equal(10, line.Intercept, 6);
        Assert.Equal(2, line.Slope, 6);
        // A cost that falls with the size is taken as constant: no model says less than nothing for a terabyte.
        Assert.Equal(0, LinearModel.Fit([(1, 10), (2, 9), (4, 8)]).Slope);
    }

    [Fact]
    public void Report_escapes_text_and_names_what_failed()
    {
        var part = new BenchmarkPart { Method = "<b>", Csv = new CsvTable("a") };
        part.Tables.Add(new ReportTable("t", ["x"]) { Rows = { (string[])["1 < 2"] } });
        part.Plots.Add(new ReportPlot("", "c", [1, 2, 3]));
        var html = HtmlReport.Write(
            new ReportHead("m & m", "kvm", "abc", "cmd"),
            [new BenchmarkOutcome(new Fake("good", _ => part), part, null, TimeSpan.Zero), new BenchmarkOutcome(new Fake("bad", _ => part), null, "no <reason>", TimeSpan.Zero)],
            [new GoalVerdict("g", "≥ 1", "2", true)]);
        foreach (var wanted in (string[])["m &amp; m", "&lt;b&gt;", "1 &lt; 2", "data:image/png;base64,AQID", "Not measured: no &lt;reason&gt;", "<td class=\"good\">yes</td>"])
            Assert.Contains(wanted, html, StringComparison.Ordinal);
    }

    /// <summary>A failure does not end the run; an interruption does, and leaves the report of what was finished.</summary>
    [Fact]
    public void What_is_finished_is_written()
    {
        var folder = Directory.CreateTempSubdirectory("privy-test-").FullName;
        try
        {
            using var interruption = new CancellationTokenSource();
            var context = new BenchmarkContext { Self = [], PrivyLauncher = _ => [], Cancellation = interruption.Token };
            var runner = new BenchmarkRunner { Directory = folder, ReportName = "report.html", Head = new ReportHead("m", "k", "c", "x") };
            runner.Run(new Fake("good", _ =>
            {
                var part = new BenchmarkPart { Method = "", Csv = new CsvTable("a") };
                part.Csv.Add(1);
                return part;
            }), context);
            Assert.Equal("out of luck", runner.Run(new Fake("bad", _ => throw new BenchException("out of luck")), context).Failure);
            Assert.Throws<OperationCanceledException>(() => runner.Run(new Fake("slow", c =>
            {
                interruption.Cancel();
                c.Cancellation.ThrowIfCancellationRequested();
                throw new InvalidOperationException();
            }), context));

            var html = File.ReadAllText(runner.ReportPath);
            Assert.Contains("id=\"good\"", html, StringComparison.Ordinal);
            Assert.Contains("out of luck", html, StringComparison.Ordinal);
            Assert.DoesNotContain("slow", html, StringComparison.Ordinal);
            Assert.Equal("a\n1\n", File.ReadAllText(Path.Combine(runner.FilesPath, "good.csv")));
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private sealed class Fake(string name, Func<BenchmarkContext, BenchmarkPart> run) : IBenchmark
    {
        public string Name => name;

        public string Title => name;

        public string Description => name;

        public BenchmarkPart Run(BenchmarkContext context) => run(context);
    }
}
