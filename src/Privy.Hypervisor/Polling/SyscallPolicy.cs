namespace Privy.Hypervisor;

/// <summary>How system calls reach the host (<c>privy run --syscalls</c>).</summary>
public enum SyscallPolicy
{
    /// <summary>By measurement: posted to a polling thread where an exit costs much and there is a processor for it, by exits elsewhere.</summary>
    Auto,

    /// <summary>Each call leaves the guest.</summary>
    Exit,

    /// <summary>Posted to a polling thread wherever there is more than one processor.</summary>
    Ring,
}
