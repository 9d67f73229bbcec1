using Privy.Kernel.Tests.Simulation;

namespace Privy.Kernel.Tests;

/// <summary>
/// vCPUs on threads: main writes while the vCPUs of a snapshot read and write. The lock, the flush protocol and the
/// A bit's race with the MMU, which a single thread cannot show.
/// </summary>
public sealed unsafe class ConcurrencyTests
{
    private const int Pages = 1100;
    private const ulong ChildBit = 1UL << 63;
    private const ulong Start = Machine.WindowBase + Layout.LargePageSize - (64 * 4096);

    [Fact]
    public void Snapshots_hold_under_concurrent_writers() => Assert.Null(Run(skipShootdown: 0, TimeSpan.FromSeconds(4)));

    [Fact]
    public void Without_shootdowns_they_do_not() => Assert.NotNull(Run(skipShootdown: 1, TimeSpan.FromSeconds(20)));

    /// <summary>Runs until something goes wrong or the time is over.</summary>
    private static string? Run(int skipShootdown, TimeSpan time)
    {
        using var machine = new Machine(generous: true);
        KernelState* k = machine.K;
        k->SkipShootdown = skipShootdown;
        k->PoolReady = ulong.MaxValue;
        k->AheadLimit = 300;
        k->AheadMost = 16;
        k->AheadGrowth = 1;
        var vcpus = new ThreadedVcpu[4];
        for (int i = 0; i < vcpus.Length; i++)
            vcpus[i] = new ThreadedVcpu(machine, i, i);
        machine.Host = area => Serve(machine, vcpus, area);
        // Large pages, and a table at each end.
        k->Spaces->Vmas[0] = new Vma { Start = Start, End = Start + Pages * 4096, Flags = Vma.Read | Vma.Write, Birth = 1 };
        k->Spaces->VmaCount = 1;
        k->Spaces->Vcpus[0] = 3;
        vcpus[0].Assign(0);
        vcpus[1].Assign(0);

        string? failure = null;
        bool stop = false;
        using var world = new ReaderWriterLockSlim();
        void Guarded(Action action)
        {
            try
            {
                action();
            }
            catch (Exception e)
            {
                Volatile.Write(ref failure, e.Message);
                Volatile.Write(ref stop, true);
            }
        }

        var writer = new Thread(() => Guarded(() =>
        {
            var random = new Random(7);
            ulong token = 1UL << 40;
            while (!Volatile.Read(ref stop))
                WriteBurst(vcpus[1], world, random, ref token);
        }));
        writer.Start();

        Guarded(() =>
        {
            var random = new Random(8);
            ulong token = 1;
            DateTime end = DateTime.UtcNow + time;
            while (!Volatile.Read(ref stop) && DateTime.UtcNow < end)
            {
                var expected = new ulong[Pages];
                world.EnterWriteLock();
                vcpus[0].Enter();
                int index = (int)KernelEntry.CreateSnapshot(vcpus[0].Area, 0);
                vcpus[0].Exit();
                for (int i = 0; i < Pages; i++)
                    expected[i] = *machine.Word(LinearMap.Physical(k, Address(i)));
                world.ExitWriteLock();
                Machine.Check(index > 0, "snapshot");
                k->Spaces[index].Vcpus[0] = 12;

                bool childStop = false;
                Thread[] children = [.. Enumerable.Range(0, 2).Select(t => new Thread(() => Guarded(() =>
                {
                    vcpus[2 + t].Assign(index);
                    Child(vcpus[2 + t], t, index, expected, () => Volatile.Read(ref childStop) || Volatile.Read(ref stop));
                })))];
                foreach (Thread child in children)
                    child.Start();
                for (int i = 0; i < 400 && !Volatile.Read(ref stop); i++)
                    WriteBurst(vcpus[0], world, random, ref token);
                Volatile.Write(ref childStop, true);
                foreach (Thread child in children)
                    child.Join();
                vcpus[0].Enter();
                Machine.Check(KernelEntry.Release(vcpus[0].Area, index) == 0, "release");
                vcpus[0].Exit();
                Machine.Check(k->FramesInUse == 0, "frames lost");
            }
        });
        Volatile.Write(ref stop, true);
        writer.Join();
        return failure;
    }

    private static ulong Address(int page) => Start + (ulong)page * 4096;

    private static void WriteBurst(ThreadedVcpu v, ReaderWriterLockSlim world, Random random, ref ulong token)
    {
        world.EnterReadLock();
        try
        {
            v.Enter();
            for (int i = 0; i < 4; i++)
                v.Store(Address(random.Next(Pages)), ++token);
            v.Exit();
        }
        finally
        {
            world.ExitReadLock();
        }
    }

    /// <summary>Of four pages, one is written by each of the two vCPUs, two by none.</summary>
    private static void Child(ThreadedVcpu v, int thread, int space, ulong[] expected, Func<bool> stopped)
    {
        var random = new Random(thread);
        var own = (ulong[])expected.Clone();
        ulong token = ChildBit;
        v.Enter();
        while (!stopped())
        {
            int page = random.Next(Pages);
            if (page % 4 == thread && random.Next(4) == 0)
            {
                v.Store(Address(page), ++token);
                own[page] = token;
            }
            else
            {
                ulong value = v.Load(Address(page));
                bool right = page % 4 == 1 - thread
                    ? value == expected[page] || (value & ChildBit) != 0
                    : value == own[page];
                Machine.Check(right, $"page {page} reads {value:x}, expected {own[page]:x}");
            }
            if (random.Next(200) == 0)
            {
                Machine.Check(KernelEntry.ClearAccessed(v.Area, space) >= 0, "clear accessed");
                v.Exit();
                if (random.Next(2) == 0)
                    Thread.Yield();
                v.Enter();
            }
        }
        v.Exit();
    }

    private static void Serve(Machine machine, ThreadedVcpu[] vcpus, VcpuArea* area)
    {
        ThreadedVcpu v = vcpus[area->Index];
        v.Exit();
        switch (area->Request)
        {
            case HostRequest.NeedSlot:
                Interlocked.Or(ref machine.K->SlotBitmap[area->RequestArg0 >> 36], 1UL << (int)(area->RequestArg0 >> 30 & 63));
                break;
            case HostRequest.Kick:
                vcpus[area->RequestArg0].Kick();
                break;
            case HostRequest.Yield:
                Thread.Yield();
                break;
            default:
                throw new SimulationException($"request {area->Request}");
        }
        area->RequestResult = 0;
        v.Enter();
    }
}
