using System.Diagnostics;
using System.Runtime.InteropServices;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Signals;
using Privy.Hypervisor.Syscalls;

namespace Privy.Hypervisor.Processes;

/// <summary>
/// Gives each forked child that lives longer than an instant a process of the host (<see cref="StandIn"/>): `pgrep -P`, `ps` and `kill` from outside find and reach the child by
/// it. Its id is another than the one that the program knows the child by, which is its thread's.
/// </summary>
internal sealed unsafe class StandIns
{
    // Most children exec or end before. Those are spared the cost, and the fork the noise.
    private static readonly long s_grace = Stopwatch.Frequency * 3 / 1000;

    private readonly Lock _lock = new();
    private readonly List<Entry> _entries = [];
    private int _event = -1;

    private sealed class Entry(GuestProcess process, long due)
    {
        internal GuestProcess Process { get; } = process;

        internal long Due { get; } = due;

        internal StandIn? StandIn { get; set; }

        internal bool Refused { get; set; }

        internal bool Ended { get; set; }
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct PollEntry
    {
        internal int Descriptor;
        internal short Events;
        internal short Returned;
    }

    /// <summary>Begins. On a thread of the main process, before the first fork: children's tables must have the event's descriptor, too.</summary>
    internal void Start()
    {
        const ulong closeOnExecNonBlocking = 0x80800;
        _event = Kvm.OwnDescriptors.Adopt((int)HostSyscall.Checked(HostSyscall.RawQuick(HostCallNumber.Eventfd2, 0, closeOnExecNonBlocking), "eventfd2", "EFD_CLOEXEC | EFD_NONBLOCK"));
        new Thread(Watch, 256 * 1024) { IsBackground = true, Name = "privy-children" }.Start();
    }

    /// <summary>A forked child begins to run.</summary>
    internal void Add(GuestProcess process)
    {
        lock (_lock)
            _entries.Add(new Entry(process, Stopwatch.GetTimestamp() + s_grace));
        Notify();
    }

    /// <summary>A child ends, or becomes a native process.</summary>
    internal void Ended(GuestProcess process)
    {
        lock (_lock)
        {
            var index = _entries.FindIndex(entry => entry.Process == process);
            if (index < 0)
                return;
            var entry = _entries[index];
            entry.Ended = true;
            // Now, so that nobody outside finds it any more once the child's parent knows.
            if (entry.StandIn is { } standIn)
                standIn.Kill();
            else
                _entries.RemoveAt(index);
        }
    }

    private void Notify()
    {
        ulong one = 1;
        _ = HostSyscall.RawQuick(HostCallNumber.Write, (ulong)_event, (ulong)&one, sizeof(ulong));
    }

    private void Watch()
    {
        const short readable = 1;
        var polled = new List<PollEntry>();
        while (true)
        {
            polled.Clear();
            polled.Add(new PollEntry { Descriptor = _event, Events = readable });
            var timeout = -1;
            lock (_lock)
            {
                foreach (var entry in _entries)
                {
                    if (entry.StandIn is { } standIn)
                        polled.Add(new PollEntry { Descriptor = standIn.EndDescriptor, Events = readable });
                    else if (!entry.Refused)
                        timeout = Sooner(timeout, entry.Due);
                }
            }

            fixed (PollEntry* at = CollectionsMarshal.AsSpan(polled))
                _ = HostSyscall.Raw(SyscallNumber.poll, (ulong)at, (ulong)polled.Count, (ulong)timeout);
            ulong count;
            _ = HostSyscall.RawQuick(HostCallNumber.Read, (ulong)_event, (ulong)&count, sizeof(ulong));
            lock (_lock)
            {
                for (var i = _entries.Count - 1; i >= 0; i--)
                {
                    if (!Serve(_entries[i]))
                        _entries.RemoveAt(i);
                }
            }
        }
    }

    /// <summary>False: the entry is done.</summary>
    private bool Serve(Entry entry)
    {
        if (entry.StandIn is not { } standIn)
        {
            if (entry.Refused || Stopwatch.GetTimestamp() < entry.Due)
                return true;
            entry.StandIn = StandIn.Start(NameOf(entry.Process), _event);
            entry.Refused = entry.StandIn is null;
            return true;
        }

        while (standIn.TryTake(out var info))
            _ = entry.Process.Signals.Send(info);
        if (!standIn.TryReap())
            return true;
        standIn.Dispose();
        if (!entry.Ended)
            _ = entry.Process.Signals.Send(SignalInfo.FromProcess(Signal.SIGKILL, SignalInfo.SI_USER, 0, 0));
        return false;
    }

    private static byte[] NameOf(GuestProcess process)
    {
        try
        {
            return File.ReadAllBytes($"/proc/self/task/{process.Id}/comm").AsSpan().TrimEnd((byte)'\n').ToArray();
        }
        catch (IOException)
        {
            return "privy-child"u8.ToArray();
        }
    }

    private static int Sooner(int timeout, long due)
    {
        var left = (int)Math.Clamp(((due - Stopwatch.GetTimestamp()) * 1000 / Stopwatch.Frequency) + 1, 0, int.MaxValue);
        return timeout < 0 ? left : Math.Min(timeout, left);
    }
}
