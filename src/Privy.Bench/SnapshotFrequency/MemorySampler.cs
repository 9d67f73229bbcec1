namespace Privy.Bench.SnapshotFrequency;

/// <summary>Watches how much of the machine's memory is taken, by phases of a measured program.</summary>
internal sealed class MemorySampler : IDisposable
{
    private readonly Dictionary<string, long> _least = [];
    private readonly ManualResetEventSlim _end = new();
    private readonly Thread _thread;
    private string? _phase;

    public MemorySampler()
    {
        _thread = new Thread(Watch) { IsBackground = true, Name = "memory" };
        _thread.Start();
    }

    /// <summary>A phase begins.</summary>
    public void Begin(string phase)
    {
        lock (_least) _phase = phase;
    }

    /// <summary>The least memory that was available in a phase; null if it was never looked at.</summary>
    public long? Least(string phase)
    {
        lock (_least) return _least.TryGetValue(phase, out var value) ? value : null;
    }

    public void Dispose()
    {
        _end.Set();
        _thread.Join();
        _end.Dispose();
    }

    private void Watch()
    {
        while (!_end.Wait(25))
        {
            var available = Machine.AvailableMemory();
            lock (_least)
            {
                if (_phase is null) continue;
                _least[_phase] = Math.Min(available, _least.GetValueOrDefault(_phase, long.MaxValue));
            }
        }
    }
}
