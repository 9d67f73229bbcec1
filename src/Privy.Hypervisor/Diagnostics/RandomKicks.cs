using Privy.Hypervisor.Boot;

namespace Privy.Hypervisor.Diagnostics;

/// <summary>Kicks vCPUs at random times, so at random instructions (<see cref="FaultInjection.KickMicroseconds"/>).</summary>
internal static class RandomKicks
{
    internal static void Start(Machine machine)
    {
        if (FaultInjection.KickMicroseconds == 0)
            return;
        new Thread(() => Kick(machine), 256 * 1024) { IsBackground = true, Name = "privy-faults" }.Start();
    }

    private static void Kick(Machine machine)
    {
        while (true)
        {
            var microseconds = FaultInjection.Next() % (2 * (ulong)FaultInjection.KickMicroseconds);
            Thread.Sleep(TimeSpan.FromMicroseconds(microseconds));
            machine.KickAny((int)(FaultInjection.Next() & int.MaxValue));
        }
    }
}
