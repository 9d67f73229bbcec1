using System.Runtime.InteropServices;

namespace Privy.Kvm;

/// <summary>A call to the host kernel failed. The message names the call, the arguments that matter and the errno.</summary>
public sealed class KvmException : Exception
{
    /// <summary>Makes the exception for a failed call.</summary>
    public KvmException(string call, int errno)
        : base($"{call} failed: {Marshal.GetPInvokeErrorMessage(errno)} (errno {errno})")
    {
        Call = call;
        Errno = errno;
    }

    /// <summary>The call that failed, with its arguments.</summary>
    public string Call { get; }

    /// <summary>The error number, positive.</summary>
    public int Errno { get; }
}
