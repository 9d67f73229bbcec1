namespace Privy.Hypervisor;

/// <summary>A program that runs as the guest of a virtual machine of its own.</summary>
public static class PrivilegedProcess
{
    /// <summary>Runs a program to its end and returns the exit status a shell would see (128 + n if signal n ended it).</summary>
    public static int Run(RunOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        throw new NotImplementedException("The KVM engine is not part of this build.");
    }
}
