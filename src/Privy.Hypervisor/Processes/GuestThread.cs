using Privy.Hypervisor.Boot;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Memory;
using Privy.Hypervisor.Polling;
using Privy.Hypervisor.Sites;
using Privy.Hypervisor.Syscalls;
using Privy.Kernel;

namespace Privy.Hypervisor.Processes;

/// <summary>One thread of the program: a vCPU and the host thread that runs it and makes its system calls.</summary>
internal sealed unsafe partial class GuestThread
{
    private readonly List<(ulong Address, ulong Length)> _outputs = [];
    private int _callsSinceFork;
    private CallRing? _ring;
    private WriteBehind? _writes;
    private DeferredSends? _sends;
    private SyscallSites? _sites;
    private bool _mayDeferSends, _tickArmed;
    private bool _exited;
    private StartState? _start;

    internal GuestThread(GuestProcess process, Vcpu vcpu)
    {
        Process = process;
        Vcpu = vcpu;
    }

    internal GuestProcess Process { get; }

    internal Vcpu Vcpu { get; }

    internal AddressSpace Space => Process.Space;

    internal Machine Machine => Process.Table.Machine;

    /// <summary>The host thread; set on it before the thread first runs.</summary>
    internal HostThread Host { get; private set; } = null!;

    /// <summary>Thread id as the program sees it: a first thread has its process' id.</summary>
    public int ThreadId => IsFirst ? Process.Id : Host.ThreadId;

    /// <summary>Thread id in the host.</summary>
    internal int HostThreadId => Host.ThreadId;

    /// <summary>The thread that a process began with.</summary>
    internal bool IsFirst { get; init; }

    /// <summary>CLONE_CHILD_CLEARTID: the word to clear and wake when the thread ends; 0: none.</summary>
    internal ulong ClearChildTid { get; set; }

    /// <summary>CLONE_CHILD_SETTID: where the child stores its id in its own memory; 0: nowhere.</summary>
    internal ulong SetChildTid { get; set; }

    /// <summary>Set once the thread's host thread runs the program.</summary>
    internal ManualResetEventSlim Started { get; } = new();

    /// <summary>The thread has left the program and takes no signals any more.</summary>
    internal bool Left { get; private set; }

    /// <summary>The process or the thread is to end; looked at before each return to the program.</summary>
    internal bool ExitRequested { get; set; }

    /// <summary>Makes the calling host thread this thread's.</summary>
    internal void Adopt()
    {
        Host = new HostThread();
        // On its way to the program or in it: not for it.
        ChildNews.KeepFromThisThread();
        Vcpu.HostThreadId = HostThreadId;
        LoadStartState();
        JoinSignals();
        if (Process == Process.Table.Main)
            SchedulingSlice.PreferShort();
        if (Process.Table.SyscallPolicy != SyscallPolicy.Exit)
        {
            _ring = new CallRing(Process == Process.Table.Main ? Process.Table.Poller : null, Vcpu, Process.Id, ThreadId);
            _writes = Space.IsMain ? null : WriteBehind.For(this);
            _mayDeferSends = Process == Process.Table.Main && ThreadId == Process.Id;
            _sites = _ring.Sites = _mayDeferSends ? Process.Table.Sites : null;
        }
    }

    /// <summary>Runs the program on the calling host thread until the thread ends.</summary>
    internal void Run()
    {
        Started.Set();
        try
        {
            while (!_exited)
            {
                // First forget the request, then look at what it was for: one that comes in between is seen the next time.
                Interlocked.And(ref Vcpu.Area->ExitRequest, 0);
                Host.ClearInterrupt();
                _sends?.FlushIfAsked();
                if (_sites is { IsDue: true })
                    RewriteSites(_sites);
                Process.AwaitRunning();
                if (ExitRequested || !DeliverSignals())
                    break;
                Step();
            }

            End();
        }
        catch (Exception e) when (e is not ThreadInterruptedException)
        {
            Defects.Die(e);
        }
    }

    /// <summary>From any thread: makes this one look at its signals and <see cref="ExitRequested"/> soon.</summary>
    internal void Wake()
    {
        Vcpu.RequestExit();
        Host.Interrupt();
    }

    /// <summary>After a snapshot of [first, end): copies the pages that calls in flight may still write, for the snapshot's sake (rule 2).</summary>
    internal void PrepareOutputsInFlight(Vcpu vcpu, ulong first, ulong end)
    {
        lock (_outputs)
        {
            foreach (var (address, length) in _outputs)
            {
                if (address < end && address + length > first)
                    _ = Space.PrepareWrite(vcpu, address, length);
            }
        }
    }

    /// <summary>Ends the thread after the present call.</summary>
    internal void ExitSoon() => _exited = true;

    private void Step()
    {
        VcpuExit exit;
        Space.Gate.Enter();
        try
        {
            exit = Vcpu.Run();
        }
        finally
        {
            Space.Gate.Leave();
        }

        if (exit != VcpuExit.Syscall)
            Process.Table.Sites?.Complete(Vcpu, TryRead);
        switch (exit)
        {
            case VcpuExit.Syscall:
                Syscall();
                (Space as SnapshotSpace)?.ForgetAccesses(Vcpu);
                break;
            case VcpuExit.Fault:
                RaiseFault();
                break;
            case VcpuExit.HostFault:
                RaiseHostFault();
                break;
            case VcpuExit.Exception:
                RaiseException();
                break;
            default:
                _writes?.Flush();
                if (_sends is not null && _sends.Kicked(tick: Volatile.Read(ref Vcpu.Area->ExitRequest) == 0))
                    ArmTick();
                (Space as SnapshotSpace)?.ForgetAccesses(Vcpu);
                break;
        }
    }

    private void Syscall()
    {
        _ring?.Exited();
        ref var registers = ref Vcpu.User;
        if (_sites is not null)
            NoteSites(_sites);
        var number = (long)registers.Rax;
        var arguments = new SyscallArguments(registers.Rdi, registers.Rsi, registers.Rdx, registers.R10, registers.R8, registers.R9);
        if (_callsSinceFork > 0 && --_callsSinceFork == 0)
            Machine.State->EarlyVcpu = 0;
        Process.AwaitSeparation();
        BeginCall(number);
        if (BeforeCall(number, arguments, out var result))
            result = SyscallDispatcher.Execute(this, number, arguments);
        _writes?.After(number, arguments, result);
        const ulong duplicate = 0, duplicateCloseOnExec = 1030; // F_DUPFD, F_DUPFD_CLOEXEC
        if (Space.IsMain && result >= 0 && (number is SyscallNumber.dup or SyscallNumber.dup2 or SyscallNumber.dup3
            || (number == SyscallNumber.fcntl && arguments.A1 is duplicate or duplicateCloseOnExec)))
        {
            Process.Table.Poller.Sends?.Duplicated((int)arguments.A0, (int)result);
        }

        if (_sends is not null && _sends.After(number, arguments, result))
            ArmTick();

        if (ThreadAttributes.IsChangedBy(number, arguments) && Process == Process.Table.Main)
            Process.Table.Ready.Diverge();
        Process.Table.Trace?.Write(this, number, arguments, result);
        EndCall(result);
        _ring?.Resumed();
    }

    /// <summary>Counts the place of this call, and that of the last one which the stub has answered since the one before.</summary>
    private void NoteSites(SyscallSites sites)
    {
        _ = sites.Note(Vcpu.Rip);
        _ = sites.Note(Vcpu.Ring->Rip);
        Vcpu.Ring->Rip = 0;
    }

    private void RewriteSites(SyscallSites sites)
    {
        // Known after the first call: where SYSCALL enters ring 0 it costs little, and the stub returns by SYSRET.
        if (Vcpu.SyscallEntersRing0 || !sites.Rewrite(Vcpu, ExpelOthers))
            _sites = _ring!.Sites = null;
    }

    private void ArmTick()
    {
        Host.ArmTick(DeferredSends.LongestDelay);
        _tickArmed = true;
    }

    /// <summary>Makes the writes that were put off before this call. False: it has a result already.</summary>
    private bool BeforeCall(long number, in SyscallArguments arguments, out long result)
    {
        result = 0;
        if (_mayDeferSends)
            BeginDeferringSends();
        if (_writes is not null)
            return _writes.Before(number, arguments, out result);
        if (_sends is not null)
        {
            // It would interrupt this call, which would begin to wait anew.
            if (_tickArmed)
                Host.DisarmTick();
            _tickArmed = false;
            return _sends.Before(number, arguments, out result);
        }

        if (Space.IsMain)
            Process.Table.Poller.Sends?.BeforeOther(number, arguments);
        return true;
    }

    /// <summary>At the first call: only now is known how SYSCALL works here.</summary>
    private void BeginDeferringSends()
    {
        _mayDeferSends = false;
        _sends = DeferredSends.For(Vcpu, () => Process.IgnoredSignals.Contains(Signals.Signal.SIGPIPE));
        _ring!.Sends = _sends;
        Process.Table.Poller.Begin(_sends);
    }

    private void End()
    {
        // Whoever hears of the end by the word cleared next must not find the thread any more.
        Left = true;
        _writes?.Flush();
        if (_sends is not null)
        {
            _sends.Dispose();
            // Another thread may get this vCPU and its ring.
            Process.Table.Poller.End(_sends);
        }

        _ring?.Close();
        ThreadSignals.Exit();
        LeaveRobustMutexes();
        ClearTid();
        Process.ThreadEnded(this);
        Host.Dispose();
    }

    private void ClearTid()
    {
        if (ClearChildTid == 0 || !TryWriteInt(ClearChildTid, 0))
            return;
        var address = ClearChildTid;
        lock (Space.Changes)
        {
            if (Space is SnapshotSpace snapshot && !snapshot.TryTranslateForFutex(Vcpu, ref address))
                return;
        }

        const ulong wake = 1;
        _ = HostSyscall.Raw(SyscallNumber.futex, address, wake, 1);
    }

    /// <summary>Gives up vCPU and place in the space. The vCPU leaves a snapshot's tables first, which may be dropped next.</summary>
    internal void ReleaseVcpu()
    {
        Space.Detach(Vcpu);
        Vcpu.LeaveSpace();
        Machine.ReturnVcpu(Vcpu);
    }
}
