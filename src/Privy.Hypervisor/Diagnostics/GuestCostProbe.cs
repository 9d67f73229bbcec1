using System.Diagnostics;
using Privy.Hypervisor.Boot;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Memory;
using Privy.Kernel;
using Privy.Kvm;

namespace Privy.Hypervisor.Diagnostics;

/// <summary>Measures with a guest of a few instructions, on the machine, memory and kernel that programs get.</summary>
internal sealed class GuestCostProbe : ICostProbe
{
    public MachineCosts Measure()
    {
        using var kvm = KvmSystem.Open();
        using var machine = Machine.Create(kvm, Machine.DefaultMemory);
        return new GuestMeasurement(machine).Run();
    }
}

/// <summary>One run of the probe's guest.</summary>
internal sealed unsafe class GuestMeasurement
{
    private const int Exits = 300;
    private const int Events = 256;
    private const int Faults = 64;
    private const int Snapshots = 32;
    private const int Vcpus = 8;
    private const byte Old = 0xFF;

    // The window is 4 GB or more wherever a machine can be made.
    private const ulong FaultPages = Layout.WindowBase + Layout.Gigabyte;
    private const int ReadWrite = HostMemory.PROT_READ | HostMemory.PROT_WRITE;
    private const int Anonymous = HostMemory.MAP_PRIVATE | HostMemory.MAP_ANONYMOUS;

    private readonly Machine _machine;
    private readonly MainSpace _space;
    private readonly Vcpu _vcpu;
    private readonly ProbeProgram _program;
    private readonly ulong _results;
    private int _snapshot;

    internal GuestMeasurement(Machine machine)
    {
        _machine = machine;
        _space = new MainSpace(machine, limit: 0);
        _vcpu = machine.TakeVcpu();
        var code = Map(0, Layout.PageSize, ReadWrite | HostMemory.PROT_EXEC);
        _program = ProbeProgram.Assemble(code);
        _program.Code.CopyTo(new Span<byte>((void*)code, (int)Layout.PageSize));
        _results = Map(0, Layout.LargePageSize, ReadWrite);
        Populate(_results, Layout.LargePageSize);
    }

    internal MachineCosts Run()
    {
        _vcpu.Start(Registers(_program.Syscalls), 0, 0, _space.Index);
        _space.Attach(_vcpu);
        RunToSyscall(); // makes the slots and entries that the next exits find
        var firstTime = Stopwatch.GetTimestamp();
        var firstStamp = _vcpu.User.R8;

        var syscalls = Times(Exits, () =>
        {
            _vcpu.User.Rax = 0; // the result: with it the vCPU goes back to the program
            RunToSyscall();
        });
        var (shorter, longer) = Breakpoints();
        var faults = FirstFaults(FaultPages);
        var faultsByRing0 = FirstFaultsByRing0();
        var data = Map(0, 2 * Layout.LargePageSize, ReadWrite);
        const int noHugePage = 15; // MADV_NOHUGEPAGE: a host page is to be 4 KB here
        _ = HostMemory.Advise(data, 2 * Layout.LargePageSize, noHugePage);
        var touches = Stores(data, Events, Layout.PageSize);
        // Snapshots first: pages written after one are copied while the next is made.
        var snapshots = Times(Snapshots, CreateSnapshot, ReleaseSnapshot);
        var copies = CopiesAfterSnapshot(data);
        var (ahead, written) = CopiesAhead(data);
        var vcpus = Times(Vcpus, () => _ = _machine.TakeVcpu());

        Resume(_program.Syscalls);
        RunToSyscall();
        var cyclesPerNanosecond = (_vcpu.User.R8 - firstStamp) / Stopwatch.GetElapsedTime(firstTime).TotalNanoseconds;
        // Last, as it leaves the vCPU in the middle of things.
        var exits = Doorbells();

        var shortMedian = Median(shorter);
        var ring0 = Array.ConvertAll(longer, cycles => Math.Max(0, cycles - shortMedian) / ProbeProgram.Nops / cyclesPerNanosecond);
        return new MachineCosts(_machine.SyscallEntersRing0, Median(ring0),
        [
            Cost("exit to user space and back", exits),
            Cost("system call: exit, register exchange, return", syscalls),
            Cost("instruction in the guest's ring 0", ring0),
            Cost("breakpoint: ring 0 and back", shorter, cyclesPerNanosecond),
            Cost("page fault resolved by the guest's kernel", faults, cyclesPerNanosecond),
            .. faultsByRing0.Length == 0 ? (MeasuredCost[])[] : [Cost("  the same by way of ring 0", faultsByRing0, cyclesPerNanosecond)],
            Cost("first touch of a 4 KB page of the host", touches, cyclesPerNanosecond),
            Cost("first write to a page after a snapshot (copy)", copies, cyclesPerNanosecond),
            Cost("  of it: tables and copy, without the fault", ahead),
            Cost("  of it: the write itself, once copied ahead", written, cyclesPerNanosecond),
            Cost("snapshot, the kernel's part", snapshots),
            Cost("virtual CPU made", vcpus),
        ])
        {
            ExitNanoseconds = Median(exits),
        };
    }

    private (double[] Shorter, double[] Longer) Breakpoints()
    {
        // int3 is one of the two vectors a program may raise; its gate leads to these handlers for as long as the probe runs.
        const int breakpoint = 3;
        const ulong room = 0x400;
        var place = VcpuLayout.AreaOf(_vcpu.Area->Index) + VcpuLayout.Code + Layout.PageSize - room;
        if ((ulong)_vcpu.Stubs.Code.Length > Layout.PageSize - room)
            throw _vcpu.Defect("no room for the probe behind the stubs");
        var shortStub = ProbeProgram.Stub(0);
        var longStub = ProbeProgram.Stub(ProbeProgram.Nops);
        var longPlace = place + 16;
        shortStub.CopyTo(new Span<byte>((void*)place, (int)room));
        longStub.CopyTo(new Span<byte>((void*)longPlace, (int)room - 16));

        DescriptorTables.SetGate((ulong)_vcpu.Area, breakpoint, place, fromProgram: true);
        _ = Sample(_program.Breakpoints, 8, 0, 0);
        var shorter = Sample(_program.Breakpoints, Events, 0, 0);
        DescriptorTables.SetGate((ulong)_vcpu.Area, breakpoint, longPlace, fromProgram: true);
        return (shorter, Sample(_program.Breakpoints, Events, 0, 0));
    }

    /// <summary>
    /// Touches pages that the host has already, each in a mapping of 4 KB and in 2 MB of its own: the kernel fills all it can at a fault, and only
    /// so is there a fault at each.
    /// </summary>
    private double[] FirstFaults(ulong start)
    {
        for (var i = 0; i <= Faults; i++)
            Populate(Map(start + ((ulong)i * Layout.LargePageSize), Layout.PageSize, ReadWrite), Layout.PageSize);
        var before = _vcpu.Area->Faults;
        var samples = Stores(start, Faults, Layout.LargePageSize);
        if (_vcpu.Area->Faults - before < Faults)
            throw _vcpu.Defect($"{_vcpu.Area->Faults - before} page faults where {Faults} pages were touched for the first time");
        return samples;
    }

    /// <summary>The same where faults do not come straight to ring 3, if they do; else nothing.</summary>
    private double[] FirstFaultsByRing0()
    {
        var area = _vcpu.Area;
        var direct = area->GateDirect;
        if (direct == 0)
            return [];
        area->GateDirect = 0;
        *area->FaultGate = area->GateThroughRing0;
        var samples = FirstFaults(FaultPages + ((Faults + 1) * Layout.LargePageSize));
        area->GateDirect = *area->FaultGate = direct;
        return samples;
    }

    private double[] CopiesAfterSnapshot(ulong data)
    {
        Populate(data, (Events + 1) * Layout.PageSize);
        CreateSnapshot();
        var before = _vcpu.Area->PcowCopies;
        var samples = Stores(data, Events, Layout.PageSize);
        var copies = _vcpu.Area->PcowCopies - before;
        const int pages = Events + 1, resultPages = 1;
        if (copies != pages + resultPages)
            throw _vcpu.Defect($"{copies} pages copied for a snapshot where {pages + resultPages} were written");
        for (var page = data; page < data + (pages * Layout.PageSize); page += Layout.PageSize)
        {
            var kind = Translate.Lookup(_machine.State, _machine.State->Spaces + _snapshot, page, out _, out var physical);
            if (kind != PageKind.Redirect || *Machine.PoolHost(physical) != Old)
                throw _vcpu.Defect($"the snapshot lost the page at 0x{page:x} ({kind})");
        }

        ReleaseSnapshot();
        return samples;
    }

    /// <summary>The parts of a copy on write: what the kernel does, many pages in one call, and what is left to the first write.</summary>
    private (double[] Ahead, double[] Written) CopiesAhead(ulong data)
    {
        const int rounds = 16;
        var pages = (ulong)Events + 1;
        var ahead = new double[rounds];
        double[] written = [];
        for (var round = 0; round < rounds; round++)
        {
            CreateSnapshot();
            // The first page of the table also pays for the table.
            PrepareWrite(data, 1);
            var start = Stopwatch.GetTimestamp();
            PrepareWrite(data + Layout.PageSize, pages - 1);
            ahead[round] = Stopwatch.GetElapsedTime(start).TotalNanoseconds / (pages - 1);
            written = Stores(data, Events, Layout.PageSize);
            ReleaseSnapshot();
        }

        return (ahead, written);
    }

    private void PrepareWrite(ulong start, ulong pages)
    {
        var result = _machine.Kernel.PrepareWrite(_vcpu, _space.Index, start, start + (pages * Layout.PageSize));
        if (result < 0)
            throw _vcpu.Defect($"pages cannot be prepared for writing (errno {-result})");
    }

    private void CreateSnapshot()
    {
        var result = _machine.Kernel.CreateSnapshot(_vcpu, _space.Index);
        if (result < 0)
            throw _vcpu.Defect($"no snapshot (errno {-result})");
        _snapshot = (int)result;
    }

    private void ReleaseSnapshot()
    {
        var result = _machine.Kernel.Release(_vcpu, _snapshot);
        if (result < 0)
            throw _vcpu.Defect($"the snapshot cannot be released (errno {-result})");
    }

    /// <summary>Stores to one page more than asked for: the first store also pays for slots and tables, and does not count.</summary>
    private double[] Stores(ulong start, int count, ulong stride)
    {
        var samples = Sample(_program.Stores, count + 1, start, stride);
        for (var i = 0; i <= count; i++)
        {
            if (*(byte*)(start + ((ulong)i * stride)) != 1)
                throw _vcpu.Defect($"a store of the guest to 0x{start + ((ulong)i * stride):x} did not arrive");
        }

        return samples[1..];
    }

    private double[] Sample(ulong loop, int count, ulong start, ulong stride)
    {
        Resume(loop);
        _vcpu.User.Rdi = _results;
        _vcpu.User.Rsi = start;
        _vcpu.User.Rbx = stride;
        _vcpu.User.R12 = (ulong)count;
        RunToSyscall();
        var samples = new double[count];
        for (var i = 0; i < count; i++)
            samples[i] = ((ulong*)_results)[i];
        return samples;
    }

    private double[] Doorbells()
    {
        // Below Vcpu.Run, which would take the doorbell for a system call of the program.
        _vcpu.Start(Registers(_program.Doorbells), 0, 0, _space.Index);
        RunToDoorbell(Registers(_program.Doorbells));
        return Times(Exits, () => RunToDoorbell(null));
    }

    private void RunToDoorbell(GuestRegisters? start)
    {
        var cpu = _vcpu.Cpu;
        if (start is { } registers)
        {
            cpu.Registers = registers;
            cpu.MarkRegistersDirty();
            cpu.Run->ImmediateExit = 0;
        }

        int errno;
        do
            errno = cpu.Enter();
        while (errno is Errno.EINTR or Errno.EAGAIN);
        if (errno != 0 || cpu.Run->ExitReason != KvmExit.Mmio || cpu.Run->MmioAddress != Layout.DoorbellPhysical + Layout.DoorbellSyscall)
            throw _vcpu.Defect($"KVM_RUN ended with errno {errno}, {KvmExit.Name(cpu.Run->ExitReason)}");
    }

    private void RunToSyscall()
    {
        VcpuExit exit;
        do
            exit = _vcpu.Run();
        while (exit == VcpuExit.Kicked);
        if (exit != VcpuExit.Syscall)
            throw _vcpu.Defect($"the guest stopped by {exit} (vector {_vcpu.Vector}, address 0x{_vcpu.Area->FaultAddress:x})");
    }

    private void Resume(ulong rip) => _vcpu.User = Registers(rip);

    private static GuestRegisters Registers(ulong rip) => new() { Rip = rip, Rflags = 0x202 };

    private ulong Map(ulong address, ulong length, int protection)
    {
        var result = _space.Map(_vcpu, address, length, protection, Anonymous | (address != 0 ? HostMemory.MAP_FIXED : 0), -1, 0);
        return result >= 0 ? (ulong)result : throw new KvmException($"mmap({length} bytes for the probe's guest)", (int)-result);
    }

    private static void Populate(ulong start, ulong length)
    {
        for (var page = start; page < start + length; page += Layout.PageSize)
            *(byte*)page = Old;
    }

    /// <summary>Nanoseconds of each of some calls.</summary>
    private static double[] Times(int count, Action timed, Action? after = null)
    {
        var times = new double[count];
        for (var i = 0; i < count; i++)
        {
            var start = Stopwatch.GetTimestamp();
            timed();
            times[i] = Stopwatch.GetElapsedTime(start).TotalNanoseconds;
            after?.Invoke();
        }

        return times;
    }

    private static double Median(double[] samples) => Sorted(samples)[samples.Length / 2];

    private static double[] Sorted(double[] samples)
    {
        var sorted = (double[])samples.Clone();
        Array.Sort(sorted);
        return sorted;
    }

    private static MeasuredCost Cost(string name, double[] samples, double unitsPerNanosecond = 1)
    {
        var sorted = Sorted(samples);
        return new MeasuredCost(name, sorted[sorted.Length / 2] / unitsPerNanosecond, sorted[Math.Min(sorted.Length - 1, sorted.Length * 99 / 100)] / unitsPerNanosecond);
    }
}
