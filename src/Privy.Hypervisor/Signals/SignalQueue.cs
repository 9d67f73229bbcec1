namespace Privy.Hypervisor.Signals;

/// <summary>Pending signals of a thread or a process. A standard signal is pending once; real-time signals queue with their values, in order. Not locked.</summary>
internal sealed class SignalQueue
{
    private readonly Entry[] _standard = new Entry[Signal.FirstRealTime];
    private readonly Queue<Entry>?[] _realTime = new Queue<Entry>?[Signal.Count + 1 - Signal.FirstRealTime];
    private int _queued;

    internal SignalSet Pending { get; private set; }

    /// <summary>False if a real-time signal finds no room (EAGAIN from sigqueue). A standard signal that is pending already stays as it is.</summary>
    internal bool TryAdd(in SignalInfo info, PosixTimer? timer, int limit)
    {
        int signal = info.Number;
        if (signal < Signal.FirstRealTime)
        {
            if (!Pending.Contains(signal))
            {
                _standard[signal] = new Entry(info, timer);
                timer?.Queued();
                Pending = Pending.With(signal);
            }
            return true;
        }
        if (_queued >= limit)
            return false;
        (_realTime[signal - Signal.FirstRealTime] ??= new Queue<Entry>()).Enqueue(new Entry(info, timer));
        timer?.Queued();
        _queued++;
        Pending = Pending.With(signal);
        return true;
    }

    /// <summary>Takes the next of the allowed signals: those of faulting instructions first, then the lowest number.</summary>
    internal bool TryTake(SignalSet allowed, out SignalInfo info)
    {
        SignalSet candidates = Pending & allowed;
        if (candidates.IsEmpty)
        {
            info = default;
            return false;
        }
        SignalSet synchronous = candidates & SignalSet.Synchronous;
        int signal = System.Numerics.BitOperations.TrailingZeroCount((synchronous.IsEmpty ? candidates : synchronous).Bits) + 1;
        Entry entry;
        if (signal < Signal.FirstRealTime)
        {
            entry = _standard[signal];
            _standard[signal] = default;
            Pending = Pending.Without(signal);
        }
        else
        {
            Queue<Entry> queue = _realTime[signal - Signal.FirstRealTime]!;
            entry = queue.Dequeue();
            _queued--;
            if (queue.Count == 0)
                Pending = Pending.Without(signal);
        }
        info = entry.Info;
        entry.Timer?.Taken(ref info);
        return true;
    }

    internal void Discard(SignalSet signals)
    {
        while (TryTake(signals, out _))
        {
        }
    }

    private readonly record struct Entry(SignalInfo Info, PosixTimer? Timer);
}
