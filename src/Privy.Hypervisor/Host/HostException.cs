using System.Runtime.InteropServices;

namespace Privy.Hypervisor.Host;

/// <summary>A system call of the host failed in a way the hypervisor cannot go on from.</summary>
public sealed class HostException : Exception
{
    /// <summary>The call that failed.</summary>
    public string Call { get; } = "";

    /// <summary>Its error number, positive.</summary>
    public int ErrorNumber { get; }

    /// <summary>Describes a failed call.</summary>
    /// <param name="call">Its name.</param>
    /// <param name="errorNumber">Positive error number.</param>
    /// <param name="arguments">The arguments that matter.</param>
    public HostException(string call, int errorNumber, string arguments)
        : base($"{call} failed: {Marshal.GetPInvokeErrorMessage(errorNumber)} (errno {errorNumber}; {arguments}).")
    {
        Call = call;
        ErrorNumber = errorNumber;
    }

    /// <summary>An exception without details.</summary>
    public HostException()
    {
    }

    /// <summary>An exception with a message alone.</summary>
    public HostException(string message) : base(message)
    {
    }

    /// <summary>An exception with a message and its cause.</summary>
    public HostException(string message, Exception innerException) : base(message, innerException)
    {
    }
}
