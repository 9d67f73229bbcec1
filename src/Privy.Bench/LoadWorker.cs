using System.Diagnostics;
using System.Runtime.InteropServices;
using HdrHistogram;

namespace Privy.Bench;

/// <summary>One thread of the load generator and its connections.</summary>
internal sealed unsafe partial class LoadWorker : IDisposable
{
    private const short POLLIN = 1;
    private const short POLLOUT = 4;
    private const int PR_SET_TIMERSLACK = 29;

    /// <summary>How long replies are awaited once the run is over.</summary>
    private static readonly long DrainTicks = 60 * Stopwatch.Frequency;

    private readonly LoadOptions _options;
    private readonly LoadConnection[] _connections;
    private readonly RequestTemplate _template;
    private readonly long _quota;
    private readonly long _firstKey;
    private readonly long _keyStep;
    private readonly double _interval;
    private readonly double _firstDue;
    private FastRandom _random;
    private long _issued;
    private long _completed;
    private int _nextConnection;

    public LoadWorker(LoadOptions options, RequestTemplate template, int index, int workers)
    {
        _options = options;
        _template = template;
        _random = new FastRandom(options.Seed * 0x9E3779B97F4A7C15 + (ulong)index + 1);
        var requests = options.Requests ?? (options.Keys == KeyDistribution.Sequential ? options.KeyCount : null);
        _quota = requests is { } all ? all / workers + (index < all % workers ? 1 : 0) : long.MaxValue;
        _firstKey = index;
        _keyStep = workers;
        if (options.Rate is { } rate)
        {
            _interval = Stopwatch.Frequency * workers / rate;
            _firstDue = _interval * index / workers;
        }

        Writes = NewHistogram();
        Reads = NewHistogram();
        var slots = (options.Duration ?? TimeSpan.FromMinutes(2)) / options.SlotWidth;
        Series = new LatencySeries(options.SlotWidth, (int)Math.Min(slots + 16, 1 << 20));

        var connections = options.Connections / workers + (index < options.Connections % workers ? 1 : 0);
        _connections = new LoadConnection[connections];
        try
        {
            for (var i = 0; i < connections; i++) _connections[i] = new LoadConnection(options, template.MaxLength);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    public LongHistogram Writes { get; }
    public LongHistogram Reads { get; }
    public LatencySeries Series { get; }
    public long Completed => Volatile.Read(ref _completed);
    public long EndTimestamp { get; private set; }
    public long Errors => _connections.Sum(c => c.Replies.Errors);
    public string? FirstError => _connections.Select(c => c.Replies.FirstError).FirstOrDefault(e => e is not null);

    /// <summary>Up to 1,000 s in nanoseconds, three digits.</summary>
    public static LongHistogram NewHistogram() => new(1_000_000_000_000, 3);

    public void Dispose()
    {
        foreach (var connection in _connections) connection?.Dispose();
    }

    public void Run(long start, ref bool stop)
    {
        // The default lets the kernel wake us 50 µs late, which would be counted as the server's latency in an open loop.
        _ = ProcessControl(PR_SET_TIMERSLACK, 1, 0, 0, 0);

        var frequency = Stopwatch.Frequency;
        var deadline = _options.Duration is { } duration ? start + (long)(duration.TotalSeconds * frequency) : long.MaxValue;
        var polls = stackalloc PollFd[_connections.Length];
        var due = start + _firstDue;
        long drainDeadline = 0;
        EndTimestamp = start;

        while (true)
        {
            var now = Stopwatch.GetTimestamp();
            var ending = Volatile.Read(ref stop) || now >= deadline || _issued >= _quota;
            if (!ending)
            {
                if (_interval > 0) due = IssueDue(due, now);
                else IssueAll(now);
            }

            var idle = true;
            for (var i = 0; i < _connections.Length; i++)
            {
                var connection = _connections[i];
                connection.Flush();
                idle &= connection.IsIdle;
                polls[i] = new PollFd { Descriptor = connection.Descriptor, Events = (short)(connection.HasUnsent ? POLLIN | POLLOUT : POLLIN) };
            }

            if (ending)
            {
                if (idle) return;
                if (drainDeadline == 0) drainDeadline = now + DrainTicks;
                if (now > drainDeadline) throw new IOException("the server stopped answering");
            }

            // At most 100 ms, to notice the end of the run.
            var wait = 100_000_000L;
            if (!ending && _interval > 0 && HasRoom()) wait = Math.Clamp((long)((due - Stopwatch.GetTimestamp()) * 1e9 / frequency), 0, wait);
            var timeout = new TimeSpec { Nanoseconds = wait };
            if (Poll(polls, (ulong)_connections.Length, &timeout, null) <= 0) continue;

            for (var i = 0; i < _connections.Length; i++)
                if ((polls[i].Returned & ~POLLOUT) != 0) Receive(_connections[i], start);
        }
    }

    private void Receive(LoadConnection connection, long start)
    {
        var bytes = connection.Receive();
        if (bytes.IsEmpty) return;
        var now = Stopwatch.GetTimestamp();
        EndTimestamp = now;
        var replies = connection.Replies.Advance(bytes);
        for (var i = 0; i < replies; i++)
        {
            var (stamp, isRead) = connection.Take();
            var latency = Math.Max(0, ToNanoseconds(now - stamp));
            (isRead ? Reads : Writes).RecordValue(latency);
            Series.Add(ToNanoseconds(now - start), latency);
        }

        Volatile.Write(ref _completed, _completed + replies);
    }

    private void IssueAll(long now)
    {
        foreach (var connection in _connections)
            while (connection.HasRoom && _issued < _quota) Issue(connection, now);
    }

    /// <summary>Issues what is due by now, round robin over the connections that have room, and returns when the next request is due.</summary>
    private double IssueDue(double due, long now)
    {
        while (due <= now && _issued < _quota)
        {
            var tried = 0;
            while (!_connections[_nextConnection].HasRoom && tried++ < _connections.Length) Advance();
            if (!_connections[_nextConnection].HasRoom) break;
            Issue(_connections[_nextConnection], (long)due);
            Advance();
            due += _interval;
        }

        return due;

        void Advance() => _nextConnection = _nextConnection + 1 == _connections.Length ? 0 : _nextConnection + 1;
    }

    private bool HasRoom()
    {
        foreach (var connection in _connections)
            if (connection.HasRoom) return true;
        return false;
    }

    private void Issue(LoadConnection connection, long stamp)
    {
        var key = NextKey();
        var isRead = _options.ReadRatio > 0 && _random.NextDouble() < _options.ReadRatio;
        var target = connection.Reserve();
        connection.Add(isRead ? _template.WriteGet(target, key) : _template.WriteSet(target, key, ref _random), stamp, isRead);
        _issued++;
    }

    private long NextKey()
    {
        var count = _options.KeyCount;
        switch (_options.Keys)
        {
            case KeyDistribution.Sequential:
                return (_firstKey + _issued * _keyStep) % count;
            case KeyDistribution.Gaussian:
                while (true)
                {
                    var key = (long)Math.Floor(count * (0.5 + _options.GaussianDeviation * _random.NextGaussian()));
                    if (key >= 0 && key < count) return key;
                }

            default:
                return _random.Next(count);
        }
    }

    private static long ToNanoseconds(long ticks) => Stopwatch.Frequency == 1_000_000_000 ? ticks : (long)(ticks * (1e9 / Stopwatch.Frequency));

    [StructLayout(LayoutKind.Sequential)]
    private struct PollFd
    {
        public int Descriptor;
        public short Events;
        public short Returned;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct TimeSpec
    {
        public long Seconds;
        public long Nanoseconds;
    }

    [LibraryImport("libc", EntryPoint = "ppoll")]
    private static partial int Poll(PollFd* polls, ulong count, TimeSpec* timeout, void* signalMask);

    [LibraryImport("libc", EntryPoint = "prctl")]
    private static partial int ProcessControl(int option, ulong a2, ulong a3, ulong a4, ulong a5);
}
