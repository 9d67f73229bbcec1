using System.Globalization;
using System.Text;

namespace Privy.Bench;

/// <summary>SET and GET requests in the Redis protocol, written into a buffer by copying a prepared one and filling in the key and the value.</summary>
internal sealed class RequestTemplate
{
    private const string KeyPrefix = "key:";
    private const int KeyDigits = 12;
    public const long MaxKeys = 1_000_000_000_000;

    // Values are cut out of this at random places: cheap, never equal, and not compressible.
    private const int PoolSlack = 1 << 20;

    private readonly byte[] _set;
    private readonly byte[] _get;
    private readonly int _setKeyAt;
    private readonly int _getKeyAt;
    private readonly int _valueAt;
    private readonly int _randomSize;
    private readonly byte[] _pool;

    public RequestTemplate(int valueSize, double compressible, ulong seed)
    {
        var key = KeyPrefix + new string('0', KeyDigits);
        var head = string.Create(CultureInfo.InvariantCulture, $"*3\r\n$3\r\nSET\r\n${key.Length}\r\n{key}\r\n${valueSize}\r\n");
        _randomSize = (int)Math.Round(valueSize * (1 - compressible));
        _valueAt = head.Length;
        _set = new byte[head.Length + valueSize + 2];
        Encoding.ASCII.GetBytes(head, _set);
        _set.AsSpan(head.Length, valueSize).Fill((byte)'x');
        "\r\n"u8.CopyTo(_set.AsSpan(head.Length + valueSize));
        _setKeyAt = head.IndexOf(key, StringComparison.Ordinal) + KeyPrefix.Length;

        var get = string.Create(CultureInfo.InvariantCulture, $"*2\r\n$3\r\nGET\r\n${key.Length}\r\n{key}\r\n");
        _get = Encoding.ASCII.GetBytes(get);
        _getKeyAt = get.IndexOf(key, StringComparison.Ordinal) + KeyPrefix.Length;

        _pool = new byte[_randomSize + PoolSlack];
        var random = new FastRandom(seed);
        for (var i = 0; i < _pool.Length; i++) _pool[i] = (byte)('!' + random.Next(94));
    }

    /// <summary>The longest request.</summary>
    public int MaxLength => Math.Max(_set.Length, _get.Length);

    /// <summary>What values are pieces of.</summary>
    public ReadOnlySpan<byte> Pool => _pool;

    public int WriteSet(Span<byte> target, long key, ref FastRandom random)
    {
        _set.CopyTo(target);
        WriteKey(target[_setKeyAt..], key);
        _pool.AsSpan((int)random.Next(PoolSlack), _randomSize).CopyTo(target[_valueAt..]);
        return _set.Length;
    }

    public int WriteGet(Span<byte> target, long key)
    {
        _get.CopyTo(target);
        WriteKey(target[_getKeyAt..], key);
        return _get.Length;
    }

    private static void WriteKey(Span<byte> target, long key)
    {
        for (var i = KeyDigits - 1; i >= 0; i--)
        {
            target[i] = (byte)('0' + key % 10);
            key /= 10;
        }
    }
}
