using System.Diagnostics;
using Privy.Hypervisor.Boot;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Memory;
using Privy.Hypervisor.Syscalls;
using Privy.Kvm;

namespace Privy.Hypervisor.Processes;

/// <summary>A host thread, with its vCPU, that waits to become a forked child.</summary>
internal sealed class ChildRunner
{
    private readonly ManualResetEventSlim _begun = new();
    private readonly ManualResetEventSlim _go = new();
    private readonly ManualResetEventSlim _known = new();
    private readonly ManualResetEventSlim _separated = new();
    private Action<ChildRunner>? _body;
    private volatile int _error;
    private StandIns? _standIns;
    private (ulong, ulong) _name;
    private StandIn? _standIn;
    private int _claimed;
    private volatile bool _made;

    private static readonly long s_longestSpin = Environment.ProcessorCount == 1 ? 0 : Stopwatch.Frequency / 5000;

    private readonly Machine _machine;

    private ChildRunner(Machine machine)
    {
        _machine = machine;
        Vcpu = machine.TakeVcpu();
    }

    internal Vcpu Vcpu { get; }

    /// <summary>The guest thread it is to run; set before <see cref="Go"/>.</summary>
    internal GuestThread? Child { get; set; }

    /// <summary>Id of the thread in the host.</summary>
    internal int ThreadId { get; private set; }

    /// <summary>
    /// Starts the thread. It inherits the calling thread's descriptor table and working directory, shared until
    /// <see cref="Go"/>.
    /// </summary>
    internal static ChildRunner Create(Machine machine)
    {
        var runner = new ChildRunner(machine);
        const int stackBytes = 512 * 1024;
        var thread = new Thread(runner.Main, stackBytes) { IsBackground = true, Name = "privy-child" };
        try
        {
            thread.Start();
        }
        catch (OutOfMemoryException)
        {
            machine.ReturnVcpu(runner.Vcpu);
            throw;
        }

        runner._known.Wait();
        return runner;
    }

    /// <summary>
    /// A fork has begun: has the child's stand-in made on this thread, which would otherwise be woken by <see cref="Go"/>, while the forking thread makes the snapshot.
    /// </summary>
    internal void Begin(StandIns standIns, (ulong, ulong) name)
    {
        _standIns = standIns;
        _name = name;
        _begun.Set();
    }

    /// <summary>The stand-in; null without <see cref="Begin"/>, or where the host refuses one. Makes it here if this thread has not got a processor yet.</summary>
    internal StandIn? TakeStandIn()
    {
        if (_standIns is not { } standIns)
            return null;
        if (Interlocked.Exchange(ref _claimed, 1) == 0)
            return standIns.Make(_name);
        for (var spin = default(SpinWait); !_made;)
            spin.SpinOnce();
        return _standIn;
    }

    /// <summary>Lets the child run, once the thread has copies of its own of descriptors, working directory and umask.</summary>
    internal void Go(Action<ChildRunner> body)
    {
        _body = body;
        _go.Set();
        _begun.Set();
    }

    /// <summary>Waits until it has them; until then the parent must not change its own.</summary>
    /// <exception cref="InvalidOperationException">The kernel has refused.</exception>
    internal void AwaitSeparation()
    {
        _separated.Wait();
        if (_error < 0)
            throw new InvalidOperationException($"unshare(CLONE_FILES | CLONE_FS) for a child failed with errno {-_error}");
    }

    /// <summary>There will be no child: the thread ends.</summary>
    internal void Abandon()
    {
        if (TakeStandIn() is { } standIn)
        {
            standIn.Kill();
            _standIns!.Leave(standIn);
        }

        _machine.ReturnVcpu(Vcpu);
        _go.Set();
        _begun.Set();
    }

    private void Main()
    {
        ThreadId = (int)HostSyscall.RawQuick(SyscallNumber.gettid);
        _known.Set();
        _begun.Wait();
        if (_standIns is { } standIns && Interlocked.Exchange(ref _claimed, 1) == 0)
        {
            _standIn = standIns.Make(_name);
            _made = true;
            // The snapshot takes no longer than that: the forking thread need not wake this one again.
            var end = Stopwatch.GetTimestamp() + s_longestSpin;
            while (!_go.IsSet && Stopwatch.GetTimestamp() < end)
                Thread.SpinWait(20);
        }

        _go.Wait();
        if (_body is null)
            return;
        const ulong files = 0x400, fileSystem = 0x200;
        _error = (int)HostSyscall.Raw(SyscallNumber.unshare, files | fileSystem);
        if (_error == 0)
            Vcpu.Cpu.EnsureDescriptor();
        _separated.Set();
        if (_error == 0)
            _body(this);
    }
}

/// <summary>Keeps one <see cref="ChildRunner"/> ready, so that a fork does not wait for a thread and a vCPU to be made.</summary>
internal sealed class ReadyChildren(Machine machine, SnapshotReserve reserve, PrecopyWorker? precopy)
{
    private readonly SemaphoreSlim _wanted = new(0);
    private readonly Lock _lock = new();
    private ChildRunner? _ready;
    private bool _diverged;

    /// <summary>Makes the next one, after a fork: not while it runs, when the making would compete with it.</summary>
    internal void Replenish() => _wanted.Release();

    /// <summary>Begins to keep one ready. Call from a thread of the main process, whose descriptor table the runners inherit.</summary>
    internal void Start()
    {
        Replenish();
        var maker = new Thread(Make, 256 * 1024) { IsBackground = true, Name = "privy-ready" };
        maker.Start();
    }

    /// <summary>Takes the ready runner, or makes one. A process with a descriptor table of its own always gets a new one.</summary>
    internal ChildRunner Take(bool fromMain)
    {
        if (!fromMain)
            return ChildRunner.Create(machine);
        ChildRunner? runner;
        lock (_lock)
        {
            runner = _ready;
            _ready = null;
        }

        return runner ?? ChildRunner.Create(machine);
    }

    /// <summary>
    /// A thread of the program has changed what its children inherit (<see cref="ThreadAttributes"/>): from now on each child's thread is
    /// made by the thread that forks. A child that kept the user it was started with would be a hole.
    /// </summary>
    internal void Diverge()
    {
        ChildRunner? stale;
        lock (_lock)
        {
            _diverged = true;
            stale = _ready;
            _ready = null;
        }

        stale?.Abandon();
    }

    private void Make()
    {
        for (var round = 0; ; round++)
        {
            while (!_wanted.Wait(reserve.Rest))
                reserve.Tend();
            reserve.Replenish(forFirst: round == 0);
            if (round == 0)
                precopy?.Start();
            else
                precopy?.Begin();
            lock (_lock)
            {
                if (_ready is not null || _diverged)
                    continue;
            }

            ChildRunner made;
            try
            {
                // One more than is in use: making a vCPU while the program has just forked stalls the vCPUs that run, 10 ms seen.
                if (round == 0)
                    machine.AddIdleVcpu();
                made = ChildRunner.Create(machine);
            }
            catch (Exception e) when (e is KvmException or OutOfMemoryException)
            {
                // None is ready, then. The fork that wants one makes it, or tells the program.
                continue;
            }

            lock (_lock)
            {
                if (!_diverged)
                {
                    _ready = made;
                    continue;
                }
            }

            made.Abandon();
        }
    }

}
