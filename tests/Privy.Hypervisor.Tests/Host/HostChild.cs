using System.Runtime.CompilerServices;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Signals;
using static Privy.Hypervisor.Tests.Host.NativeProcess;

namespace Privy.Hypervisor.Tests.Host;

/// <summary>This assembly as a program of its own, for what would end or change the test process: started with an environment variable that says what to do.</summary>
internal static class HostChild
{
    private const string Variable = "PRIVY_TEST_CHILD";

    internal static (int Status, string Output) Run(string what, SignalSet ignored = default) =>
        NativeProcess.Run(Path.GetFullPath(Path.Combine(Path.GetDirectoryName(typeof(object).Assembly.Location)!, "../../../dotnet")),
            ["dotnet", typeof(HostChild).Assembly.Location], ignored, environment: [$"{Variable}={what}"]);

    /// <summary>A thread that always waits, and is interrupted; each time it must come back.</summary>
    private static unsafe void InterruptWithoutQueue()
    {
        const int rounds = 2000, signalsPending = 11;
        ulong* none = stackalloc ulong[2];
        (none[0], none[1]) = (0, 0);
        if (HostSyscall.Raw(302, 0, signalsPending, (ulong)none) != 0 || HostSyscall.Raw(234, (ulong)System.Environment.ProcessId, (ulong)HostSyscall.Raw(186), 60) != -Errno.EAGAIN)
            System.Environment.Exit(96);
        HostThread? waiting = null;
        int seen = 0;
        var ready = new ManualResetEventSlim();
        new Thread(() =>
        {
            using var self = new HostThread();
            waiting = self;
            ready.Set();
            while (true)
            {
                self.Invoke(34); // pause
                if (self.InterruptPending)
                {
                    self.ClearInterrupt();
                    Interlocked.Increment(ref seen);
                }
            }
        }) { IsBackground = true }.Start();
        ready.Wait();
        for (int round = 0; round < rounds; round++)
        {
            waiting!.Interrupt();
            if (!SpinWait.SpinUntil(() => Volatile.Read(ref seen) > round, 20_000))
                System.Environment.Exit(97);
        }
        Console.WriteLine(seen);
        System.Environment.Exit(0);
    }

    /// <summary>The state in which <see cref="HostSignals.BeginExec"/> leaves a process, and what comes of it.</summary>
    private static unsafe void Take()
    {
        ulong pid = (ulong)System.Environment.ProcessId, thread = (ulong)HostSyscall.Raw(186);
        HostSignals.Prepare((_, _) => { });
        HostSignals.BeginExec((int)thread);
        HostSignals.KeepForSuccessor(new SignalInfo { Number = 50, Code = SignalInfo.SI_USER, ProcessId = 1, Value = 4711 });
        HostSignals.KeepForSuccessor(new SignalInfo { Number = SafeSyscall.SpareKickSignal, Code = SignalInfo.SI_TKILL, ProcessId = (int)pid });
        foreach (int kick in (ReadOnlySpan<int>)[SafeSyscall.KickSignal, SafeSyscall.SpareKickSignal])
            HostSyscall.RawQuick(234, pid, thread, (ulong)kick);
        // From here on as if it was another process.
        HostSignals.Initialize((SignalSet.Of(50, SafeSyscall.KickSignal, SafeSyscall.SpareKickSignal), SignalSet.Of(Signal.SIGPIPE)));
        ulong pending;
        HostSyscall.RawQuick(127, (ulong)&pending, 8);
        var taken = new List<SignalInfo>();
        HostSignals.TakePending(taken.Add);
        Console.WriteLine(string.Join(", ", taken.Select(info => $"{info.Number} {info.Code} {info.ProcessId == (int)pid} {info.Value} {info.Error}")));
        System.Environment.Exit(pending == SignalSet.Of(50).Bits && HostSignals.InheritedIgnored == SignalSet.Of(Signal.SIGPIPE) ? 0 : 98);
    }

    private static unsafe void RunTrapInstruction()
    {
        var code = new Iced.Intel.Assembler(64);
        Iced.Intel.Label start = code.CreateLabel();
        code.Label(ref start);
        code.int3();
        code.ret();
        ((delegate* unmanaged<void>)HostCode.Assemble(code).GetLabelRIP(start))();
    }

#pragma warning disable CA2255 // The test program's own entry point is generated.
    [ModuleInitializer]
    internal static void Begin()
#pragma warning restore CA2255
    {
        string[]? words = System.Environment.GetEnvironmentVariable(Variable)?.Split(' ');
        switch (words?[0])
        {
            case "die":
                HostSignals.DieBy(int.Parse(words[1]));
                break;
            case "abort":
            case "trap":
                KernelSigaction.Set(Signal.SIGTRAP, default); // as where the runtime has no handler for it
                HostSignals.Start((_, _) => { });
                HostSignals.SetDisposition(Signal.SIGABRT, HostDisposition.Forward);
                HostSignals.SetDisposition(Signal.SIGTRAP, HostDisposition.Forward);
                if (words[0] == "abort")
                    System.Environment.FailFast("as the test wants it");
                RunTrapInstruction();
                break;
            case "exec":
                HostSignals.Initialize();
                long result = HostProcess.Exec("/no/such"u8, List("x"), [], default, default);
                if (result != -Errno.ENOENT)
                    System.Environment.Exit(90);
                HostProcess.Exec("/bin/cat"u8, List("cat", "/proc/self/status"), [], SignalSet.Of(Signal.SIGUSR1), SignalSet.Of(Signal.SIGHUP));
                System.Environment.Exit(91);
                break;
            case "spare":
                HostSignals.Start((signal, info) => System.Environment.Exit(signal == SafeSyscall.SpareKickSignal && info.ProcessId != System.Environment.ProcessId ? 0 : 92));
                var disposition = Enum.Parse<HostDisposition>(words[1]);
                HostSignals.SetDisposition(SafeSyscall.SpareKickSignal, disposition);
                // A kick is none of the program's business.
                HostThread.Kick((int)HostSyscall.Raw(186));
                HostSyscall.Raw(234, (ulong)System.Environment.ProcessId, (ulong)HostSyscall.Raw(186), SafeSyscall.SpareKickSignal);
                NativeProcess.Run("/bin/sh", ["sh", "-c", $"kill -{SafeSyscall.SpareKickSignal} {System.Environment.ProcessId}"]);
                if (disposition == HostDisposition.Ignore)
                    System.Environment.Exit(0);
                Thread.Sleep(20_000);
                System.Environment.Exit(93);
                break;
            case "full":
                InterruptWithoutQueue();
                break;
            case "wait":
                HostSignals.Start((_, _) => System.Environment.Exit(94));
                SafeSyscall.Install();
                HostSignals.SetDisposition(Signal.SIGTERM, HostDisposition.Forward);
                HostSignals.SetDisposition(50, HostDisposition.Forward);
                HostSignals.BeginExec((int)HostSyscall.Raw(186));
                // One to the process, which any thread takes, one that was queued already, and a kick.
                HostSyscall.Raw(62, (ulong)System.Environment.ProcessId, Signal.SIGTERM);
                HostSignals.KeepForSuccessor(new SignalInfo { Number = 50, Code = SignalInfo.SI_QUEUE });
                HostThread.Kick((int)HostSyscall.Raw(186));
                Thread.Sleep(50);
                HostProcess.Exec("/bin/cat"u8, List("cat", "/proc/self/status"), [], null, default);
                System.Environment.Exit(95);
                break;
            case "take":
                Take();
                break;
            case "dispositions":
                HostSignals.Initialize();
                Console.WriteLine($"{HostSignals.InheritedIgnored.Bits:x} {File.ReadAllLines("/proc/self/status").Single(line => line.StartsWith("SigCgt", StringComparison.Ordinal))}");
                System.Environment.Exit(0);
                break;
        }
    }
}
