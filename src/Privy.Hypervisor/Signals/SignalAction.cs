using System.Runtime.InteropServices;

namespace Privy.Hypervisor.Signals;

/// <summary>What the program wants done with a signal: <c>struct sigaction</c> as the kernel has it.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct SignalAction
{
    /// <summary>Length in bytes.</summary>
    public const int Size = 32;

    /// <summary>Values of <see cref="Handler"/> that are no handlers.</summary>
    public const ulong SIG_DFL = 0, SIG_IGN = 1;

    /// <summary>Flags (asm/signal.h).</summary>
    public const ulong SA_NOCLDSTOP = 1, SA_NOCLDWAIT = 2, SA_SIGINFO = 4, SA_RESTORER = 0x04000000, SA_ONSTACK = 0x08000000, SA_RESTART = 0x10000000,
        SA_NODEFER = 0x40000000, SA_RESETHAND = 0x80000000, SA_EXPOSE_TAGBITS = 0x800;

    /// <summary>The flags the kernel keeps; it clears others, so that programs can probe.</summary>
    public const ulong Supported = SA_NOCLDSTOP | SA_NOCLDWAIT | SA_SIGINFO | SA_ONSTACK | SA_RESTART | SA_NODEFER | SA_RESETHAND | SA_EXPOSE_TAGBITS | SA_RESTORER;

    /// <summary>Address of the handler, or SIG_DFL or SIG_IGN.</summary>
    public ulong Handler;

    /// <summary>Flags.</summary>
    public ulong Flags;

    /// <summary>Where the handler returns to; calls rt_sigreturn.</summary>
    public ulong Restorer;

    /// <summary>Blocked in addition while the handler runs.</summary>
    public ulong Mask;

    /// <summary>True if there is a handler.</summary>
    public readonly bool HasHandler => Handler > SIG_IGN;

    /// <summary>True if the flag is set.</summary>
    public readonly bool Has(ulong flag) => (Flags & flag) != 0;
}
