namespace Privy.Hypervisor.Host;

/// <summary>
/// Repeats interrupts that were sent by the spare kick (<see cref="SafeSyscall.SpareKickSignal"/>), until their threads have seen them. The kick that has room in the queue of signals
/// is repeated by a timer of its thread; such a timer cannot be had while the queue is full.
/// </summary>
internal static class InterruptRepeater
{
    private const int PeriodMilliseconds = 1;

    private static readonly Lock Gate = new();
    private static readonly List<HostThread> Interrupted = [];
    private static bool s_running;

    /// <summary>From any thread, with locks held: never waits for the thread.</summary>
    internal static void Add(HostThread thread)
    {
        lock (Gate)
        {
            if (!Interrupted.Contains(thread))
                Interrupted.Add(thread);
            if (s_running)
                return;
            s_running = true;
        }
        new Thread(Run, 256 * 1024) { IsBackground = true, Name = "privy-kicks" }.Start();
    }

    private static void Run()
    {
        while (true)
        {
            Thread.Sleep(PeriodMilliseconds);
            HostThread[] threads;
            lock (Gate)
                threads = [.. Interrupted];
            foreach (HostThread thread in threads)
            {
                // Without the lock: whoever adds a thread holds that thread's.
                if (thread.RepeatInterrupt())
                    continue;
                lock (Gate)
                    Interrupted.Remove(thread);
                // It may have been interrupted again in between.
                if (thread.InterruptPending)
                    Add(thread);
            }
            lock (Gate)
            {
                if (Interrupted.Count != 0)
                    continue;
                s_running = false;
                return;
            }
        }
    }
}
