using System.Runtime.InteropServices;
using Privy.Hypervisor.Syscalls;

namespace Privy.Hypervisor.Host;

/// <summary>How long a thread wants to run at a time (sched_setattr(2), sched_runtime of an ordinary thread; Linux 6.12, ignored before).</summary>
internal static unsafe class SchedulingSlice
{
    /// <summary>
    /// A tenth of the kernel's own. A thread that asks for less at a time is let in sooner when it wakes (EEVDF picks the earlier deadline); its share
    /// of the processor stays what it was. Measured with Redis at 1,000 requests a second beside a snapshot's child: see docs/performance.md.
    /// </summary>
    private const ulong Short = 300_000;

    /// <summary>Asks for short slices for the calling thread. Nothing happens where the kernel or a policy does not allow it.</summary>
    internal static void PreferShort()
    {
        Attributes attributes;
        if (HostSyscall.RawQuick(SyscallNumber.sched_getattr, 0, (ulong)&attributes, (ulong)sizeof(Attributes)) != 0 || attributes.Policy != 0)
            return;
        attributes.Runtime = Short;
        _ = HostSyscall.RawQuick(SyscallNumber.sched_setattr, 0, (ulong)&attributes);
    }

    /// <summary>struct sched_attr, first version (linux/sched/types.h).</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct Attributes
    {
        internal uint Size;
        internal uint Policy;
        internal ulong Flags;
        internal int Nice;
        internal uint Priority;
        internal ulong Runtime;
        internal ulong Deadline;
        internal ulong Period;
    }
}
