using Privy.Hypervisor.Boot;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Memory;
using Privy.Hypervisor.Processes;
using Privy.Hypervisor.Signals;
using Privy.Kvm;

namespace Privy.Hypervisor;

/// <summary>A program that runs as the guest of a virtual machine of its own.</summary>
public static class PrivilegedProcess
{
    /// <summary>Runs a program to its end and returns the exit status a shell would see (128 + n if signal n ended it).</summary>
    public static int Run(RunOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        ErrorOutput.Initialize();
        HostSignals.Initialize();
        var program = ProgramResolver.Resolve(options.Program, options.Arguments);
        var environment = ProgramBytes.HostEnvironment();
        var memory = options.MemoryBytes is { } bytes ? (ulong)bytes : (ulong)GC.GetGCMemoryInfo().TotalAvailableMemoryBytes;
        using var kvm = KvmSystem.Open();
        var machine = Machine.Create(kvm, memory);
        var space = new MainSpace(machine);
        var trace = options.TraceFile switch
        {
            null => null,
            "-" => new Tracer(Console.Error),
            var path => new Tracer(File.CreateText(path)),
        };

        MemoryCalls.Register();
        ProcessCalls.Register();
        SignalRegistration.Register();
        var table = new ProcessTable(machine, space, trace);
        var main = new GuestProcess(table, null, space, Path.GetFullPath(program.Path)) { Id = Environment.ProcessId };
        main.Group = (int)HostSyscall.Raw(Syscalls.SyscallNumber.getpgrp);
        main.Session = (int)HostSyscall.Raw(Syscalls.SyscallNumber.getsid, 0);
        main.SetSignals(new ProcessSignals(main.Id, HostSignals.InheritedIgnored));
        table.SetMain(main);
        HostSignals.Start((_, info) => table.Forward(info));
        main.Signals.BindHost(HostSignals.SetDisposition);

        var vcpu = machine.TakeVcpu();
        var (entry, stackPointer) = new ProgramLoader(space, vcpu, machine).Load(program, environment);
        vcpu.Start(new GuestRegisters { Rip = entry, Rsp = stackPointer, Rflags = 0x202 }, 0, 0, space.Index);
        space.Attach(vcpu);
        var thread = new GuestThread(main, vcpu);
        main.Add(thread);
        thread.InheritSignals(HostSignals.InheritedMask);
        thread.Adopt();
        thread.Run();
        table.WaitForEnd();
        var signal = main.WaitStatus & 0x7F;
        if (signal != 0)
            HostSignals.DieBy(signal);
        _ = HostSyscall.Raw(Syscalls.SyscallNumber.exit_group, (ulong)(main.WaitStatus >> 8 & 0xFF));
        return 0;
    }
}
