using System.Diagnostics;
using Privy.Hypervisor.Boot;
using Privy.Kernel;

namespace Privy.Hypervisor.Memory;

/// <summary>
/// Copies memory for a snapshot ahead of main's writers, on a vCPU of its own that runs the kernel alone: main's live page tables must be
/// edited by the guest.
/// </summary>
/// <remarks>
/// It takes half of one processor. Its priority is the usual one: a thread of low priority could lose its processor while it holds the
/// kernel's lock, and main would wait for it.
/// </remarks>
internal sealed unsafe class PrecopyWorker(Machine machine, MainSpace space)
{
    // Measured on two processors: what the worker saves main in faults it takes from main and the child in processor time.
    private const int ProcessorsNeeded = 4;

    // One call of the kernel; between calls the worker looks whether its time is up.
    private const ulong Piece = 256 * Layout.PageSize;

    private readonly SemaphoreSlim _snapshot = new(0);
    private readonly PageMap _pageMap = new();
    private readonly byte[] _populated = new byte[Piece / Layout.PageSize];

    /// <summary>Whether it pays on a machine with so many processors when the user has not asked for it.</summary>
    internal static bool PaysOn(int processors) => processors >= ProcessorsNeeded;

    /// <summary>Begins to wait for snapshots.</summary>
    internal void Start()
    {
        var vcpu = machine.TakeVcpu();
        vcpu.Start(default, 0, 0, space.Index);
        vcpu.LeaveSpace();
        new Thread(() => Loop(vcpu), 256 * 1024) { IsBackground = true, Name = "privy-precopy" }.Start();
    }

    /// <summary>A snapshot was taken.</summary>
    internal void Begin() => _snapshot.Release();

    private void Loop(Vcpu vcpu)
    {
        while (true)
        {
            _snapshot.Wait();
            // One pass serves all snapshots there are.
            while (_snapshot.Wait(0))
            {
            }

            foreach (var (start, end) in Ranges())
            {
                if (!Copy(vcpu, start, end))
                    break;
            }
        }
    }

    /// <summary>Copies a range a piece at a time. False: there is nothing more to do for any snapshot.</summary>
    private bool Copy(Vcpu vcpu, ulong start, ulong end)
    {
        while (start < end)
        {
            var began = Stopwatch.GetTimestamp();
            var stop = Math.Min(start + Piece, end);
            var result = 0L;
            foreach (var (from, to) in Populated(start, stop))
            {
                do
                {
                    result = machine.Kernel.Precopy(vcpu, from, to);
                    const int framesAreMadeReady = 2, patience = 5;
                    if (result != framesAreMadeReady)
                        break;
                    Thread.Sleep(patience);
                }
                while (true);
                if (result != 0)
                    return false;
            }

            start = stop;
            Rest(Stopwatch.GetElapsedTime(began));
        }

        return Volatile.Read(ref machine.State->ActiveMask) != 0;
    }

    /// <summary>As long as it worked.</summary>
    private static void Rest(TimeSpan worked)
    {
        if (worked.TotalMilliseconds >= 0.05)
            Thread.Sleep(TimeSpan.FromMilliseconds(Math.Max(1, worked.TotalMilliseconds)));
    }

    /// <summary>What main can write and snapshots share; untouched memory has nothing to copy.</summary>
    private List<(ulong Start, ulong End)> Ranges()
    {
        var found = new List<(ulong, ulong)>();
        lock (space.Changes)
        {
            foreach (ref readonly var vma in space.Mappings.All)
            {
                if ((vma.Flags & (Vma.Write | Vma.Shared)) == Vma.Write && (vma.HostTag & VmaTag.File) == 0)
                    found.Add((vma.Start, vma.End));
            }
        }

        return found;
    }

    private List<(ulong Start, ulong End)> Populated(ulong start, ulong end)
    {
        var pages = _populated.AsSpan(0, (int)((end - start) / Layout.PageSize));
        _pageMap.ReadPopulated(start, pages);
        var found = new List<(ulong, ulong)>();
        for (var i = 0; i < pages.Length;)
        {
            var first = i;
            var has = pages[i];
            while (i < pages.Length && pages[i] == has)
                i++;
            if (has != 0)
                found.Add((start + ((ulong)first * Layout.PageSize), start + ((ulong)i * Layout.PageSize)));
        }

        return found;
    }
}
