using System.Diagnostics;
using System.Globalization;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Signals;

namespace Privy.Hypervisor.Tests.Host;

/// <summary>Processes of the host that stand for forked children.</summary>
public sealed class StandInTests
{
    private static readonly StandInMaker s_maker = new();

    private static StandIn Make()
    {
        var name = "a-child\0\0\0\0\0\0\0\0\0"u8;
        return s_maker.Make((BitConverter.ToUInt64(name), BitConverter.ToUInt64(name[8..])))!;
    }

    private static void End(StandIn standIn)
    {
        standIn.Kill();
        Assert.True(standIn.TryReap(wait: true));
        Assert.False(Directory.Exists($"/proc/{standIn.ProcessId}"));
    }

    private static string[] Stat(int id)
    {
        var text = File.ReadAllText($"/proc/{id}/stat");
        return [text[(text.IndexOf('(', StringComparison.Ordinal) + 1)..text.LastIndexOf(')')], .. text[(text.LastIndexOf(')') + 2)..].Split(' ')];
    }

    /// <summary>Reads the next message of a stand-in; those of others, which tests before have left, are passed over.</summary>
    private static StandInMessage Next(StandIn standIn)
    {
        for (var since = Stopwatch.StartNew(); since.Elapsed < TimeSpan.FromSeconds(100); Thread.Sleep(1))
        {
            while (s_maker.TryRead(out var message))
            {
                if (message.ProcessId == standIn.ProcessId)
                    return message;
            }
        }

        throw new TimeoutException("the stand-in says nothing");
    }

    [Fact]
    public void It_is_a_child_of_this_process_with_the_given_name()
    {
        var standIn = Make();
        for (var round = 0; round < 2; round++)
        {
            SpinWait.SpinUntil(() => Stat(standIn.ProcessId)[0] == "a-child", TimeSpan.FromSeconds(100));
            var stat = Stat(standIn.ProcessId);
            Assert.Equal("a-child", stat[0]);
            Assert.Equal(Environment.ProcessId, int.Parse(stat[2], CultureInfo.InvariantCulture));
            // The second time, once it has executed its program.
            if (round == 0)
                Assert.Equal(0, Next(standIn).Info.Number);
        }

        Assert.Equal(File.ReadAllText("/proc/self/cmdline"), File.ReadAllText($"/proc/{standIn.ProcessId}/cmdline"));
        End(standIn);
    }

    [Fact]
    public void It_gets_memory_of_its_own_when_it_is_asked_to_and_a_setting_with_it()
    {
        var own = File.ReadAllText("/proc/self/oom_score_adj");
        var standIn = Make();
        var answer = new Thread(() =>
        {
            Assert.Equal(0, Next(standIn).Info.Number);
            standIn.Settle(ownMemory: true);
        });
        answer.Start();
        Assert.True(standIn.AwaitOwnMemory(stopped: false, out _));
        answer.Join();
        File.WriteAllText($"/proc/{standIn.ProcessId}/oom_score_adj", "777");
        Assert.Equal("777\n", File.ReadAllText($"/proc/{standIn.ProcessId}/oom_score_adj"));
        Assert.Equal(own, File.ReadAllText("/proc/self/oom_score_adj"));
        Assert.InRange(Process.GetProcessById(standIn.ProcessId).WorkingSet64, 1, 100_000);
        Assert.InRange(Directory.GetFileSystemEntries($"/proc/{standIn.ProcessId}/fd").Length, 1, 2);
        End(standIn);
    }

    /// <summary>At whatever time they come: while it shares memory, while it executes its program, and after that. None is lost.</summary>
    [Fact]
    public void It_hands_signals_over()
    {
        var random = new Random(1);
        for (var round = 0; round < 30; round++)
        {
            var standIn = Make();
            Thread.Sleep(random.Next(40));
            _ = HostSyscall.Raw(HostCallNumber.Kill, (ulong)standIn.ProcessId, Signal.SIGTERM);
            _ = HostSyscall.Raw(HostCallNumber.Kill, (ulong)standIn.ProcessId, Signal.SIGUSR1);
            var taken = new HashSet<int>();
            while (taken.Count < 3)
            {
                var info = Next(standIn).Info;
                Assert.True(taken.Add(info.Number), $"signal {info.Number} came twice");
                if (info.Number != 0)
                    Assert.Equal((SignalInfo.SI_USER, Environment.ProcessId), (info.Code, info.ProcessId));
            }

            Assert.Equal([0, Signal.SIGUSR1, Signal.SIGTERM], taken.Order());
            End(standIn);
        }
    }

    [Fact]
    public void It_can_be_stopped_and_asked_whether_it_is()
    {
        for (var round = 0; round < 3; round++)
        {
            var standIn = Make();
            Thread.Sleep(round * 20);
            Assert.False(standIn.IsStopped);
            standIn.Send(Signal.SIGSTOP);
            SpinWait.SpinUntil(() => standIn.IsStopped, TimeSpan.FromSeconds(100));
            // Asked twice: it is no news that is taken.
            Assert.True(standIn.IsStopped);
            Assert.Equal("T", Stat(standIn.ProcessId)[1]);
            standIn.Send(Signal.SIGCONT);
            Assert.False(standIn.IsStopped);
            Assert.Equal(0, Next(standIn).Info.Number);
            standIn.Settle(ownMemory: true);
            standIn.Send(Signal.SIGSTOP);
            End(standIn);
            Assert.False(standIn.IsStopped);
        }
    }

    [Fact]
    public void Its_end_can_be_polled_for_and_its_id_stays_taken_until_it_is_reaped()
    {
        var standIn = Make();
        standIn.Follow();
        Assert.True(standIn.EndDescriptor > 2);
        Assert.False(standIn.TryReap());
        standIn.Kill();
        SpinWait.SpinUntil(() => Stat(standIn.ProcessId)[1] == "Z", TimeSpan.FromSeconds(100));
        Assert.Equal("Z", Stat(standIn.ProcessId)[1]);
        standIn.Unfollow();
        Assert.True(standIn.TryReap());
        Assert.True(standIn.TryReap());
        Assert.False(standIn.AwaitOwnMemory(stopped: false, out _));
    }
}
