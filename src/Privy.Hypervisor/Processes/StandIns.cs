using System.Collections.Concurrent;
using System.Diagnostics;
using System.Runtime.InteropServices;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Signals;
using Privy.Hypervisor.Syscalls;

namespace Privy.Hypervisor.Processes;

/// <summary>
/// Gives each forked child a process of the host (<see cref="StandIn"/>), whose id is the child's: `pgrep -P`, `ps` and `kill` from outside find and reach the child by it. From the fork to the
/// child's end it lives, then it is a zombie, until the child's parent has waited: all that time nobody else can get the id.
/// </summary>
internal sealed unsafe class StandIns
{
    // Nobody outside kills sooner a child that he has just heard of, and most children of shells exec or end before: those are spared the cost of being looked after.
    private static readonly long s_grace = Stopwatch.Frequency / 1000;

    private readonly Lock _lock = new();
    private readonly List<Entry> _entries = [];
    private readonly List<StandIn> _leaving = [];
    private readonly ConcurrentQueue<Action> _posted = [];
    private StandInMaker _maker = null!;
    private ChildNews _news = null!;
    private int _event = -1;

    private sealed class Entry(GuestProcess process, StandIn standIn, long due)
    {
        internal GuestProcess Process { get; } = process;

        internal StandIn StandIn { get; } = standIn;

        internal long Due { get; } = due;

        /// <summary>It is looked after: its end is polled for, where the host allows.</summary>
        internal bool Followed { get; set; }

        internal bool Ended { get; set; }
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct PollEntry
    {
        internal int Descriptor;
        internal short Events;
        internal short Returned;
    }

    /// <summary>Begins. On a thread of the main process, before the first fork: children's tables must have the descriptors, too.</summary>
    internal void Start()
    {
        const ulong closeOnExecNonBlocking = 0x80800;
        _event = Kvm.OwnDescriptors.Adopt((int)HostSyscall.Checked(HostSyscall.RawQuick(HostCallNumber.Eventfd2, 0, closeOnExecNonBlocking), "eventfd2", "EFD_CLOEXEC | EFD_NONBLOCK"));
        ErrorOutput.AlsoKeep(_event);
        ErrorOutput.AlsoKeep(HostSignals.EventDescriptor);
        _maker = new StandInMaker();
        _news = new ChildNews(_event);
        new Thread(Watch, 256 * 1024) { IsBackground = true, Name = "privy-children" }.Start();
    }

    /// <summary>Makes one. Null where the host refuses; the child's id is then that of its thread, and nobody outside finds it.</summary>
    /// <param name="name">What ps shows, as a thread's name is stored.</param>
    internal StandIn? Make((ulong, ulong) name) => _maker.Make(name);

    /// <summary>On the thread that forks: there is a child. <see cref="Notify"/> follows.</summary>
    internal void Add(GuestProcess process, StandIn standIn)
    {
        lock (_lock)
            _entries.Add(new Entry(process, standIn, Stopwatch.GetTimestamp() + s_grace));
    }

    /// <summary>A child has ended.</summary>
    internal void Ended(GuestProcess process)
    {
        lock (_lock)
        {
            var index = _entries.FindIndex(entry => entry.Process == process);
            if (index < 0)
                return;
            var entry = _entries[index];
            entry.Ended = true;
            entry.StandIn.Settle(ownMemory: false);
            // Now, so that it is a zombie to the outside once the child's parent knows.
            entry.StandIn.Kill();
            if (entry.StandIn.EndDescriptor < 0)
                _entries.RemoveAt(index);
        }
    }

    /// <summary>The child's id is nobody's any more: its parent has waited, or nobody will.</summary>
    internal void Leave(StandIn standIn)
    {
        // Killed before, so mostly at once.
        if (standIn.TryReap())
            return;
        lock (_lock)
            _leaving.Add(standIn);
        Notify();
    }

    /// <summary>Makes the id free for another process of the host, which the child becomes.</summary>
    internal void Replace(GuestProcess process)
    {
        if (process.StandIn is not { } standIn)
            return;
        Ended(process);
        _ = standIn.TryReap(wait: true);
        process.StandIn = null;
    }

    /// <summary>True for the id of a child that is no more, but that the host still knows for a moment.</summary>
    internal bool IsLeaving(int id)
    {
        lock (_lock)
            return _leaving.Exists(standIn => standIn.ProcessId == id);
    }

    /// <summary>From any thread: has something done soon, on a thread that has the descriptors of the main process. It must not wait.</summary>
    internal void Post(Action action)
    {
        _posted.Enqueue(action);
        Notify();
    }

    /// <summary>Wakes the thread that looks after all of this.</summary>
    internal void Notify()
    {
        ulong one = 1;
        _ = HostSyscall.RawQuick(HostCallNumber.Write, (ulong)_event, (ulong)&one, sizeof(ulong));
    }

    private void Watch()
    {
        const short readable = 1;
        const int fixedEntries = 2;
        var polled = new List<PollEntry>();
        var followed = new List<Entry>();
        var limit = stackalloc long[2];
        while (true)
        {
            polled.Clear();
            followed.Clear();
            polled.Add(new PollEntry { Descriptor = _event, Events = readable });
            polled.Add(new PollEntry { Descriptor = _maker.Reports, Events = readable });
            var timeout = long.MaxValue;
            lock (_lock)
            {
                foreach (var entry in _entries)
                {
                    if (!entry.Followed)
                    {
                        timeout = Math.Min(timeout, Math.Max(0, entry.Due - Stopwatch.GetTimestamp()));
                    }
                    else if (entry.StandIn.EndDescriptor >= 0)
                    {
                        polled.Add(new PollEntry { Descriptor = entry.StandIn.EndDescriptor, Events = readable });
                        followed.Add(entry);
                    }
                }

                if (_leaving.Count > 0)
                    timeout = Math.Min(timeout, s_grace);
            }

            (limit[0], limit[1]) = (0, (long)((double)timeout * 1_000_000_000 / Stopwatch.Frequency));
            fixed (PollEntry* at = CollectionsMarshal.AsSpan(polled))
                _ = HostSyscall.Raw(SyscallNumber.ppoll, (ulong)at, (ulong)polled.Count, timeout == long.MaxValue ? 0 : (ulong)limit);
            ulong count;
            _ = HostSyscall.RawQuick(HostCallNumber.Read, (ulong)_event, (ulong)&count, sizeof(ulong));
            while (_posted.TryDequeue(out var action))
                action();
            var stopped = _news.Take() ? FindStopped() : [];
            // After that: a stand-in that was stopped has said before what it had got before.
            while (_maker.TryRead(out var message))
                Take(message);
            foreach (var process in stopped)
                process.StopWithStandIn();
            for (var i = 0; i < followed.Count; i++)
            {
                if (polled[i + fixedEntries].Returned != 0)
                    EndOf(followed[i]);
            }

            var now = Stopwatch.GetTimestamp();
            lock (_lock)
            {
                foreach (var entry in _entries)
                {
                    if (entry.Followed || now < entry.Due)
                        continue;
                    entry.StandIn.Follow();
                    entry.Followed = true;
                }

                _ = _leaving.RemoveAll(standIn => standIn.TryReap());
            }
        }
    }

    private void Take(in StandInMessage message)
    {
        Entry? entry;
        var id = message.ProcessId;
        lock (_lock)
            entry = _entries.Find(candidate => candidate.StandIn.ProcessId == id);
        if (entry is null || entry.Ended)
            return;
        entry.StandIn.Settle(message.Info.Number == 0);
        // What the program itself sends has reached its processes without the host: to a group, to all, it has gone both ways.
        if (message.Info.Number != 0 && (message.Info.Code > 0 || message.Info.ProcessId != Environment.ProcessId))
            entry.Process.SendFromStandIn(message.Info);
    }

    private List<GuestProcess> FindStopped()
    {
        lock (_lock)
            return [.. _entries.Where(entry => !entry.Ended && entry.StandIn.IsStopped).Select(entry => entry.Process)];
    }

    /// <summary>A stand-in has ended: with its child, or killed from outside, and then its child is.</summary>
    private void EndOf(Entry entry)
    {
        lock (_lock)
        {
            entry.StandIn.Settle(ownMemory: false);
            entry.StandIn.Unfollow();
            _ = _entries.Remove(entry);
        }

        if (!entry.Ended)
            _ = entry.Process.Signals.Send(SignalInfo.FromProcess(Signal.SIGKILL, SignalInfo.SI_USER, 0, 0));
    }
}
