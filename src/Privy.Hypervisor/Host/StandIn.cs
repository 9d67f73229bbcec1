using System.Collections.Concurrent;
using System.Runtime.InteropServices;
using Privy.Hypervisor.Signals;
using Privy.Hypervisor.Syscalls;

namespace Privy.Hypervisor.Host;

/// <summary>
/// A process of the host that stands for a forked child, so that the child has a process id of its own, and the world outside finds it (ps, pgrep), can signal it, and reads and sets what
/// Linux keeps for a process. It does nothing but wait for signals and hand each over; SIGKILL, which nobody can take, ends it, and its end is the message.
/// </summary>
/// <remarks>
/// It begins with the memory and the descriptors of this process shared, which is what makes it cheap enough for every fork: most children of shells and short queries end before
/// it has run at all. After a while, or when it is signalled, it executes a program of a few instructions (<see cref="StandInImage"/>) and has memory of its own from then on.
/// Stopped before, it keeps what it shares, but not for longer than the hypervisor lives: its process group has then lost its last parent, and the kernel lets such a group go on
/// (setpgid(2), orphaned process groups). Then it sees whose child it is not, and ends.
/// </remarks>
internal sealed unsafe class StandIn
{
    private static readonly ConcurrentBag<nint> FreeBlocks = [];

    private readonly Lock _lock = new();
    private readonly ManualResetEventSlim _settled = new();
    private volatile bool _hasOwnMemory;
    private readonly StandInBlock* _block;
    private bool _reaped;

    private StandIn(StandInBlock* block, int processId)
    {
        _block = block;
        ProcessId = processId;
    }

    /// <summary>Its process id.</summary>
    internal int ProcessId { get; }

    /// <summary>Becomes readable when it has ended; negative until <see cref="Follow"/>. A descriptor of the hypervisor.</summary>
    internal int EndDescriptor { get; private set; } = -1;

    /// <summary>Makes one, with the calling thread's user and priority.</summary>
    /// <param name="template">What all of them begin with.</param>
    /// <param name="name">What ps shows, as a thread's name is stored.</param>
    /// <returns>Null where the host refuses (a limit on processes).</returns>
    internal static StandIn? Start(in StandInBlock template, (ulong, ulong) name)
    {
        var block = (StandInBlock*)(FreeBlocks.TryTake(out var free) ? free : (nint)NativeMemory.AlignedAlloc((nuint)sizeof(StandInBlock), 64));
        *block = template;
        *((ulong, ulong)*)block->Name = name;
        block->Environment = block->Name;

        // Everything is blocked in it from its first instruction on: the handlers are this process' own.
        ulong all = ulong.MaxValue, old;
        HostSyscall.RawQuick(HostCallNumber.RtSigprocmask, 2, (ulong)&all, (ulong)&old, sizeof(ulong));
        var id = StandInCode.Clone(block);
        HostSyscall.RawQuick(HostCallNumber.RtSigprocmask, 2, (ulong)&old, 0, sizeof(ulong));
        if (id > 0)
        {
            // It does so itself, too, but may be stopped before.
            _ = HostSyscall.RawQuick(HostCallNumber.Setpgid, (ulong)id, (ulong)id);
            return new StandIn(block, (int)id);
        }

        FreeBlocks.Add((nint)block);
        return null;
    }

    /// <summary>Opens <see cref="EndDescriptor"/>. On a thread of the main process.</summary>
    internal void Follow()
    {
        const long pidfdOpen = 434;
        EndDescriptor = Kvm.OwnDescriptors.Make(() => (int)HostSyscall.Raw(pidfdOpen, (ulong)ProcessId));
    }

    /// <summary>Closes <see cref="EndDescriptor"/>.</summary>
    internal void Unfollow()
    {
        if (EndDescriptor < 0)
            return;
        Kvm.OwnDescriptors.Close(EndDescriptor);
        EndDescriptor = -1;
    }

    /// <summary>It has said something, or has ended: then there is no waiting for memory of its own any more.</summary>
    /// <param name="ownMemory">That its memory is its own. It says so before it hands on the first signal, or never.</param>
    internal void Settle(bool ownMemory)
    {
        _hasOwnMemory |= ownMemory;
        _settled.Set();
    }

    /// <summary>Waits until its memory is its own: only then is its oom_score_adj, which Linux keeps equal for all processes that share memory.</summary>
    /// <param name="stopped">It has been sent a signal to stop.</param>
    /// <param name="continued">It had to go on for that.</param>
    /// <returns>False when it has ended, or cannot.</returns>
    internal bool AwaitOwnMemory(bool stopped, out bool continued)
    {
        const int longest = 100_000, again = 100;
        continued = false;
        if (_hasOwnMemory || _reaped)
            return _hasOwnMemory && !_reaped;
        Nudge();
        for (var waited = 0; waited < longest; waited += again)
        {
            // Somebody outside may stop it at any time.
            if (stopped || IsStopped)
            {
                Send(Signal.SIGCONT);
                continued = true;
            }

            if (_settled.Wait(again))
                break;
            stopped = false;
        }

        return _hasOwnMemory;
    }

    /// <summary>What any signal does: makes it execute its program. The program hands this one on as a message that nobody heeds.</summary>
    private void Nudge()
    {
        lock (_lock)
        {
            if (_reaped)
                return;
            var info = StandInMessage.Nudge;
            _ = HostSyscall.RawQuick(HostCallNumber.RtSigqueueinfo, (ulong)ProcessId, (ulong)info.Number, (ulong)&info);
        }
    }

    /// <summary>True while it is stopped.</summary>
    internal bool IsStopped
    {
        get
        {
            const ulong byId = 1, stopped = 2, noHang = 1, noWait = 0x0100_0000, all = 0x4000_0000;
            var info = default(SignalInfo);
            lock (_lock)
            {
                // Never taken as news: so it says what holds now.
                return !_reaped && HostSyscall.RawQuick(SyscallNumber.waitid, byId, (ulong)ProcessId, (ulong)&info, stopped | noHang | noWait | all) == 0
                    && info.Number == Signal.SIGCHLD;
            }
        }
    }

    /// <summary>Sends it a signal: to stop it, to let it go on.</summary>
    internal void Send(int signal)
    {
        lock (_lock)
        {
            if (!_reaped)
                _ = HostSyscall.RawQuick(HostCallNumber.Kill, (ulong)ProcessId, (ulong)signal);
        }
    }

    /// <summary>Ends it. Its id stays taken until <see cref="TryReap"/>.</summary>
    internal void Kill() => Send(Signal.SIGKILL);

    /// <summary>True once it has ended, and is then no more.</summary>
    /// <param name="wait">Waits for its end; <see cref="Kill"/> comes first.</param>
    internal bool TryReap(bool wait = false)
    {
        // Whether an ordinary wait finds it depends on whether it has executed its program: "all" does in any case.
        const ulong noHang = 1, all = 0x4000_0000;
        const long wait4 = 61;
        lock (_lock)
        {
            if (_reaped)
                return true;
            long result;
            while ((result = HostSyscall.Raw(wait4, (ulong)ProcessId, 0, (wait ? 0 : noHang) | all)) == -Errno.EINTR)
            {
            }

            if (result == 0)
                return false;
            _reaped = true;
            FreeBlocks.Add((nint)_block);
            return true;
        }
    }
}
