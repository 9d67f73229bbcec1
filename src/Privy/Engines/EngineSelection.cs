using Privy.Engines.Copying;
using Privy.Engines.Portable;
using Privy.Engines.Privileged;

namespace Privy.Engines;

/// <summary>Which engine a region gets.</summary>
internal static class EngineSelection
{
    internal static ISnapshotEngine Create(long length, SnapshotRegionOptions options)
    {
        SnapshotEngine engine = options.Engine ?? Best(options);
        if (WhyNot(engine) is { } reason)
            throw new PlatformNotSupportedException(reason);
        return engine switch
        {
            SnapshotEngine.Privileged => new PrivilegedEngine(length, options.Populate),
            SnapshotEngine.Portable => new PortableEngine(length, options.Populate),
            SnapshotEngine.Copying => new CopyingEngine(length, options.Populate),
            _ => throw new ArgumentOutOfRangeException(nameof(options), engine, "There is no such engine."),
        };
    }

    internal static string? WhyNot(SnapshotEngine engine) => engine switch
    {
        SnapshotEngine.Privileged => PrivilegedEngine.WhyNot,
        SnapshotEngine.Portable => Userfaultfd.WhyNot,
        SnapshotEngine.Copying => OperatingSystem.IsLinux() ? null : "Regions need Linux.",
        _ => "There is no such engine.",
    };

    private static SnapshotEngine Best(SnapshotRegionOptions options)
    {
        if (WhyNot(SnapshotEngine.Privileged) is null)
            return SnapshotEngine.Privileged;
        if (WhyNot(SnapshotEngine.Portable) is not { } reason)
            return SnapshotEngine.Portable;
        if (options.AllowCopying)
            return SnapshotEngine.Copying;
        throw new PlatformNotSupportedException(
            reason + " SnapshotRegionOptions.AllowCopying lets snapshots be whole copies instead, if the program pauses its writers meanwhile.");
    }
}
