namespace Privy.Integration.Tests;

/// <summary>What a test needs beyond KVM.</summary>
[Flags]
public enum Needs
{
    None = 0,
    Compiler = 1,
    StaticLibrary = 2,
    Redis = 4,
    Perl = 8,
    Python = 16,
    Script = 32,
    /// <summary>Privy itself: nothing to test where programs are started directly.</summary>
    Privy = 64,
    /// <summary>The test does without KVM.</summary>
    NoKvm = 128,
    DotNet = 256,
    Sqlite = 512,
    Memcached = 1024,
    Nginx = 2048,
    Postgres = 4096,
    /// <summary>Rights to make devices and mounts that only the test's own processes see.</summary>
    Root = 8192,
    /// <summary>A control group that bounds memory.</summary>
    MemoryGroup = 16384,
}

/// <summary>A test that is reported as skipped, by name, where what it needs is missing.</summary>
/// <remarks>xunit 2.9 has no way to skip from within a test, so the decision falls when the attribute is made.</remarks>
[AttributeUsage(AttributeTargets.Method)]
public sealed class PrivyFactAttribute : FactAttribute
{
    public PrivyFactAttribute(Needs needs = Needs.None) => Skip = Requirements.WhatIsMissing(needs);
}

/// <summary>A theory that is reported as skipped, by name, where what it needs is missing.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class PrivyTheoryAttribute : TheoryAttribute
{
    public PrivyTheoryAttribute(Needs needs = Needs.None) => Skip = Requirements.WhatIsMissing(needs);
}

/// <summary>Finds out what this machine has.</summary>
public static class Requirements
{
    private static readonly Lazy<string?> Kvm = new(MissingKvm);
    private static readonly Lazy<string?> StaticLibrary = new(MissingStaticLibrary);

    /// <summary>True in continuous integration, where a missing Redis is a failure and not a reason to skip.</summary>
    public static bool IsContinuousIntegration => Environment.GetEnvironmentVariable("CI") is "true" or "1";

    /// <summary>The reason to skip, or null.</summary>
    public static string? WhatIsMissing(Needs needs)
    {
        if (needs.HasFlag(Needs.Privy) && Launcher.IsNative)
            return "PRIVY_CLI_MODE is native.";
        if (!needs.HasFlag(Needs.NoKvm) && !Launcher.IsNative && Kvm.Value is { } reason)
            return reason;
        if (needs.HasFlag(Needs.Compiler) && Find("cc") is null)
            return "No C compiler: there is no cc in PATH (apt-get install gcc libc6-dev).";
        if (needs.HasFlag(Needs.StaticLibrary) && StaticLibrary.Value is { } library)
            return library;
        if (needs.HasFlag(Needs.Redis) && !IsContinuousIntegration && Find("redis-server") is null)
            return "No Redis: there is no redis-server in PATH (apt-get install redis-server).";
        if (needs.HasFlag(Needs.Perl) && Find("perl") is null)
            return "There is no perl in PATH.";
        if (needs.HasFlag(Needs.Python) && !File.Exists("/usr/bin/python3"))
            return "There is no /usr/bin/python3.";
        if (needs.HasFlag(Needs.Script) && Find("script") is null)
            return "There is no script(1) in PATH to make a terminal with (apt-get install bsdutils).";
        if (needs.HasFlag(Needs.DotNet) && Find("dotnet") is null)
            return "There is no dotnet in PATH.";
        if (needs.HasFlag(Needs.Sqlite) && Find("sqlite3") is null)
            return "There is no sqlite3 in PATH (apt-get install sqlite3).";
        if (needs.HasFlag(Needs.Memcached) && Find("memcached") is null)
            return "There is no memcached in PATH (apt-get install memcached).";
        if (needs.HasFlag(Needs.Nginx) && Find("nginx") is null)
            return "There is no nginx in PATH (apt-get install nginx-light).";
        if (needs.HasFlag(Needs.Root) && !CanMount())
            return "The user may not make mounts of his own (unshare --mount, mknod): run the tests as root.";
        if (needs.HasFlag(Needs.MemoryGroup) && Abuse.MemoryGroup.Parent is null)
            return "No control group can be made that bounds memory.";
        if (needs.HasFlag(Needs.Postgres) && FindPostgres() is null)
            return "There is no PostgreSQL in /usr/lib/postgresql (apt-get install postgresql).";
        return null;
    }

    /// <summary>The folder of PostgreSQL's server programs, or null: Debian keeps it out of PATH.</summary>
    public static string? FindPostgres() =>
        Directory.Exists("/usr/lib/postgresql")
            ? Directory.GetDirectories("/usr/lib/postgresql").Select(version => Path.Combine(version, "bin")).Where(folder => File.Exists(Path.Combine(folder, "postgres"))).Order(StringComparer.Ordinal).LastOrDefault()
            : null;

    /// <summary>The full path of a program in PATH, or null.</summary>
    public static string? Find(string program) =>
        (Environment.GetEnvironmentVariable("PATH") ?? "/usr/bin:/bin").Split(':').Append("/usr/sbin")
            .Select(folder => Path.Combine(folder, program)).FirstOrDefault(File.Exists);

    /// <summary>The full path of a program that must be there.</summary>
    public static string Require(string program) =>
        Find(program) ?? throw new InvalidOperationException($"{program} is not installed, and this test cannot do without it.");

    private static readonly Lazy<bool> Mounts = new(() =>
        Find("unshare") is not null && Find("setpriv") is not null && Environment.UserName == "root"
        && ProcessRun.Run(["unshare", "--mount", "--propagation", "private", "mount", "-t", "tmpfs", "none", "/mnt"], "/").ExitCode == 0);

    private static bool CanMount() => Mounts.Value;

    private static string? MissingKvm()
    {
        if (!File.Exists("/dev/kvm"))
            return "No KVM: /dev/kvm does not exist.";
        try
        {
            using var device = File.Open("/dev/kvm", FileMode.Open, FileAccess.ReadWrite);
            return null;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return $"No KVM: /dev/kvm cannot be opened: {e.Message}";
        }
    }

    private static string? MissingStaticLibrary() =>
        new[] { "/usr/lib/x86_64-linux-gnu/libc.a", "/usr/lib64/libc.a", "/usr/lib/libc.a" }.Any(File.Exists) ? null : "No libc.a to link a static program with.";
}
