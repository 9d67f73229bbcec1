using System.Globalization;
using System.Text;
using Privy.Kvm;

namespace Privy.Hypervisor.Boot;

/// <summary>Counts of one vCPU's exits.</summary>
internal sealed class ExitCounters
{
    internal long Syscalls;
    internal long KernelExits;
    internal long KernelCalls;
    internal long HostRequests;
    internal long Kicks;
    internal long Exceptions;
    internal long RootLoads;

    internal void AddTo(ExitCounters sum)
    {
        Interlocked.Add(ref sum.Syscalls, Syscalls);
        Interlocked.Add(ref sum.KernelExits, KernelExits);
        Interlocked.Add(ref sum.KernelCalls, KernelCalls);
        Interlocked.Add(ref sum.HostRequests, HostRequests);
        Interlocked.Add(ref sum.Kicks, Kicks);
        Interlocked.Add(ref sum.Exceptions, Exceptions);
        Interlocked.Add(ref sum.RootLoads, RootLoads);
    }
}

/// <summary>The last few exits of a vCPU, kept for the report of a defect.</summary>
internal sealed class ExitLog
{
    private const int Length = 16;
    private readonly (ulong EnterRip, uint Reason, int Errno, ulong Mmio, ulong ExitRip)[] _ring = new (ulong, uint, int, ulong, ulong)[Length];
    private long _count;

    internal void Enter(ulong rip) => _ring[_count % Length].EnterRip = rip;

    internal void Exit(uint reason, int errno, ulong mmio, ulong rip)
    {
        ref var slot = ref _ring[_count % Length];
        slot.Reason = reason;
        slot.Errno = errno;
        slot.Mmio = mmio;
        slot.ExitRip = rip;
        _count++;
    }

    internal void Describe(StringBuilder text)
    {
        for (var i = Math.Max(0, _count - Length); i < _count; i++)
        {
            var (enter, reason, errno, mmio, rip) = _ring[i % Length];
            text.Append(CultureInfo.InvariantCulture, $"  exit {i}: entered at 0x{enter:x}, ");
            if (errno != 0)
                text.Append(CultureInfo.InvariantCulture, $"errno {errno}");
            else
                text.Append(CultureInfo.InvariantCulture, $"{KvmExit.Name(reason)} 0x{mmio:x}");
            text.AppendLine(CultureInfo.InvariantCulture, $" at 0x{rip:x}");
        }
    }
}
