using System.Runtime.InteropServices;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Syscalls;
using Privy.Kvm;

namespace Privy.Hypervisor.Polling;

/// <summary>
/// What a connection had no room for after the program was told that it was written. A thread sends it as room comes up; until then the program's further writes to the
/// connection find it full. The connection is held by a descriptor of the hypervisor's own, so that the program may close its one, as it may with bytes in
/// the kernel's buffer.
/// </summary>
internal sealed unsafe class SendRemainders : IDisposable
{
    private const ulong DontWait = 0x40, NoSignal = 0x4000; // MSG_*
    private const short PollOut = 4;
    private static readonly TimeSpan s_patienceAtTheEnd = TimeSpan.FromSeconds(10);

    private readonly Lock _lock = new();
    private readonly ManualResetEventSlim _wanted = new();
    private readonly List<Remainder> _all = [];
    private Thread? _thread;

    /// <summary>Whether any connection waits for room.</summary>
    internal bool Any { get; private set; }

    /// <summary>Takes over what could not be sent on a connection.</summary>
    internal void Add(int descriptor, ReadOnlySpan<byte> bytes)
    {
        const ulong duplicate = 1030; // F_DUPFD_CLOEXEC
        var own = OwnDescriptors.Make(() => (int)HostSyscall.Raw(SyscallNumber.fcntl, (ulong)descriptor, duplicate, 0));
        if (own < 0)
        {
            // The program's own limit of descriptors; what the kernel has taken stays, the connection ends there.
            const ulong both = 2;
            _ = HostSyscall.Raw(SyscallNumber.shutdown, (ulong)descriptor, both);
            return;
        }

        var remainder = new Remainder { Program = descriptor, Own = own };
        remainder.Bytes.AddRange(bytes);
        lock (_lock)
        {
            _all.Add(remainder);
            Any = true;
            if (_thread is null)
            {
                _thread = new Thread(SendAll, 256 * 1024) { IsBackground = true, Name = "privy-sends" };
                _thread.Start();
            }
        }

        _wanted.Set();
    }

    /// <summary>Bytes for a connection that waits for room. False: it does not.</summary>
    internal bool TryAppend(int descriptor, ReadOnlySpan<byte> bytes)
    {
        if (!Any)
            return false;
        lock (_lock)
        {
            if (Find(descriptor) is not { } remainder)
                return false;
            remainder.Bytes.AddRange(bytes);
            return true;
        }
    }

    /// <summary>Whether the program may write to a connection: nothing is left to be sent before.</summary>
    internal bool TrySend(int descriptor)
    {
        if (!Any)
            return true;
        lock (_lock)
            return Find(descriptor) is not { } remainder || Send(remainder);
    }

    /// <summary>The program ends its side of a connection: that comes after what is left. False: nothing is.</summary>
    internal bool ShutDownWhenSent(int descriptor)
    {
        if (!Any)
            return false;
        lock (_lock)
        {
            if (Find(descriptor) is not { } remainder || Send(remainder))
                return false;
            remainder.ShutDown = true;
            return true;
        }
    }

    /// <summary>The program closes its descriptor, or puts another file in its place.</summary>
    internal void Closed(int descriptor)
    {
        if (!Any)
            return;
        lock (_lock)
        {
            if (Find(descriptor) is { } remainder)
                remainder.Program = -1;
        }
    }

    /// <summary>The program ends: as a kernel would, goes on for a while with what has not been sent.</summary>
    public void Dispose()
    {
        var end = DateTime.UtcNow + s_patienceAtTheEnd;
        while (Any && DateTime.UtcNow < end)
            Thread.Sleep(1);
    }

    private Remainder? Find(int descriptor) => _all.Find(r => r.Program == descriptor);

    /// <summary>Sends what there is room for; true when that was all, or the connection has failed, which the program learns as it receives.</summary>
    private bool Send(Remainder remainder)
    {
        var bytes = CollectionsMarshal.AsSpan(remainder.Bytes);
        long result;
        fixed (byte* at = bytes)
        {
            do
                result = HostSyscall.Raw(SyscallNumber.sendto, (ulong)remainder.Own, (ulong)at, (ulong)bytes.Length, DontWait | NoSignal);
            while (result == -Errno.EINTR);
        }

        if (result == -Errno.EAGAIN)
            return false;
        remainder.Bytes.RemoveRange(0, result > 0 ? (int)result : bytes.Length);
        if (remainder.Bytes.Count > 0)
            return false;
        const ulong write = 1;
        if (remainder.ShutDown)
            _ = HostSyscall.Raw(SyscallNumber.shutdown, (ulong)remainder.Own, write);
        _ = _all.Remove(remainder);
        OwnDescriptors.Close(remainder.Own);
        Any = _all.Count > 0;
        return true;
    }

    private void SendAll()
    {
        while (true)
        {
            _wanted.Wait();
            PollEntry[] polled;
            lock (_lock)
            {
                foreach (var remainder in _all.ToArray())
                    _ = Send(remainder);
                polled = [.. _all.Select(r => new PollEntry { Descriptor = r.Own, Events = PollOut })];
                if (polled.Length == 0)
                {
                    _wanted.Reset();
                    continue;
                }
            }

            // Short, as others may have come meanwhile.
            const ulong milliseconds = 20;
            fixed (PollEntry* at = polled)
                _ = HostSyscall.Raw(SyscallNumber.poll, (ulong)at, (ulong)polled.Length, milliseconds);
        }
    }

    /// <summary>struct pollfd (poll(2)).</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct PollEntry
    {
        internal int Descriptor;
        internal short Events;
        internal short Returned;
    }

    private sealed class Remainder
    {
        internal int Program { get; set; }

        internal required int Own { get; init; }

        internal bool ShutDown { get; set; }

        internal List<byte> Bytes { get; } = [];
    }
}
