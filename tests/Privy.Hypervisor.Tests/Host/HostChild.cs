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
            case "dispositions":
                HostSignals.Initialize();
                Console.WriteLine($"{HostSignals.InheritedIgnored.Bits:x} {File.ReadAllLines("/proc/self/status").Single(line => line.StartsWith("SigCgt", StringComparison.Ordinal))}");
                System.Environment.Exit(0);
                break;
        }
    }
}
