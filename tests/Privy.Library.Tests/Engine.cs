namespace Privy.Library.Tests;

/// <summary>
/// A test of the engine this process has: the privileged one under <c>privy run</c>, else the portable one. It is reported as skipped, by name, where there is neither.
/// </summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class EngineFactAttribute : FactAttribute
{
    public EngineFactAttribute() => Skip = Engine.Missing;
}

/// <summary>A theory on the engine this process has.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class EngineTheoryAttribute : TheoryAttribute
{
    public EngineTheoryAttribute() => Skip = Engine.Missing;
}

internal static class Engine
{
    internal static SnapshotEngine Kind
    {
        get
        {
            using SnapshotRegion region = SnapshotRegion.Create(SnapshotRegion.PageSize, new() { AllowCopying = true });
            return region.Engine;
        }
    }

    /// <summary>Why there is no engine, or null.</summary>
    internal static string? Missing =>
        SnapshotRegion.IsAvailable(SnapshotEngine.Privileged, out _) || SnapshotRegion.IsAvailable(SnapshotEngine.Portable, out string? reason)
            ? null
            : reason;
}
