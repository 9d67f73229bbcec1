using System.Diagnostics;
using System.Globalization;

namespace Privy.Bench;

/// <summary>What an idle server cost.</summary>
/// <param name="Processor">Processor time of the process, all its threads, in user and kernel mode.</param>
/// <param name="Switches">Times its threads were put on a processor.</param>
public sealed record IdleResult(TimeSpan Processor, long Switches);

/// <summary>Processor time of a server that nobody talks to: its own timers, and what Privy adds to them.</summary>
public static class IdleBenchmark
{
    // A server is busy for a moment after it begins to answer.
    private static readonly TimeSpan Settling = TimeSpan.FromSeconds(2);

    /// <summary>Starts a server and watches it.</summary>
    /// <param name="program">The server's program.</param>
    /// <param name="launcher">What precedes its command line; empty to run it natively.</param>
    /// <param name="length">How long to watch.</param>
    /// <param name="cancellation">Ends the measurement early.</param>
    public static IdleResult Run(string program, IReadOnlyList<string> launcher, TimeSpan length, CancellationToken cancellation = default)
    {
        using var server = RedisServer.Start(new RedisServerOptions { Program = program, Launcher = launcher }, cancellation);
        Wait(Settling, cancellation);
        var before = Read(server.ProcessId);
        Wait(length, cancellation);
        var after = Read(server.ProcessId);
        return new IdleResult(after.Processor - before.Processor, after.Switches - before.Switches);
    }

    /// <summary>Processor time and switches so far of a process; threads that have ended count in the first alone.</summary>
    public static IdleResult Read(int processId)
    {
        using var process = Process.GetProcessById(processId);
        long switches = 0;
        foreach (var thread in Directory.GetDirectories($"/proc/{processId}/task"))
        {
            foreach (var name in (ReadOnlySpan<string>)["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"])
                switches += long.Parse(Machine.Field(thread + "/status", name) ?? "0", CultureInfo.InvariantCulture);
        }

        return new IdleResult(process.TotalProcessorTime, switches);
    }

    private static void Wait(TimeSpan time, CancellationToken cancellation)
    {
        cancellation.WaitHandle.WaitOne(time);
        cancellation.ThrowIfCancellationRequested();
    }
}
