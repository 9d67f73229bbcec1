using System.Globalization;

namespace Privy.Bench.Soak;

/// <summary>
/// A client whose every transfer between accounts is one step of the server, and who remembers them all: what a snapshot must show is known
/// to the byte, from the number of the last transfer in it.
/// </summary>
internal sealed class Ledger : IDisposable
{
    public const string AccountPrefix = "account:", SequenceKey = "transfers";
    public const int Accounts = 1000;
    private const string Transfer = "redis.call('INCRBY', KEYS[1], ARGV[1]) redis.call('DECRBY', KEYS[2], ARGV[1]) return redis.call('INCR', KEYS[3])";
    private const int PauseMilliseconds = 2;

    private readonly RespClient _client;
    private readonly List<(short To, short From, short Amount)> _transfers = [];
    private readonly long[] _balances = new long[Accounts];
    private readonly Thread _thread;
    private FastRandom _random;
    private long _checkedUpTo;
    private long _issued;
    private long _acknowledged;
    private bool _stop;

    public Ledger(int port, ulong seed)
    {
        _random = new FastRandom(seed);
        _client = RespClient.Connect(port, TimeSpan.FromMinutes(3));
        for (var i = 0; i < Accounts; i++) _client.Command("SET", AccountPrefix + i.ToString(CultureInfo.InvariantCulture), "0");
        _client.Command("SET", SequenceKey, "0");
        _thread = new Thread(Work) { IsBackground = true, Name = "ledger" };
        _thread.Start();
    }

    /// <summary>Transfers that the server has confirmed.</summary>
    public long Acknowledged => Volatile.Read(ref _acknowledged);

    /// <summary>Transfers that were sent.</summary>
    public long Issued => Volatile.Read(ref _issued);

    /// <summary>Why the client has ended, if it has.</summary>
    public string? Failure { get; private set; }

    /// <summary>The balances after so many transfers. Asked for in rising order.</summary>
    public ReadOnlySpan<long> BalancesAfter(long transfers)
    {
        lock (_transfers)
        {
            for (; _checkedUpTo < transfers; _checkedUpTo++)
            {
                var (to, from, amount) = _transfers[(int)_checkedUpTo];
                _balances[to] += amount;
                _balances[from] -= amount;
            }
        }

        return _balances;
    }

    public void Stop()
    {
        Volatile.Write(ref _stop, true);
        _thread.Join();
    }

    public void Dispose()
    {
        Stop();
        _client.Dispose();
    }

    private void Work()
    {
        try
        {
            while (!Volatile.Read(ref _stop))
            {
                var (to, from, amount) = ((short)_random.Next(Accounts), (short)_random.Next(Accounts), (short)(1 + _random.Next(30000)));
                lock (_transfers) _transfers.Add((to, from, amount));
                Volatile.Write(ref _issued, _issued + 1);
                var number = _client.Command("EVAL", Transfer, "3", AccountPrefix + to.ToString(CultureInfo.InvariantCulture), AccountPrefix + from.ToString(CultureInfo.InvariantCulture), SequenceKey, amount.ToString(CultureInfo.InvariantCulture));
                if (number != _issued.ToString(CultureInfo.InvariantCulture)) throw new BenchException($"transfer {_issued} is the server's number {number}");
                Volatile.Write(ref _acknowledged, _issued);
                Thread.Sleep(PauseMilliseconds);
            }
        }
        catch (Exception e) when (e is BenchException or IOException or InvalidDataException)
        {
            Failure = e.Message;
        }
    }
}
