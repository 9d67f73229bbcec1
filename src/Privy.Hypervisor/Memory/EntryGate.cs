using System.Diagnostics;

namespace Privy.Hypervisor.Memory;

/// <summary>
/// Lets vCPUs of a space into the program, or keeps them all out while a snapshot is made: at that instant none may write.
/// </summary>
internal sealed class EntryGate
{
    private const double PatientMicroseconds = 100;

    private readonly object _monitor = new();
    private int _inside;
    private volatile bool _closed;

    /// <summary>Waits until the gate is open, and passes it.</summary>
    internal void Enter()
    {
        while (true)
        {
            Interlocked.Increment(ref _inside);
            if (!_closed)
                return;
            Leave();
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
        if (Interlocked.Decrement(ref _inside) == 0 && _closed)
        {
            lock (_monitor)
                Monitor.PulseAll(_monitor);
        }
    }

    /// <summary>Closes the gate and waits until nobody is inside. The caller must be outside; one closer at a time.</summary>
    /// <param name="expel">Makes the vCPUs inside leave.</param>
    internal void Close(Action expel)
    {
        _closed = true;
        Interlocked.MemoryBarrier();
        if (Volatile.Read(ref _inside) == 0)
            return;
        expel();
        // They come within some 30 us, which is less than it takes to fall asleep and be woken.
        for (var begin = Stopwatch.GetTimestamp(); Stopwatch.GetElapsedTime(begin).TotalMicroseconds < PatientMicroseconds;)
        {
            if (Volatile.Read(ref _inside) == 0)
                return;
            // The processor may be what one of them waits for.
            Thread.Yield();
        }

        lock (_monitor)
        {
            while (Volatile.Read(ref _inside) != 0)
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
}
