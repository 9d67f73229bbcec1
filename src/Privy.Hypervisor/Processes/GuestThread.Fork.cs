using System.Diagnostics;
using Privy.Hypervisor.Boot;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Memory;
using Privy.Kernel;
using Privy.Kvm;

namespace Privy.Hypervisor.Processes;

/// <summary>clone(2), fork(2) and vfork(2): new threads, and children that run on a snapshot.</summary>
internal sealed unsafe partial class GuestThread
{
    private static class CloneFlags
    {
        internal const ulong SignalMask = 0xFF;
        internal const ulong Memory = 0x100;
        internal const ulong Files = 0x400;
        internal const ulong Vfork = 0x4000;
        internal const ulong Thread = 0x10000;
        internal const ulong SetTls = 0x80000;
        internal const ulong ParentSetTid = 0x100000;
        internal const ulong ChildClearTid = 0x200000;
        internal const ulong ChildSetTid = 0x1000000;
        internal const ulong Namespaces = 0x7E020000;
    }

    /// <summary>clone(2).</summary>
    internal long Clone(ulong flags, ulong stack, ulong parentTid, ulong childTid, ulong tls)
    {
        if ((flags & CloneFlags.Namespaces) != 0)
            return -Errno.EPERM;
        if ((flags & CloneFlags.Thread) != 0)
            return (flags & CloneFlags.Memory) != 0 ? StartThread(flags, stack, parentTid, childTid, tls) : -Errno.EINVAL;
        if ((flags & CloneFlags.Memory) != 0 && (flags & CloneFlags.Vfork) == 0)
            return -Errno.ENOSYS; // processes that share memory and run side by side
        return (flags & CloneFlags.Files) != 0 ? -Errno.ENOSYS : Fork(flags, stack, parentTid, childTid, tls);
    }

    /// <summary>Gives a snapshot's tables and frames back, on this vCPU, which leaves the snapshot for it.</summary>
    internal void ReleaseSnapshot()
    {
        var space = Space;
        space.Detach(Vcpu);
        Vcpu.LeaveSpace();
        if (space is SnapshotSpace snapshot && !Process.SharesSpace)
            snapshot.Dispose(Vcpu);
    }

    private long StartThread(ulong flags, ulong stack, ulong parentTid, ulong childTid, ulong tls)
    {
        Vcpu vcpu;
        try
        {
            vcpu = Machine.TakeVcpu();
        }
        catch (KvmException)
        {
            return -Errno.EAGAIN;
        }

        var thread = new GuestThread(Process, vcpu);
        CopyStateTo(thread, stack, (flags & CloneFlags.SetTls) != 0 ? tls : null);
        thread.InheritSignals(this);
        thread.InheritHost(this);
        using var known = new ManualResetEventSlim();
        using var go = new ManualResetEventSlim();
        const int stackBytes = 512 * 1024;
        var host = new Thread(() =>
        {
            thread.Adopt();
            thread.TakeHostName();
            known.Set();
            go.Wait();
            thread.Run();
        }, stackBytes) { IsBackground = true, Name = "privy-thread" };
        try
        {
            host.Start();
        }
        catch (OutOfMemoryException)
        {
            thread.ReleaseVcpu();
            return -Errno.EAGAIN;
        }

        known.Wait();
        Space.Attach(vcpu);
        Process.Add(thread);
        var tid = thread.ThreadId;
        if ((flags & CloneFlags.ParentSetTid) != 0)
            _ = TryWriteInt(parentTid, tid);
        if ((flags & CloneFlags.ChildSetTid) != 0)
            _ = TryWriteInt(childTid, tid);
        if ((flags & CloneFlags.ChildClearTid) != 0)
            thread.ClearChildTid = childTid;
        go.Set();
        // Both events must outlive the new thread's use of them.
        thread.Started.Wait();
        return tid;
    }

    private long Fork(ulong flags, ulong stack, ulong parentTid, ulong childTid, ulong tls)
    {
        var sharesMemory = (flags & CloneFlags.Memory) != 0;
        var vfork = (flags & CloneFlags.Vfork) != 0;
        var fromMain = Process == Process.Table.Main;
        using var fork = Process.Table.BeginFork(Process);
        // Taken before, so that the child has what the handler leaves.
        if (ThreadSignals.HasDeliverable)
            return -Errno.ERESTARTNOINTR;

        ChildRunner runner;
        try
        {
            runner = Process.Table.Ready.Take(fromMain);
        }
        catch (Exception e) when (e is KvmException or OutOfMemoryException)
        {
            return -Errno.EAGAIN;
        }

        // A child of vfork is about to exec, and nobody outside has heard of it by then. What it becomes has its id, or else is reached by that of its stand-in: a thread's would be the whole
        // hypervisor's to the host.
        if (!sharesMemory || !NativeSpawn.CanChooseId)
            runner.Begin(Process.Table.StandIns, CurrentName());
        using var vforkDone = vfork ? new ManualResetEventSlim() : null;
        AddressSpace space = Space;
        if (!sharesMemory)
        {
            var index = TakeSnapshot(0, ulong.MaxValue, () => Machine.Kernel.CreateSnapshot(Vcpu, Space.Index));
            // Enough for what a program does in and around fork itself; later writes are the load's, different each time.
            _callsSinceFork = 6;
            if (index < 0)
            {
                runner.Abandon();
                return index;
            }

            space = new SnapshotSpace(Machine, Process.Table.MainSpace, Space, (int)index);
        }

        var child = new GuestProcess(Process.Table, Process, space, Process.ProgramPath)
        {
            SharesSpace = sharesMemory,
            FirstHostThread = runner.ThreadId,
            Group = Process.Group,
            Session = Process.Session,
            ExitSignal = (int)(flags & CloneFlags.SignalMask),
            VforkDone = vforkDone,
        };
        var thread = new GuestThread(child, runner.Vcpu) { IsFirst = true };
        CopyStateTo(thread, stack, (flags & CloneFlags.SetTls) != 0 ? tls : null);
        thread.InheritSignals(this);
        thread.InheritHost(this);
        space.Attach(runner.Vcpu);
        // As late as may be: it is made meanwhile.
        child.StandIn = runner.TakeStandIn();
        child.Id = child.StandIn?.ProcessId ?? runner.ThreadId;
        child.SetSignals(Process.Signals.Fork(child.Id));
        child.Add(thread);
        runner.Child = thread;

        fork.Complete(child);
        if (child.StandIn is { } standIn)
            Process.Table.StandIns.Add(child, standIn);
        var id = child.Id;
        if ((flags & CloneFlags.ParentSetTid) != 0)
            _ = TryWriteInt(parentTid, id);
        if ((flags & CloneFlags.ChildSetTid) != 0)
            thread.SetChildTid = childTid;
        if ((flags & CloneFlags.ChildClearTid) != 0)
            thread.ClearChildTid = childTid;
        Process.BeginSeparation(runner);
        runner.Go(RunChild);
        if (vfork)
            vforkDone!.Wait();
        return id;
    }

    private static void RunChild(ChildRunner runner)
    {
        if (runner.Child is not { } thread)
            return;
        // Here, so that fork need not wake more than one thread.
        var table = thread.Process.Table;
        if (thread.Process.StandIn is not null)
            table.StandIns.Notify();
        if (thread.Process.Parent == table.Main)
            table.Ready.Replenish();
        thread.Adopt();
        thread.TakeHostName();
        thread.TakeHostState();
        if (thread.SetChildTid != 0)
            _ = thread.TryWriteInt(thread.SetChildTid, thread.ThreadId);
        thread.Run();
    }

    /// <summary>Takes a snapshot of a part of this thread's space. Index of the new space, or a negative errno.</summary>
    /// <param name="first">First address of the part.</param>
    /// <param name="end">One past its last.</param>
    /// <param name="take">Calls the kernel.</param>
    private long TakeSnapshot(ulong first, ulong end, Func<long> take)
    {
        lock (Space.Changes)
        {
            var start = Stopwatch.GetTimestamp();
            // At the snapshot's instant no vCPU of the space may be in the program: each must flush before it writes again.
            Space.Gate.Close(ExpelOthers);
            try
            {
                Space.PrepareSnapshot(first, end);
                var index = take();
                if (index == -Errno.EBUSY)
                {
                    Space.Gate.AwaitEmpty();
                    index = take();
                }

                if (index < 0)
                    return index;
                foreach (var thread in Process.Table.ThreadsIn(Space))
                    thread.PrepareOutputsInFlight(Vcpu, first, end);
                Process.Table.Snapshots.Add((long)Stopwatch.GetElapsedTime(start).TotalNanoseconds);
                return index;
            }
            finally
            {
                Space.Gate.Open();
            }
        }
    }

    private void ExpelOthers()
    {
        foreach (var thread in Process.Table.ThreadsIn(Space))
        {
            if (thread != this)
                thread.Vcpu.RequestExit();
        }
    }

    /// <summary>Takes this thread's registers for a new thread, which loads them on its own host thread.</summary>
    private void CopyStateTo(GuestThread thread, ulong stack, ulong? tls)
    {
        var (fs, gs) = Vcpu.Bases;
        var state = new StartState { Registers = Vcpu.User, FsBase = tls ?? fs, GsBase = gs };
        state.Registers.Rax = 0;
        if (stack != 0)
            state.Registers.Rsp = stack;
        fixed (byte* vectors = state.Vectors)
            Vcpu.Cpu.GetXsave((XsaveArea*)vectors);
        thread._start = state;
    }

    private void LoadStartState()
    {
        if (_start is not { } state)
            return;
        _start = null;
        Vcpu.Cpu.EnsureDescriptor();
        Vcpu.Start(state.Registers, state.FsBase, state.GsBase, Space.Index);
        fixed (byte* vectors = state.Vectors)
            Vcpu.Cpu.SetXsave((XsaveArea*)vectors);
    }

    private sealed class StartState
    {
        internal GuestRegisters Registers;

        internal ulong FsBase { get; init; }

        internal ulong GsBase { get; init; }

        internal byte[] Vectors { get; } = new byte[XsaveArea.Length];
    }
}
