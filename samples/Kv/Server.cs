using System.Net;
using System.Net.Sockets;
using System.Text;
using Privy;

namespace Kv;

/// <summary>Listens, gives each connection a thread, lets one at a time use the store, and saves.</summary>
internal sealed class Server
{
    private readonly SnapshotRegion _region;
    private readonly Store _store;
    private readonly Checkpointer? _checkpointer;
    private readonly Commands _commands;
    private readonly Lock _turn = new();
    private Task<string?>? _saving;
    private volatile Checkpoint? _lastCheckpoint;
    private CancellationTokenSource? _stop;

    internal Server(SnapshotRegion region, Store store, Checkpointer? checkpointer)
    {
        _region = region;
        _store = store;
        _checkpointer = checkpointer;
        _commands = new Commands(store, this).Fill();
    }

    internal void Run(int port, CancellationTokenSource stop, Action ready)
    {
        _stop = stop;
        using var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(new IPEndPoint(IPAddress.Loopback, port));
        listener.Listen(128);
        using CancellationTokenRegistration registration = stop.Token.Register(listener.Dispose);
        ready();
        while (!stop.IsCancellationRequested)
        {
            try
            {
                Socket socket = listener.Accept();
                socket.NoDelay = true;
                new Thread(() => Serve(socket), 256 << 10) { IsBackground = true }.Start();
            }
            catch (SocketException) when (stop.IsCancellationRequested)
            {
            }
            catch (ObjectDisposedException)
            {
            }
        }
        // Nobody changes the store any more; a save that is under way is brought to its end.
        _turn.Enter();
        _saving?.Wait();
    }

    /// <summary>Begins to save in the background.</summary>
    /// <returns>An error for the client, or null.</returns>
    internal string? StartSave()
    {
        if (_checkpointer is null)
            return "ERR started without --dir, so there is no place to save to";
        if (_saving is { IsCompleted: false })
            return "ERR a save is already under way";
        // Under the lock: the snapshot has whole transactions only. From here on it is read without the lock, whatever clients do.
        Snapshot snapshot = _region.TakeSnapshot();
        _saving = Task.Run(() => Write(_checkpointer, snapshot));
        return null;
    }

    private string? Write(Checkpointer checkpointer, Snapshot snapshot)
    {
        try
        {
            using (snapshot)
                _lastCheckpoint = checkpointer.Write(snapshot);
            return null;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or SnapshotLostException)
        {
            return $"ERR {e.Message.ReplaceLineEndings(" ")}";
        }
    }

    internal string Info()
    {
        SnapshotStatistics s = _region.Statistics;
        var text = new StringBuilder("# Server\r\nredis_version:7.0.0\r\nserver_name:privy-kv\r\n");
        text.Append($"# Memory\r\nused_memory:{_store.UsedBytes}\r\nregion_bytes:{_region.Length}\r\n");
        text.Append($"# Persistence\r\nrdb_bgsave_in_progress:{(_saving is { IsCompleted: false } ? 1 : 0)}\r\n");
        if (_lastCheckpoint is { } c)
            text.Append($"last_checkpoint:{c.Number}\r\nlast_checkpoint_full:{(c.IsFull ? 1 : 0)}\r\nlast_checkpoint_pages:{c.Pages}\r\nlast_checkpoint_ms:{c.Duration.TotalMilliseconds:F1}\r\n");
        text.Append($"# Snapshots\r\nengine:{_region.Engine}\r\nlatest_snapshot_usec:{s.LastSnapshotTime.TotalMicroseconds:F0}\r\npages_copied:{s.PagesCopied}\r\n");
        return text.Append($"# Keyspace\r\ndb0:keys={_store.Count}\r\n").ToString();
    }

    private void Serve(Socket socket)
    {
        using (socket)
        {
            var requests = new RequestReader(socket);
            var reply = new ReplyWriter(socket);
            List<byte[][]>? transaction = null;
            bool broken = false;
            try
            {
                while (requests.Receive())
                {
                    // All requests that have arrived together take one turn.
                    _turn.Enter();
                    try
                    {
                        while (requests.TryParse(out int length))
                        {
                            if (requests.Count > 0 && !Handle(requests, reply, ref transaction, ref broken))
                                return;
                            requests.Consume(length);
                        }
                    }
                    finally
                    {
                        _turn.Exit();
                    }
                    reply.Send();
                }
            }
            catch (ProtocolException e)
            {
                reply.Error($"ERR Protocol error: {e.Message}");
                Try(reply.Send);
            }
            catch (SocketException)
            {
                // The client has gone.
            }
        }
    }

    /// <summary>Carries out one request, or puts it into the transaction.</summary>
    /// <returns>False if the connection is to end.</returns>
    private bool Handle(RequestReader requests, ReplyWriter reply, ref List<byte[][]>? transaction, ref bool broken)
    {
        var request = new Request(requests);
        switch (request.Name)
        {
            case "MULTI" when transaction is null:
                transaction = [];
                broken = false;
                reply.Ok();
                return true;
            case "MULTI":
                reply.Error("ERR MULTI calls can not be nested");
                return true;
            case "DISCARD" or "EXEC" when transaction is null:
                reply.Error($"ERR {request.Name} without MULTI");
                return true;
            case "DISCARD":
                transaction = null;
                reply.Ok();
                return true;
            case "EXEC":
                if (broken)
                {
                    reply.Error("EXECABORT Transaction discarded because of previous errors.");
                }
                else
                {
                    reply.Array(transaction.Count);
                    foreach (byte[][] queued in transaction)
                        _commands.Execute(new Request(queued), reply);
                }
                transaction = null;
                return true;
            case "SAVE" when transaction is null:
                Save(reply);
                return true;
            case "SHUTDOWN" when transaction is null:
                _stop!.Cancel();
                return false;
            case "QUIT":
                reply.Ok();
                Try(reply.Send);
                return false;
        }
        string? error = _commands.Check(request);
        if (error is not null)
        {
            broken = true;
            reply.Error(error);
        }
        else if (transaction is not null)
        {
            transaction.Add(requests.Copy());
            reply.Simple("QUEUED");
        }
        else
        {
            _commands.Execute(request, reply);
        }
        return true;
    }

    /// <summary>Saves and waits, but lets others use the store meanwhile: the snapshot is theirs to change.</summary>
    private void Save(ReplyWriter reply)
    {
        string? error = StartSave();
        if (error is null)
        {
            Task<string?> saving = _saving!;
            _turn.Exit();
            error = saving.GetAwaiter().GetResult();
            _turn.Enter();
        }
        reply.SimpleOrError("OK", error);
    }

    private static void Try(Action send)
    {
        try
        {
            send();
        }
        catch (SocketException)
        {
            // It ends anyway.
        }
    }
}
