namespace Privy.Bench.Framework;

/// <summary>A benchmark of <c>privy bench</c>. A new one is a class with this interface and a line in <see cref="BenchmarkList"/>.</summary>
public interface IBenchmark
{
    /// <summary>The word on the command line and the name of its files: "fault-latency".</summary>
    string Name { get; }

    /// <summary>The heading of its part of the report.</summary>
    string Title { get; }

    /// <summary>One line for the help text.</summary>
    string Description { get; }

    /// <summary>Measures. Every comparison runs both sides, interleaved.</summary>
    /// <exception cref="BenchException">Nothing could be measured; the message says why and what to do.</exception>
    BenchmarkPart Run(BenchmarkContext context);
}
