using Privy.Hypervisor.Host;
using Privy.Hypervisor.Signals;
using static Privy.Hypervisor.Tests.Host.NativeProcess;

namespace Privy.Hypervisor.Tests.Host;

public unsafe class NativeSpawnTests
{
    [Fact]
    public void A_program_runs_and_its_status_is_seen()
    {
        Assert.Equal(0, ExitOf(Wait(NativeSpawn.Spawn("/bin/true"u8, List("true"), [], default, default))));
        Assert.Equal(7, ExitOf(Wait(NativeSpawn.Spawn("/bin/sh"u8, List("sh", "-c", "exit 7"), [], default, default))));
    }

    [Fact]
    public void Arguments_and_environment_arrive()
    {
        Assert.Equal((0, "a b|c"), Run("/bin/sh", ["sh", "-c", "echo \"$1|$X\"", "0", "a b"], environment: ["X=c"]));
    }

    [Fact]
    public void A_missing_file_is_reported_and_leaves_no_process()
    {
        Assert.Equal(-Errno.ENOENT, NativeSpawn.Spawn("/no/such/program"u8, List("x"), [], default, default));
        Assert.Equal(-Errno.EACCES, NativeSpawn.Spawn("/etc"u8, List("x"), [], default, default));
        Assert.Equal(-Errno.EBADF, NativeSpawn.Spawn("/bin/true"u8, List("x"), [], default, default, new SpawnAction(33, 99999, 1)));
    }

    [Fact]
    public void Dispositions_and_mask_are_the_given_ones()
    {
        (int status, string output) = Run("/bin/cat", ["cat", "/proc/self/status"], ignored: SignalSet.Of(Signal.SIGUSR2), mask: SignalSet.Of(Signal.SIGHUP, Signal.SIGTERM));
        Assert.Equal(0, status);
        string Field(string name) => output.Split('\n').Single(line => line.StartsWith(name, StringComparison.Ordinal))[name.Length..].Trim();
        Assert.Equal("0000000000000800", Field("SigIgn:"));
        Assert.Equal("0000000000000000", Field("SigCgt:"));
        Assert.Equal("0000000000004001", Field("SigBlk:"));
    }

    [Fact]
    public void The_callers_mask_is_back_afterwards()
    {
        ulong before, after;
        HostSyscall.RawQuick(14, 0, 0, (ulong)&before, 8);
        Wait(NativeSpawn.Spawn("/bin/true"u8, List("true"), [], default, default));
        HostSyscall.RawQuick(14, 0, 0, (ulong)&after, 8);
        Assert.Equal(before, after);
    }

    [Fact]
    public void Session_and_group_are_set_before_the_program_starts()
    {
        // Fields 5 and 6 of stat: process group and session.
        const string Script = "set -- $(cat /proc/$$/stat); [ $5 = $$ ] && echo group; [ $6 = $$ ] && echo session";
        Assert.Equal((0, "group"), (0, Run("/bin/sh", ["sh", "-c", Script], actions: SpawnAction.SetProcessGroup(0)).Output));
        Assert.Equal((0, "group\nsession"), Run("/bin/sh", ["sh", "-c", Script], actions: SpawnAction.NewSession()));
    }

    [Fact]
    public void Descriptors_are_those_of_the_calling_thread_without_the_close_on_exec_ones()
    {
        string inside = "", outside = "";
        var thread = new Thread(() =>
        {
            Assert.Equal(0, HostSyscall.Raw(272, 0x400)); // unshare(CLONE_FILES)
            Assert.Equal(300, HostSyscall.Raw(33, 1, 300)); // dup2
            Assert.Equal(301, HostSyscall.Raw(292, 1, 301, 0x80000)); // dup3, O_CLOEXEC
            inside = Run("/bin/sh", ["sh", "-c", Test]).Output;
        });
        thread.Start();
        thread.Join();
        outside = Run("/bin/sh", ["sh", "-c", Test]).Output;
        Assert.Equal("300", inside);
        Assert.Equal("", outside);
    }

    private const string Test = "for i in 300 301; do [ -e /proc/self/fd/$i ] && echo $i; done; true";

    [Fact]
    public void Many_threads_may_spawn_while_the_collector_runs()
    {
        Parallel.For(0, 40, new ParallelOptions { MaxDegreeOfParallelism = 4 }, _ =>
        {
            GC.Collect(0);
            Assert.Equal(3, ExitOf(Wait(NativeSpawn.Spawn("/bin/sh"u8, List("sh", "-c", "exit 3"), [], default, default))));
        });
    }
}
