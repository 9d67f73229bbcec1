using System.Globalization;

namespace Privy.Integration.Tests;

/// <summary>A program that waits makes nothing else run.</summary>
public class IdleTests
{
    /// <summary>
    /// Counts how often any thread of the process, the hypervisor's included, was put on a processor. A time would say something about the machine;
    /// a thread that polls, even ten times a second, shows here.
    /// </summary>
    [PrivyFact]
    public void No_thread_runs_while_the_program_sleeps()
    {
        using var run = new ProcessRun(Launcher.Command("/bin/sleep", ["60"]), Path.GetTempPath());
        Thread.Sleep(2000);
        var before = Switches(run.Id);
        Thread.Sleep(3000);
        Assert.InRange(Switches(run.Id) - before, 0, 10);
        Assert.Equal(0, Native.Kill(run.Id, Native.SIGKILL));
    }

    private static long Switches(int processId) =>
        Directory.GetDirectories($"/proc/{processId}/task").SelectMany(thread => File.ReadLines(thread + "/status"))
            .Where(line => line.Contains("ctxt_switches:", StringComparison.Ordinal)).Sum(line => long.Parse(line.Split(':')[1], CultureInfo.InvariantCulture));
}
