using Privy.Hypervisor.Boot;
using Privy.Hypervisor.Diagnostics;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Memory;
using Privy.Hypervisor.Polling;
using Privy.Hypervisor.Processes;
using Privy.Hypervisor.Signals;
using Privy.Hypervisor.Sites;
using Privy.Hypervisor.Syscalls;
using Privy.Kvm;

namespace Privy.Hypervisor;

/// <summary>A program that runs as the guest of a virtual machine of its own.</summary>
public static class PrivilegedProcess
{
    /// <summary>
    /// Runs a program to its end. Ends the process with the program's exit status, or by the signal that ended the program, and so
    /// returns only when the program could not be started.
    /// </summary>
    /// <returns>The exit status: 126 or 127 when the program cannot be executed or found, 1 when there is no usable KVM or too little memory.</returns>
    public static int Run(RunOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        RuntimeDescriptors.Displace();
        ErrorOutput.Initialize();
        HostSignals.Initialize(options.Signals);
        try
        {
            return Start(options);
        }
        catch (ProgramException e)
        {
            ErrorOutput.WriteLine($"privy: {e.Message}");
            return e.ExitStatus;
        }
        catch (KvmException e)
        {
            ErrorOutput.WriteLine($"privy: {Explain(e)}");
            return 1;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            ErrorOutput.WriteLine($"privy: {e.Message}");
            return 1;
        }
    }

    private static int Start(RunOptions options)
    {
        var program = ProgramResolver.Resolve(options.Program, options.ProgramName, ProgramBytes.HostArguments(options.Arguments));
        var memory = options.MemoryBytes is { } bytes ? (ulong)bytes : Machine.DefaultMemory;
        using var kvm = KvmSystem.Open();
        FaultInjection.Initialize();
        var machine = Machine.Create(kvm, memory);
        var space = new MainSpace(machine, (ulong)(options.MemoryBytes ?? 0));
        var reserve = new SnapshotReserve(machine, (ulong?)options.PrecopyBytes);
        var precopies = options.PrecopyBytes is { } bytesAhead ? bytesAhead != 0 : PrecopyWorker.PaysOn(Environment.ProcessorCount);
        var precopy = precopies ? new PrecopyWorker(machine, space) : null;
        // Where calls leave the guest one by one, SYSCALL is the least of their cost; and a trace must see them.
        var rewrites = options.RewriteSyscalls && options.TraceFile is null && options.Syscalls != SyscallPolicy.Exit;
        space.Sites = rewrites ? new SyscallSites(space) : null;
        var table = new ProcessTable(machine, space, options.TraceFile is { } path ? new Tracer(path) : null, reserve, precopy)
        {
            RestartArguments = RestartArguments(options),
            SyscallPolicy = options.TraceFile is null ? options.Syscalls : SyscallPolicy.Exit,
            Poller = new SyscallPoller(space, options.Syscalls),
            Sites = space.Sites,
        };
        MemoryCalls.Register();
        ViewCalls.Register();
        ProcessCalls.Register();
        SharedSegmentCalls.Register();
        SignalDescriptors.Register(table.StandIns);
        SignalRegistration.Register();
        LimitCalls.Register();
        GuestThread.RegisterCredentialCalls();

        var main = new GuestProcess(table, null, space, Path.GetFullPath(program.Path))
        {
            Id = Environment.ProcessId,
            Group = (int)HostSyscall.Raw(SyscallNumber.getpgrp),
            Session = (int)HostSyscall.Raw(SyscallNumber.getsid, 0),
        };
        main.SetSignals(new ProcessSignals(main.Id, HostSignals.InheritedIgnored));
        table.SetMain(main);
        HostSignals.Prepare((_, info) => table.Forward(info));
        main.Signals.BindHost(HostSignals.SetDisposition, HostSignals.InheritedMask);

        var vcpu = machine.TakeVcpu();
        var (entry, stackPointer) = new ProgramLoader(space, vcpu, machine).Load(program, ProgramBytes.HostEnvironment());
        vcpu.Start(new GuestRegisters { Rip = entry, Rsp = stackPointer, Rflags = 0x202 }, 0, 0, space.Index);
        space.Attach(vcpu);
        var thread = new GuestThread(main, vcpu) { IsFirst = true };
        main.Add(thread);
        thread.InheritSignals(HostSignals.InheritedMask);
        thread.Adopt();
        HostSignals.TakePending(info => main.Signals.Send(info, thread.ThreadSignals));
        HostSignals.Open();
        SetThreadName(Path.GetFileName(program.Path));
        table.StandIns.Start();
        table.Ready.Start();
        RandomKicks.Start(machine);
        FaultInjection.Begin();
        thread.Run();

        table.WaitForEnd();
        if (Canaries.FindDamage() is not 0 and var damage)
            Defects.Die(new InvalidOperationException($"something was written to 0x{damage:x}, which is nobody's"));
        if (options.Stats)
            StatisticsReport.Print(table);
        var signal = main.ExitStatus & 0x7F;
        if (signal != 0)
            HostSignals.DieBy(signal);
        // Not by the runtime's exit: nothing of the program's end may wait for or depend on managed shutdown.
        _ = HostSyscall.Raw(SyscallNumber.exit_group, (ulong)(main.ExitStatus >> 8 & 0xFF));
        return 0;
    }

    private static List<string> RestartArguments(RunOptions options)
    {
        List<string> arguments = ["run"];
        if (options.MemoryBytes is { } bytes)
            arguments.AddRange(["--memory", bytes.ToString(System.Globalization.CultureInfo.InvariantCulture)]);
        if (options.PrecopyBytes is { } ahead)
            arguments.AddRange(["--precopy", ahead == 0 ? "off" : ahead.ToString(System.Globalization.CultureInfo.InvariantCulture)]);
        if (options.Stats)
            arguments.Add("--stats");
        if (options.Syscalls != SyscallPolicy.Auto)
            arguments.AddRange(["--syscalls", options.Syscalls == SyscallPolicy.Exit ? "exit" : "ring"]);
        if (!options.RewriteSyscalls)
            arguments.AddRange(["--rewrite-syscalls", "off"]);
        if (options.TraceFile is { } path)
            arguments.Add(path == "-" ? "--trace" : "--trace=" + path);
        return arguments;
    }

    private static string Explain(KvmException e) => e switch
    {
        { Errno: Errno.ENOENT } when e.Call.StartsWith("open", StringComparison.Ordinal) =>
            "/dev/kvm does not exist: turn on virtualisation in the firmware or hypervisor and load kvm_intel or kvm_amd; 'privy doctor' tells more, '--engine native' runs the program without Privy",
        { Errno: Errno.EACCES } when e.Call.StartsWith("open", StringComparison.Ordinal) =>
            "/dev/kvm may not be opened: add yourself to the group kvm (usermod -aG kvm USER) and log in again; '--engine native' runs the program without Privy",
        { Errno: Errno.ENOMEM } => $"not enough memory: {e.Message}; give less with --memory",
        _ => $"{e.Message}; 'privy doctor' checks what KVM offers here",
    };

    private static unsafe void SetThreadName(string name)
    {
        const ulong setName = 15;
        fixed (byte* text = ProgramBytes.Encode(ProgramBytes.FromText(name) + '\0'))
            _ = HostSyscall.Raw(SyscallNumber.prctl, setName, (ulong)text);
    }
}
