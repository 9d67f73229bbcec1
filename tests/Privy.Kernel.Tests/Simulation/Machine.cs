using System.Collections.Concurrent;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Privy.Kernel.Tests.Simulation;

/// <summary>
/// Guest-physical memory, the kernel region and vCPUs with an MMU, and the host's side of the kernel's requests.
/// </summary>
internal sealed unsafe partial class Machine : IDisposable
{
    public const int VcpuCount = 14;
    // 8 GB from where a slot of 512 GB begins: the low window has the same places in KeptTables there, and others in a view.
    public const ulong WindowBase = 0x1000_0000_0000 + (8 * Layout.Gigabyte);
    public const ulong WindowPhysical = Layout.Gigabyte;
    public const ulong LowEnd = Layout.Gigabyte;
    private const ulong WindowSize = 2 * Layout.Gigabyte;
    private const ulong PoolStart = 3 * Layout.Gigabyte + (Layout.Gigabyte - 128 * Layout.PageSize);
    private const ulong PhysicalSize = 5 * Layout.Gigabyte;
    private const ulong KernelPhysical = 64 * Layout.Gigabyte;
    private const ulong MaxFrames = 1 << 16;
    private const ulong MaxTables = 1 << 13;
    public const int MaxVmas = 4096;

    private static readonly ConcurrentDictionary<nint, Machine> Machines = new();

    private readonly byte* _kernel;
    private readonly ulong _kernelSize;
    private readonly byte* _physical;

    static Machine() => Intrinsics.DoorbellHook = &Doorbell;

    /// <param name="generous">False: frames and tables come a few at a time, so that operations are retried often.</param>
    public Machine(bool generous, KernelCode? code = null)
    {
        Code = code ?? KernelCode.Managed;
        ulong writes = 64 << 10;
        ulong kept = writes + 2 * KernelState.RegionWriteCapacity * (ulong)sizeof(RegionWrite);
        ulong vcpus = kept + KernelState.KeptTableCapacity * (ulong)sizeof(KeptTable);
        ulong vmas = vcpus + VcpuCount * Layout.VcpuStride;
        ulong links = vmas + Layout.MaxSpaces * (ulong)MaxVmas * Vma.Size;
        ulong frames = links + MaxTables * 8;
        ulong tables = frames + MaxFrames * (ulong)sizeof(FrameInfo);
        _kernelSize = tables + MaxTables * Layout.PageSize;
        _kernel = Map(_kernelSize);
        _physical = Map(PhysicalSize);

        KernelState* k = K = (KernelState*)_kernel;
        k->KernelBase = (ulong)_kernel;
        k->KernelPhysical = KernelPhysical;
        k->DirectBase = (ulong)_physical;
        k->PhysicalEnd = PhysicalSize;
        k->WindowBase = WindowBase;
        k->WindowEnd = WindowBase + WindowSize;
        k->WindowPhysical = WindowPhysical;
        k->LowEnd = LowEnd;
        k->PoolStart = k->PoolNext = k->PoolEnd = PoolStart;
        k->Spaces = (Space*)(_kernel + 8192);
        k->RegionWrites = (RegionWrite*)(_kernel + writes);
        k->KeptTables = (KeptTable*)(_kernel + kept);
        k->FaultsToCopy = 4;
        // Few, so that pieces of memory meet in one.
        k->KeptTableMask = 3;
        k->SlotBitmap = (ulong*)(_kernel + 32768);
        k->RegionGigabytes = (ulong*)(_kernel + 40960);
        k->VcpuAreas = (ulong)(_kernel + vcpus);
        k->TableLinks = (ulong*)(_kernel + links);
        k->Frames = (FrameInfo*)(_kernel + frames);
        k->TableStart = (ulong)(_kernel + tables);
        // The host's own tables: the kernel half's top level, and the direct map's second level.
        k->TemplateRoot = ToPhysical(k->TableStart);
        k->DirectTables = ToPhysical(k->TableStart + 4096);
        ((ulong*)k->TableStart)[17] = k->DirectTables | Entry.Present | Entry.Writable | Entry.User;
        k->TableNext = k->TableStart + HostTables * 4096;
        k->TableEnd = k->TableNext + 8 * 4096;
        if (generous)
        {
            k->TableEnd = k->TableStart + MaxTables * 4096;
            k->PoolEnd = PoolStart + MaxFrames * 4096;
        }
        for (int i = 0; i < Layout.MaxSpaces; i++)
            k->Spaces[i].Vmas = (Vma*)(_kernel + vmas + (ulong)i * MaxVmas * Vma.Size);
        Machines[(nint)k] = this;

        Check(KernelEntry.Initialize(k) == 0, "initialize");
        Vcpus = new Vcpu[VcpuCount];
        for (int i = 0; i < VcpuCount; i++)
            Vcpus[i] = new Vcpu(this, i);
    }

    public const ulong HostTables = 2;

    public KernelState* K { get; }

    /// <summary>The kernel this machine runs.</summary>
    public KernelCode Code { get; }

    public Vcpu[] Vcpus { get; }

    public bool FramesExhausted { get; set; }

    public Random Random { get; set; } = new(1);

    /// <summary>Runs while a request is with the host and the kernel's lock is free: other vCPUs go on.</summary>
    public Action<Vcpu>? Meanwhile { get; set; }

    /// <summary>Runs after a vCPU was kicked out, with the kernel's lock held: it may go back in.</summary>
    public Action<Vcpu>? Kicked { get; set; }

    public delegate void Server(VcpuArea* area);

    /// <summary>Takes the place of the built-in host, which is for one thread.</summary>
    public Server? Host { get; set; }

    public int Kicks { get; private set; }

    public int Retries { get; private set; }

    public ulong* Word(ulong physical) => (ulong*)(_physical + physical);

    public ulong ToPhysical(ulong pointer) => pointer - K->KernelBase + KernelPhysical;

    public ulong* Table(ulong entry)
    {
        ulong address = (entry & Entry.AddressMask) - KernelPhysical + K->KernelBase;
        Check(address >= K->TableStart && address < K->TableNext, $"entry {entry:x} does not lead to a table");
        return (ulong*)address;
    }

    public bool HasSlot(ulong physical) => (K->SlotBitmap[physical >> 36] >> (int)(physical >> 30 & 63) & 1) != 0;

    public static void Check(bool condition, string message)
    {
        if (!condition)
            throw new SimulationException(message);
    }

    /// <summary>Formats the message only when it is needed.</summary>
    public static void Check(
        bool condition, [InterpolatedStringHandlerArgument(nameof(condition))] ref FailureMessage message)
    {
        if (!condition)
            throw new SimulationException(message.ToString());
    }

    public static void Doorbell(VcpuArea* area)
    {
        Machine machine = Machines[(nint)area->Kernel];
        if (machine.Host != null)
            machine.Host(area);
        else
            machine.Serve(area);
    }

    private void Serve(VcpuArea* area)
    {
        Vcpu v = Vcpus[area->Index];
        Check(area->InGuest == 1, "request from a vCPU that is outside");
        v.Exit();
        bool locked = K->Lock != 0;
        long result = 0;
        switch (area->Request)
        {
            case HostRequest.NeedSlot:
                Check(!locked, "NeedSlot with the lock held");
                Check(!HasSlot(area->RequestArg0), "NeedSlot for a slot that exists");
                K->SlotBitmap[area->RequestArg0 >> 36] |= 1UL << (int)(area->RequestArg0 >> 30 & 63);
                break;
            case HostRequest.NeedReadyFrames:
                Check(!locked, "NeedReadyFrames with the lock held");
                if (K->PoolReady >= PoolStart + MaxFrames * 4096 || Random.Next(8) == 0)
                    result = -12;
                else
                    K->PoolReady += (ulong)Random.Next(1, 400) * 4096;
                break;
            case HostRequest.NeedFrames:
                Check(!locked, "NeedFrames with the lock held");
                if (FramesExhausted)
                    result = -12;
                else
                    K->PoolEnd += (ulong)Random.Next(1, 4) * 4096;
                Check(K->PoolEnd <= PoolStart + MaxFrames * 4096, "pool leaks");
                break;
            case HostRequest.NeedTables:
                Check(!locked, "NeedTables with the lock held");
                K->TableEnd += (ulong)Random.Next(1, 4) * 4096;
                Check(K->TableEnd <= K->TableStart + MaxTables * 4096, "tables leak");
                break;
            case HostRequest.Kick:
                Check(locked, "Kick without the lock");
                Vcpu target = Vcpus[area->RequestArg0];
                Check(target != v, "a vCPU kicks itself");
                Check(target.Area->InGuest == 1, "kick of a vCPU that is outside");
                Check(target.Area->FlushPending == 1, "kick without a flush");
                target.Exit();
                Kicks++;
                Kicked?.Invoke(target);
                break;
            default:
                throw new SimulationException(
                    $"request {area->Request} ({area->RequestArg0:x}, {area->RequestArg1:x})");
        }
        if (!locked)
        {
            Retries++;
            // Other vCPUs use the same area's words only for their own requests; the answer goes in last.
            Meanwhile?.Invoke(v);
        }
        area->RequestResult = (ulong)result;
        v.Enter();
    }

    public void Dispose()
    {
        Machines.TryRemove((nint)K, out _);
        _ = munmap(_kernel, (nuint)_kernelSize);
        _ = munmap(_physical, unchecked((nuint)PhysicalSize));
    }

    private static byte* Map(ulong size) => Map(size, 3);

    /// <summary>Memory that can be executed.</summary>
    public static byte* MapCode(ulong size) => Map(size, 7);

    // Sparse zeroed memory, page-aligned: MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE.
    private static byte* Map(ulong size, int protection)
    {
        byte* memory = mmap(null, (nuint)size, protection, 0x4022, -1, 0);
        if ((nint)memory == -1)
            throw new InvalidOperationException("mmap failed");
        return memory;
    }

    [LibraryImport("libc")]
    private static partial byte* mmap(void* address, nuint length, int protection, int flags, int descriptor, nint offset);

    [LibraryImport("libc")]
    private static partial int munmap(void* address, nuint length);
}
