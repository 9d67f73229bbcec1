using System.Runtime.InteropServices;
using Privy.Hypervisor.Syscalls;
using Privy.Kvm;

namespace Privy.Hypervisor.Host;

/// <summary>Makes stand-ins, and reads what they report. All of them write to one channel.</summary>
internal sealed unsafe class StandInMaker
{
    // A child that ends within the first costs hardly more than the making; one that ends within the second no execution of a program either.
    private const long DescriptorsShared = 1_000_000, MemoryShared = 20_000_000;

    private readonly StandInBlock _template;

    /// <summary>On a thread of the main process, before the first fork: children's tables must have the descriptors, too.</summary>
    internal StandInMaker()
    {
        const ulong unix = 1, sequencedPacketsCloseOnExec = 5 | 0x80000;
        var ends = stackalloc int[2];
        _ = HostSyscall.Checked(HostSyscall.Raw(SyscallNumber.socketpair, unix, sequencedPacketsCloseOnExec, 0, (ulong)ends), "socketpair", "AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC");
        Reports = OwnDescriptors.Adopt(ends[0]);
        var channel = OwnDescriptors.Adopt(ends[1]);
        var image = StandInImage.Create();
        if (image >= 0)
            image = OwnDescriptors.Adopt(image);
        _template = new StandInBlock
        {
            Channel = channel,
            Image = image,
            Above = Math.Max(channel, image) + 1,
            Parent = Environment.ProcessId,
            Signals = ulong.MaxValue,
            FirstNanoseconds = DescriptorsShared,
            SecondNanoseconds = MemoryShared,
            IdleSeconds = 1,
            Arguments = CopyArguments(),
        };
    }

    /// <summary>The hypervisor's end of the channel, readable when a stand-in has something to say.</summary>
    internal int Reports { get; }

    /// <summary>Makes one, with the calling thread's user and priority; null where the host refuses (a limit on processes).</summary>
    /// <param name="name">What ps shows, as a thread's name is stored.</param>
    internal StandIn? Make((ulong, ulong) name) => StandIn.Start(_template, name);

    /// <summary>Reads a message, if there is one.</summary>
    internal bool TryRead(out StandInMessage message)
    {
        const ulong doNotWait = 0x40;
        message = default;
        fixed (StandInMessage* at = &message)
            return HostSyscall.RawQuick(SyscallNumber.recvfrom, (ulong)Reports, (ulong)at, StandInMessage.Size, doNotWait) == StandInMessage.Size;
    }

    /// <summary>This process' arguments, in memory that stays: ps shows a forked child with those of its parent.</summary>
    private static byte** CopyArguments()
    {
        var text = File.ReadAllBytes("/proc/self/cmdline");
        var count = text.AsSpan().Count((byte)0);
        var array = (byte**)NativeMemory.AllocZeroed((nuint)((count + 1) * sizeof(byte*)) + (nuint)text.Length + 1);
        var next = (byte*)(array + count + 1);
        text.CopyTo(new Span<byte>(next, text.Length));
        for (var i = 0; i < count; i++)
        {
            array[i] = next;
            next += new ReadOnlySpan<byte>(next, int.MaxValue).IndexOf((byte)0) + 1;
        }

        return array;
    }
}
