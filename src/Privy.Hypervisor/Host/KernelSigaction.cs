using System.Runtime.InteropServices;

namespace Privy.Hypervisor.Host;

/// <summary><c>struct sigaction</c> as the x86-64 kernel has it (not libc's).</summary>
[StructLayout(LayoutKind.Sequential)]
internal unsafe struct KernelSigaction
{
    internal const ulong SaSiginfo = 4, SaRestorer = 0x04000000, SaOnstack = 0x08000000, SaRestart = 0x10000000;
    internal const ulong Default = 0, Ignore = 1;

    internal ulong Handler;
    internal ulong Flags;
    internal ulong Restorer;
    internal ulong Mask;

    internal static KernelSigaction Get(int signal)
    {
        KernelSigaction action;
        HostSyscall.Checked(HostSyscall.RawQuick(HostCallNumber.RtSigaction, (ulong)signal, 0, (ulong)&action, 8), "rt_sigaction", $"reading signal {signal}");
        return action;
    }

    internal static void Set(int signal, KernelSigaction action) =>
        HostSyscall.Checked(HostSyscall.RawQuick(HostCallNumber.RtSigaction, (ulong)signal, (ulong)&action, 0, 8), "rt_sigaction", $"signal {signal}, handler 0x{action.Handler:x}");
}
