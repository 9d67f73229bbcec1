namespace Privy.Kvm.Tests;

/// <summary>A test that is reported as skipped, by name, where <c>/dev/kvm</c> cannot be opened.</summary>
/// <remarks>xunit 2.9 has no way to skip from within a test, so the decision falls when the attribute is made.</remarks>
[AttributeUsage(AttributeTargets.Method)]
public sealed class KvmFactAttribute : FactAttribute
{
    public KvmFactAttribute() => Skip = Missing();

    private static string? Missing()
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
}

/// <summary>A test that is reported as skipped, by name, where C programs cannot be compiled against <c>linux/kvm.h</c>.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class HeaderFactAttribute : FactAttribute
{
    public HeaderFactAttribute()
    {
        if (Compiler is null)
            Skip = "No C compiler: there is no cc in PATH (apt-get install gcc libc6-dev).";
        else if (!File.Exists("/usr/include/linux/kvm.h"))
            Skip = "No /usr/include/linux/kvm.h (apt-get install linux-libc-dev).";
    }

    internal static string? Compiler { get; } = (Environment.GetEnvironmentVariable("PATH") ?? "/usr/bin:/bin").Split(':')
        .Select(folder => Path.Combine(folder, "cc")).FirstOrDefault(File.Exists);
}
