using System.Diagnostics;

namespace Privy.Hypervisor.Memory;

/// <summary>
/// Lets vCPUs of a space into the program, or keeps them all out while a snapshot is made: at that instant none may write.
/// </summary>
/// <param name="inside">Counts the vCPUs that are in; the guest's kernel looks at it.</param>
internal sealed unsafe class EntryGate(int* inside)
{
    private const double PatientMicroseconds = 100;

    private readonly object _monitor = new();
    private volatile bool _closed;

    /// <summary>Waits until the gate is open, and passes it.</summary>
    internal void Enter()
    {
        while (true)
        {
            Interlocked.Increment(ref *inside);
            if (!_closed)
                return;
            Leave();
            // A snapshot takes less than falling asleep and being woken.
            if (Patiently(open: true))
                continue;
            lock (_monitor)
            {
                while (_closed)
                    Monitor.Wait(_monitor);
            }
        }
    }

    /// <summary>The vCPU is out of the program, at a boundary.</summary>
    internal void Leave()
    {
        if (Interlocked.Decrement(ref *inside) == 0 && _closed)
        {
            lock (_monitor)
                Monitor.PulseAll(_monitor);
        }
    }

    /// <summary>Closes the gate, and has the vCPUs inside leave; they may not have left yet. The caller must be outside; one closer at a time.</summary>
    /// <param name="expel">Makes the vCPUs inside leave.</param>
    internal void Close(Action expel)
    {
        _closed = true;
        Interlocked.MemoryBarrier();
        if (Volatile.Read(ref *inside) == 0)
            return;
        expel();
        // The guest's kernel can wait for them as well, unless this processor is what they wait for.
        if (Environment.ProcessorCount == 1)
            AwaitEmpty();
    }

    /// <summary>Waits until nobody is inside.</summary>
    internal void AwaitEmpty()
    {
        if (Patiently(open: false))
            return;
        lock (_monitor)
        {
            while (Volatile.Read(ref *inside) != 0)
                Monitor.Wait(_monitor, 10);
        }
    }

    /// <summary>Opens the gate again.</summary>
    internal void Open()
    {
        lock (_monitor)
        {
            _closed = false;
            Monitor.PulseAll(_monitor);
        }
    }

    /// <summary>Looks for a while whether the gate is open, or else whether all are out.</summary>
    private bool Patiently(bool open)
    {
        for (var begin = Stopwatch.GetTimestamp(); Stopwatch.GetElapsedTime(begin).TotalMicroseconds < PatientMicroseconds;)
        {
            if (open ? !_closed : Volatile.Read(ref *inside) == 0)
                return true;
            // The processor may be what somebody else waits for.
            Thread.Yield();
        }

        return false;
    }
}
