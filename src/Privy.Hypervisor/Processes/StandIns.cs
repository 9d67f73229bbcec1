using System.Collections.Concurrent;
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
    // Most children of shells exec or end before: those are spared the cost. Nobody outside asks sooner for a child that he has just heard of.
    private static readonly long s_grace = Stopwatch.Frequency / 1000;

    private readonly Lock _lock = new();
    private readonly List<Entry> _entries = [];
    private readonly ConcurrentQueue<Action> _posted = [];
    private int _event = -1;

    private sealed class Entry(GuestProcess process, byte[] name, long due)
    {
        internal GuestProcess Process { get; } = process;

        internal byte[] Name { get; } = name;

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

    /// <summary>A forked child is about to run.</summary>
    /// <param name="process">The child.</param>
    /// <param name="name">The name of its thread.</param>
    internal void Add(GuestProcess process, byte[] name)
    {
        lock (_lock)
            _entries.Add(new Entry(process, name, Stopwatch.GetTimestamp() + s_grace));
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

    /// <summary>From any thread: has something done soon, on a thread that has the descriptors of the main process. It must not wait.</summary>
    internal void Post(Action action)
    {
        _posted.Enqueue(action);
        Notify();
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
        var limit = stackalloc long[2];
        while (true)
        {
            polled.Clear();
            polled.Add(new PollEntry { Descriptor = _event, Events = readable });
            var timeout = long.MaxValue;
            lock (_lock)
            {
                foreach (var entry in _entries)
                {
                    if (entry.StandIn is { } standIn)
                        polled.Add(new PollEntry { Descriptor = standIn.EndDescriptor, Events = readable });
                    else if (!entry.Refused)
                        timeout = Math.Min(timeout, Math.Max(0, entry.Due - Stopwatch.GetTimestamp()));
                }
            }

            (limit[0], limit[1]) = (0, (long)((double)timeout * 1_000_000_000 / Stopwatch.Frequency));
            fixed (PollEntry* at = CollectionsMarshal.AsSpan(polled))
                _ = HostSyscall.Raw(SyscallNumber.ppoll, (ulong)at, (ulong)polled.Count, timeout == long.MaxValue ? 0 : (ulong)limit);
            ulong count;
            _ = HostSyscall.RawQuick(HostCallNumber.Read, (ulong)_event, (ulong)&count, sizeof(ulong));
            while (_posted.TryDequeue(out var action))
                action();
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
            entry.StandIn = StandIn.Start(entry.Name, _event);
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
}
