using System.Globalization;
using Privy.Hypervisor.Host;

namespace Privy.Hypervisor.Processes;

/// <summary>What <c>--stats</c> prints when the program has ended.</summary>
internal static unsafe class StatisticsReport
{
    internal static void Print(ProcessTable table)
    {
        var machine = table.Machine;
        var state = machine.State;
        var exits = machine.TotalExits();
        var (faults, asked, copies) = machine.TotalFaults();
        var (count, median, max) = table.Snapshots.Summarise();
        Line("system calls by an exit", exits.Syscalls);
        var (completed, declined, takenBack) = table.Poller.Totals;
        Line("system calls without an exit", completed);
        Line("system calls handed back", declined);
        Line("system calls taken back", takenBack);
        Line("system-call sites rewritten", table.Sites?.Rewritten ?? 0);
        Line("writes put off", table.Poller.Deferred.Writes);
        Line("reads ahead", table.Poller.Deferred.Reads);
        Line("exits for faults and signals", exits.KernelExits);
        Line("exceptions", exits.Exceptions);
        Line("kernel calls", exits.KernelCalls);
        Line("kernel requests", exits.HostRequests);
        Line("kicks", exits.Kicks);
        Line("root loads", exits.RootLoads);
        Line("page faults", (long)faults);
        Line("page faults whose address ring 0 told", (long)asked);
        Line("pages copied on write", (long)copies);
        Line("pages copied ahead of a write", (long)state->CopiedAhead);
        Line("pages copied for a reader", (long)state->CopiedForReaders);
        Line("large pages restored", (long)state->Collapsed);
        Line("shootdowns", (long)state->Shootdowns);
        Line("shootdowns spared", (long)state->ShootdownsSpared);
        Line("frames in use", (long)state->FramesInUse);
        Line("frames at peak", (long)state->FramesPeak);
        Line("page tables in use", (long)state->TablesInUse);
        Line("memory slots", machine.Slots.Count);
        Line("vCPUs in use", machine.VcpusInUse);
        if (Diagnostics.Canaries.Pages != 0)
            Line("canary pages intact", Diagnostics.Canaries.Pages);
        Line("snapshots", count);
        ErrorOutput.WriteLine(string.Create(CultureInfo.InvariantCulture, $"privy: snapshot latency: p50 {median / 1000.0:F1} us, max {max / 1000.0:F1} us"));
    }

    private static void Line(string name, long value) => ErrorOutput.WriteLine(string.Create(CultureInfo.InvariantCulture, $"privy: {name}: {value}"));
}
