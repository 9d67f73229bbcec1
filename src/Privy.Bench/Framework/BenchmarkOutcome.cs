namespace Privy.Bench.Framework;

/// <summary>What became of a benchmark in a run.</summary>
/// <param name="Benchmark">The benchmark.</param>
/// <param name="Part">Its results; null if it failed.</param>
/// <param name="Failure">Why it failed.</param>
/// <param name="Elapsed">How long it took.</param>
public sealed record BenchmarkOutcome(IBenchmark Benchmark, BenchmarkPart? Part, string? Failure, TimeSpan Elapsed);
