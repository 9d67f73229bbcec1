using System.Collections.Concurrent;
using System.Globalization;
using System.Runtime.CompilerServices;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Signals;

namespace Privy.Hypervisor.Tests.Host;

public unsafe class HostSignalsTests
{
    private static readonly BlockingCollection<SignalInfo> Seen = [];

    static HostSignalsTests() => HostSignals.Start((_, info) => Seen.Add(info));

    private static SignalInfo Next()
    {
        Assert.True(Seen.TryTake(out SignalInfo info, 10_000), "no signal arrived");
        return info;
    }

    [Fact]
    public void Signals_from_outside_arrive_with_their_details()
    {
        Assert.True(HostSignals.EventDescriptor >= 16);
        foreach (int signal in new[] { Signal.SIGUSR1, Signal.SIGTERM })
        {
            Assert.True(HostSignals.SetDisposition(signal, HostDisposition.Forward));
            Assert.Equal(0, HostSyscall.Raw(62, (ulong)Environment.ProcessId, (ulong)signal));
            SignalInfo info = Next();
            Assert.Equal((signal, SignalInfo.SI_USER, Environment.ProcessId), (info.Number, info.Code, info.ProcessId));
        }
        Assert.Equal(0, NativeProcess.Run("/bin/sh", ["sh", "-c", $"kill -USR1 {Environment.ProcessId}"]).Status);
        Assert.NotEqual(Environment.ProcessId, Next().ProcessId);

        // Real-time signals with values, more than the ring holds at once: none is lost but for the details.
        Assert.True(HostSignals.SetDisposition(50, HostDisposition.Forward));
        SignalInfo queued = new() { Number = 50, Code = SignalInfo.SI_QUEUE, Value = 4711 };
        Assert.Equal(0, HostSyscall.Raw(129, (ulong)Environment.ProcessId, 50, (ulong)&queued));
        Assert.Equal(4711ul, Next().Value);

        Assert.True(HostSignals.SetDisposition(Signal.SIGUSR1, HostDisposition.Ignore));
        HostSyscall.Raw(62, (ulong)Environment.ProcessId, Signal.SIGUSR1);
        Assert.False(Seen.TryTake(out _, 50));
        HostSignals.SetDisposition(Signal.SIGTERM, HostDisposition.Default);
        HostSignals.SetDisposition(Signal.SIGUSR1, HostDisposition.Default);
    }

    [Fact]
    public void The_runtimes_own_signals_are_out_of_reach()
    {
        foreach (int signal in new[] { Signal.SIGPIPE, Signal.SIGKILL, Signal.SIGSTOP, 32, 33, 34, SafeSyscall.KickSignal, 0, 65 })
            Assert.False(HostSignals.SetDisposition(signal, HostDisposition.Default));
    }

    /// <summary>What another process sends is the program's; a fault of the host's own code stays the runtime's, whatever the program does with the signal.</summary>
    [Theory]
    [InlineData(HostDisposition.Forward)]
    [InlineData(HostDisposition.Ignore)]
    public void Signals_of_faults_from_outside_arrive_and_own_faults_do_not(HostDisposition disposition)
    {
        foreach (int signal in new[] { Signal.SIGSEGV, Signal.SIGFPE, Signal.SIGILL, Signal.SIGBUS, Signal.SIGTRAP, Signal.SIGABRT })
        {
            Assert.True(HostSignals.SetDisposition(signal, disposition));
            Assert.Equal(0, NativeProcess.Run("/bin/sh", ["sh", "-c", $"kill -{signal} {Environment.ProcessId}"]).Status);
            SignalInfo info = Next();
            Assert.Equal((signal, SignalInfo.SI_USER), (info.Number, info.Code));
            Assert.NotEqual(Environment.ProcessId, info.ProcessId);
        }
        Assert.Throws<NullReferenceException>(() => Nothing().Length);
        Assert.Throws<DivideByZeroException>(() => 1 / Zero());
        Assert.False(Seen.TryTake(out _, 50));
        foreach (int signal in new[] { Signal.SIGSEGV, Signal.SIGFPE, Signal.SIGILL, Signal.SIGBUS, Signal.SIGTRAP, Signal.SIGABRT })
            Assert.True(HostSignals.SetDisposition(signal, HostDisposition.Default));
        Assert.Throws<NullReferenceException>(() => Nothing().Length);

        [MethodImpl(MethodImplOptions.NoInlining)]
        static string Nothing() => null!;

        [MethodImpl(MethodImplOptions.NoInlining)]
        static int Zero() => 0;
    }

    /// <summary>The spare kick has a signal that is the program's, too.</summary>
    [Theory]
    [InlineData("Forward", 0)]
    [InlineData("Ignore", 0)]
    [InlineData("Default", SafeSyscall.SpareKickSignal)]
    public void The_spare_kicks_signal_from_outside_is_the_programs(string disposition, int death) =>
        Assert.Equal(death, HostChild.Run($"spare {disposition}").Status);

    /// <summary>Without room for a single real-time signal, interrupts end calls all the same.</summary>
    [Fact]
    public void No_interrupt_is_lost_when_the_queue_is_full() => Assert.Equal((0, "2000"), HostChild.Run("full"));

    /// <summary>Before execve: whatever comes waits for the program after it, with its details; after a failure it is back.</summary>
    [Fact]
    public void Signals_wait_across_exec()
    {
        (int status, string output) = HostChild.Run("wait");
        Assert.Equal(0, status);
        SignalSet Field(string name) => new(ulong.Parse(output.Split('\n').Single(line => line.StartsWith(name, StringComparison.Ordinal)).Split('\t')[1], NumberStyles.HexNumber, CultureInfo.InvariantCulture));
        // 50, the kick of the old process and SIGTERM are pending, all but the runtime's own signals are blocked, those of faults too: they would meet the handler of the new runtime.
        Assert.Equal(SignalSet.Of(50, SafeSyscall.KickSignal, Signal.SIGTERM), Field("SigPnd:") | Field("ShdPnd:"));
        Assert.Equal(~(SignalSet.Of(32, 33, 34) | SignalSet.Unblockable), Field("SigBlk:"));
    }

    /// <summary>What a process finds that was started so: the program's signals are there as they were, kicks are not.</summary>
    [Fact]
    public void Initialize_takes_over_what_waited() => Assert.Equal((0, "16 -6 True 0 0, 50 0 False 4711 0"), HostChild.Run("take"));

    [Theory]
    [InlineData("abort", Signal.SIGABRT)]
    [InlineData("trap", Signal.SIGTRAP)]
    public void An_own_fault_ends_the_process_though_its_signal_is_forwarded(string how, int signal) => Assert.Equal(signal, HostChild.Run(how).Status & 0x7f);

    [Theory]
    [InlineData(Signal.SIGTERM)]
    [InlineData(Signal.SIGKILL)]
    [InlineData(Signal.SIGUSR2)]
    [InlineData(Signal.SIGPIPE)]
    [InlineData(45)]
    public void A_process_dies_by_a_signal(int signal) => Assert.Equal(signal, HostChild.Run($"die {signal}").Status & 0x7f);

    [Theory]
    [InlineData(Signal.SIGSEGV)]
    [InlineData(Signal.SIGABRT)]
    public void A_process_dies_by_a_fault(int signal) => Assert.Equal(signal, HostChild.Run($"die {signal}").Status & 0x7f);

    [Fact]
    public void Exec_of_the_process_sets_mask_and_dispositions()
    {
        (int status, string output) = HostChild.Run("exec");
        Assert.Equal(0, status);
        Assert.Contains("SigBlk:\t0000000000000200", output, StringComparison.Ordinal);
        Assert.Contains("SigIgn:\t0000000000000001", output, StringComparison.Ordinal);
        Assert.Contains("SigCgt:\t0000000000000000", output, StringComparison.Ordinal);
    }

    [Fact]
    public void Initialize_keeps_what_was_ignored_and_takes_the_runtimes_handlers_away()
    {
        (int status, string output) = HostChild.Run("dispositions", SignalSet.Of(Signal.SIGINT, Signal.SIGHUP, Signal.SIGUSR1));
        Assert.Equal(0, status);
        string[] words = output.Split([' ', '\t']);
        Assert.Equal("203", words[0]);
        ulong caught = ulong.Parse(words[^1], NumberStyles.HexNumber, CultureInfo.InvariantCulture);
        Assert.Equal(0ul, caught & SignalSet.Of(Signal.SIGINT, Signal.SIGHUP, Signal.SIGTERM, Signal.SIGQUIT, Signal.SIGCONT, Signal.SIGTSTP).Bits);
        Assert.True(new SignalSet(caught).Contains(Signal.SIGSEGV));
    }
}
