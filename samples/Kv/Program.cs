// A small key-value server that speaks Redis's protocol: an example of the Privy library, to be read from top to bottom.
//
//   Store.cs        a hash table in a SnapshotRegion: everything is an offset, so the bytes mean the same wherever they lie
//   Resp.cs         the protocol: requests in, replies out
//   Commands.cs     what a client can ask for
//   Server.cs       connections, and saving: a snapshot under the lock, written to disk without it
//
// Start it with     privy-kv [--port 7379] [--memory 1g] [--dir FOLDER]
// and talk to it with redis-cli -p 7379, or redis-benchmark -p 7379 -t set,get,incr.

using System.Globalization;
using Kv;
using Privy;

int port = 7379;
long memory = 1L << 30;
string? folder = null;
try
{
    for (int i = 0; i < args.Length; i += 2)
    {
        string value = i + 1 < args.Length ? args[i + 1] : throw new FormatException($"{args[i]} needs a value.");
        switch (args[i])
        {
            case "--port":
                port = int.Parse(value, CultureInfo.InvariantCulture);
                break;
            case "--memory":
                memory = ParseSize(value);
                break;
            case "--dir":
                folder = value;
                break;
            default:
                throw new FormatException($"There is no option {args[i]}; there are --port, --memory and --dir.");
        }
    }
}
catch (Exception e) when (e is FormatException or OverflowException)
{
    Console.Error.WriteLine($"privy-kv: {e.Message}");
    return 2;
}

try
{
    using SnapshotRegion region = SnapshotRegion.Create(memory, new SnapshotRegionOptions { AllowCopying = true });
    using Checkpointer? checkpointer = folder is null ? null : new Checkpointer(region, folder);
    if (checkpointer?.Restore() is { Number: > 0 } restored)
    {
        foreach (string problem in restored.Problems)
            Console.Error.WriteLine($"privy-kv: not loaded: {problem}");
        Console.WriteLine($"loaded checkpoint {restored.Number}");
    }
    var store = new Store(region);
    var server = new Server(region, store, checkpointer);
    using var stop = new CancellationTokenSource();
    Console.CancelKeyPress += (_, e) =>
    {
        e.Cancel = true;
        stop.Cancel();
    };
    server.Run(port, stop, () => Console.WriteLine($"ready on port {port}, {region.Engine.ToString().ToLowerInvariant()} engine, {store.Count} keys"));
    return 0;
}
catch (Exception e) when (e is IOException or ArgumentException or InvalidOperationException or InsufficientMemoryException or System.Net.Sockets.SocketException)
{
    Console.Error.WriteLine($"privy-kv: {e.Message}");
    return 1;
}

static long ParseSize(string text)
{
    int shift = char.ToLowerInvariant(text[^1]) switch { 'k' => 10, 'm' => 20, 'g' => 30, _ => 0 };
    return long.Parse(shift == 0 ? text : text[..^1], CultureInfo.InvariantCulture) << shift;
}
