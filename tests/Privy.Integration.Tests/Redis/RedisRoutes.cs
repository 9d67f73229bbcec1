using System.Globalization;
using System.Net.Sockets;

namespace Privy.Integration.Tests;

/// <summary>The way through a Redis Cluster: a table of slots, put right by the redirections of the nodes.</summary>
internal sealed class ClusterRoute : IRoute
{
    public const int Slots = 16384;
    private readonly int[] owners = new int[Slots];
    private readonly int[] nodes;

    /// <param name="nodes">The ports of all nodes.</param>
    /// <param name="owner">The port of the node that has a slot at first.</param>
    public ClusterRoute(IEnumerable<int> nodes, Func<int, int> owner)
    {
        this.nodes = [.. nodes];
        for (var slot = 0; slot < Slots; slot++)
            owners[slot] = owner(slot);
    }

    public int Find(string tag) => Volatile.Read(ref owners[Slot(tag)]);

    public void Failed(string tag, string? error)
    {
        var slot = Slot(tag);
        // "MOVED 3999 127.0.0.1:6381"; anything else may be a node that is gone, so another one is asked.
        var port = error is not null && error.StartsWith("MOVED ", StringComparison.Ordinal)
            ? int.Parse(error.AsSpan(error.LastIndexOf(':') + 1), CultureInfo.InvariantCulture)
            : nodes[(Array.IndexOf(nodes, owners[slot]) + 1) % nodes.Length];
        Volatile.Write(ref owners[slot], port);
    }

    /// <summary>The slot of a hash tag: CRC-16/XMODEM (polynomial 0x1021) modulo 16384, as the Cluster specification has it.</summary>
    public static int Slot(string tag)
    {
        var crc = 0;
        foreach (var character in tag)
        {
            crc ^= character << 8;
            for (var bit = 0; bit < 8; bit++)
                crc = (crc & 0x8000) != 0 ? (crc << 1 ^ 0x1021) & 0xffff : crc << 1;
        }

        return crc % Slots;
    }
}

/// <summary>The way to the one primary that a group of Sentinels watches.</summary>
internal sealed class SentinelRoute(string name, int first, IReadOnlyList<RedisServer> sentinels) : IRoute
{
    private int current = first;

    public int Find(string tag) => Volatile.Read(ref current);

    public void Failed(string tag, string? error)
    {
        foreach (var sentinel in sentinels)
        {
            try
            {
                if (sentinel.Must("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name).Items is [_, var port])
                {
                    Volatile.Write(ref current, (int)port.Number);
                    return;
                }
            }
            catch (Exception e) when (e is IOException or SocketException)
            {
                // the next one
            }
        }
    }
}
