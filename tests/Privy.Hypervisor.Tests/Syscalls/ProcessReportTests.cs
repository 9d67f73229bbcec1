using Privy.Hypervisor.Syscalls;

namespace Privy.Hypervisor.Tests.Syscalls;

public sealed class ProcessReportTests
{
    [Fact]
    public void Stat_gets_the_ids_of_the_program()
    {
        Assert.Equal("70 (a ) (b) S 60 61 62 0 -1 4194368 1\n", ProcessReport.Stat("5 (a ) (b) S 1 2 3 0 -1 4194368 1\n", 70, 60, 61, 62));
        Assert.Equal("", ProcessReport.Stat("", 70, 60, 61, 62));
        Assert.Equal("5 (cut", ProcessReport.Stat("5 (cut", 70, 60, 61, 62));
    }

    [Fact]
    public void Status_gets_the_ids_of_the_program() =>
        Assert.Equal("Name:\tx\nTgid:\t70\nNgid:\t0\nPid:\t70\nPPid:\t60\nTracerPid:\t0\n", ProcessReport.Status("Name:\tx\nTgid:\t1\nNgid:\t0\nPid:\t5\nPPid:\t2\nTracerPid:\t0\n", 70, 60));
}
