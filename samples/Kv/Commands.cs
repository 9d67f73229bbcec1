using System.Buffers.Text;
using System.Globalization;
using System.Text;

namespace Kv;

/// <summary>The arguments of a request, wherever they lie: in a connection's buffer or in the queue of a transaction.</summary>
internal readonly ref struct Request
{
    private readonly RequestReader? _reader;
    private readonly byte[][]? _copy;

    internal Request(RequestReader reader) => _reader = reader;

    internal Request(byte[][] copy) => _copy = copy;

    internal int Count => _copy?.Length ?? _reader!.Count;

    internal ReadOnlySpan<byte> this[int index] => _copy is not null ? _copy[index] : _reader![index];

    internal string Name => Encoding.UTF8.GetString(this[0]).ToUpperInvariant();
}

/// <summary>What clients can ask of the store. Runs under the server's lock.</summary>
internal sealed class Commands(Store store, Server server)
{
    private delegate void Handler(in Request request, ReplyWriter reply);

    private readonly Dictionary<string, (Handler Handler, int Least, int Most)> _table = [];

    internal Commands Fill()
    {
        const int Many = int.MaxValue;
        _table["GET"] = (Get, 2, 2);
        _table["SET"] = (Set, 3, 3);
        _table["DEL"] = (Delete, 2, Many);
        _table["EXISTS"] = (Exists, 2, Many);
        _table["INCR"] = ((in r, w) => Add(r, 1, w), 2, 2);
        _table["INCRBY"] = (AddBy, 3, 3);
        _table["DBSIZE"] = ((in _, w) => w.Integer(store.Count), 1, 1);
        _table["FLUSHALL"] = ((in _, w) => { store.Clear(); w.Ok(); }, 1, 2);
        _table["PING"] = ((in r, w) => { if (r.Count > 1) w.Bulk(r[1]); else w.Simple("PONG"); }, 1, 2);
        _table["INFO"] = ((in _, w) => w.Bulk(server.Info()), 1, Many);
        _table["BGSAVE"] = ((in _, w) => w.SimpleOrError("Background saving started", server.StartSave()), 1, 2);
        // What redis-cli and redis-benchmark ask for before they begin.
        _table["COMMAND"] = ((in _, w) => w.Array(0), 1, Many);
        _table["CONFIG"] = ((in r, w) => { w.Array(2); w.Bulk(r[2]); w.Bulk(""); }, 3, 3);
        return this;
    }

    /// <summary>Why a request cannot be carried out, or null: transactions refuse it before they begin.</summary>
    internal string? Check(in Request request)
    {
        string name = request.Name;
        if (!_table.TryGetValue(name, out var command))
            return $"ERR unknown command '{name.Replace('\r', ' ').Replace('\n', ' ')}'";
        return request.Count < command.Least || request.Count > command.Most
            ? $"ERR wrong number of arguments for '{name.ToLowerInvariant()}' command"
            : null;
    }

    internal void Execute(in Request request, ReplyWriter reply)
    {
        try
        {
            _table[request.Name].Handler(request, reply);
        }
        catch (StoreFullException e)
        {
            reply.Error(e.Message);
        }
    }

    private void Get(in Request request, ReplyWriter reply)
    {
        if (store.TryGet(request[1], out ReadOnlySpan<byte> value))
            reply.Bulk(value);
        else
            reply.Null();
    }

    private void Set(in Request request, ReplyWriter reply)
    {
        store.Set(request[1], request[2]);
        reply.Ok();
    }

    private void Delete(in Request request, ReplyWriter reply)
    {
        int removed = 0;
        for (int i = 1; i < request.Count; i++)
            removed += store.Remove(request[i]) ? 1 : 0;
        reply.Integer(removed);
    }

    private void Exists(in Request request, ReplyWriter reply)
    {
        int found = 0;
        for (int i = 1; i < request.Count; i++)
            found += store.TryGet(request[i], out _) ? 1 : 0;
        reply.Integer(found);
    }

    private void AddBy(in Request request, ReplyWriter reply)
    {
        if (TryNumber(request[2], out long amount))
            Add(request, amount, reply);
        else
            reply.Error("ERR value is not an integer or out of range");
    }

    private void Add(in Request request, long amount, ReplyWriter reply)
    {
        long value = 0;
        if (store.TryGet(request[1], out ReadOnlySpan<byte> text) && !TryNumber(text, out value))
        {
            reply.Error("ERR value is not an integer or out of range");
            return;
        }
        long sum = unchecked(value + amount);
        if ((amount > 0) != (sum > value) && amount != 0)
        {
            reply.Error("ERR increment or decrement would overflow");
            return;
        }
        Span<byte> digits = stackalloc byte[24];
        _ = sum.TryFormat(digits, out int length, default, CultureInfo.InvariantCulture);
        store.Set(request[1], digits[..length]);
        reply.Integer(sum);
    }

    private static bool TryNumber(ReadOnlySpan<byte> text, out long value) => Utf8Parser.TryParse(text, out value, out int used) && used == text.Length && text.Length > 0;
}
