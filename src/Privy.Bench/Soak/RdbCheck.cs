using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;

namespace Privy.Bench.Soak;

/// <summary>Checks every byte of every RDB file of a soak.</summary>
internal sealed class RdbCheck
{
    private readonly Ledger _ledger;
    private readonly long _keys;
    private readonly int _valueSize;
    private readonly byte[] _pool;
    private readonly Dictionary<ulong, int> _places = [];

    public RdbCheck(Ledger ledger, long keys, int valueSize, ReadOnlySpan<byte> pool)
    {
        (_ledger, _keys, _valueSize, _pool) = (ledger, keys, valueSize, pool.ToArray());
        for (var i = 0; i + valueSize <= _pool.Length; i++) _places.TryAdd(MemoryMarshal.Read<ulong>(_pool.AsSpan(i)), i);
    }

    /// <summary>
    /// Checks a file of a BGSAVE that was sent when <paramref name="least"/> transfers were confirmed and answered when <paramref name="most"/> had
    /// been sent. Returns what is wrong, or null.
    /// </summary>
    public string? Check(ReadOnlySpan<byte> file, long least, long most)
    {
        var balances = new long[Ledger.Accounts];
        var seen = 0;
        long values = 0, transfers = -1;
        string? wrong = null;
        long keys;
        try
        {
            keys = RdbFile.Read(file, (key, value) =>
            {
                if (key.StartsWith("key:"u8))
                {
                    values++;
                    if (wrong is null && !IsWhole(value)) wrong = $"the value of {Encoding.ASCII.GetString(key)} ({value.Length} bytes) is none that was ever written";
                }
                else if (key.SequenceEqual("transfers"u8))
                {
                    transfers = long.Parse(value, CultureInfo.InvariantCulture);
                }
                else if (key.StartsWith("account:"u8))
                {
                    balances[int.Parse(key["account:".Length..], CultureInfo.InvariantCulture)] = long.Parse(value, CultureInfo.InvariantCulture);
                    seen++;
                }
            });
        }
        catch (InvalidDataException e)
        {
            return e.Message;
        }

        if (wrong is not null) return wrong;
        if (values != _keys) return $"{values} of {_keys} keys are there";
        if (seen != Ledger.Accounts || keys != values + seen + 1) return $"{seen} of {Ledger.Accounts} accounts are there, and {keys} keys in all";
        if (transfers < least || transfers > most) return $"it holds {transfers} transfers; {least} were confirmed before the BGSAVE, {most} sent before its answer";
        var expected = _ledger.BalancesAfter(transfers);
        for (var i = 0; i < balances.Length; i++)
            if (balances[i] != expected[i]) return $"after {transfers} transfers account {i} holds {balances[i]} and not {expected[i]}";
        return null;
    }

    /// <summary>A value is a piece of the load generator's pool: half old and half new, it is not.</summary>
    private bool IsWhole(ReadOnlySpan<byte> value) =>
        value.Length == _valueSize && _places.TryGetValue(MemoryMarshal.Read<ulong>(value), out var place) && value.SequenceEqual(_pool.AsSpan(place, _valueSize));
}
