using System.Globalization;

namespace Privy.Integration.Tests;

/// <summary>Where a client finds the server that takes the writes of a hash tag. Called by several threads.</summary>
internal interface IRoute
{
    /// <summary>The port to write to.</summary>
    int Find(string tag);

    /// <summary>That server has answered with an error, or not at all.</summary>
    void Failed(string tag, string? error);
}

/// <summary>
/// Clients that write increasing numbers and know afterwards what must be there: per key the last number sent, acknowledged, and confirmed by replicas (WAIT).
/// Each key has one writer and the keys of a hash tag lie on one server.
/// </summary>
internal sealed class RecordedLoad : IDisposable
{
    private const int KeysOfATag = 20, FillersOfATag = 300;
    private readonly CancellationTokenSource stop = new();
    private readonly IRoute route;
    private readonly Task[] clients;
    private readonly Tag[][] tagsOfClients;
    private volatile int confirmations;
    private volatile bool failuresAllowed;

    public RecordedLoad(IRoute route, int clientCount, int tagCount, int seed)
        : this(route, [.. Enumerable.Range(0, clientCount).Select(client => Enumerable.Range(0, tagCount).Select(n => new Tag($"{client}-{n}")).ToArray())], seed)
    {
    }

    /// <summary>Goes on from the record of a load that has stopped.</summary>
    public RecordedLoad(IRoute route, RecordedLoad stopped, int seed)
        : this(route, stopped.tagsOfClients, seed)
    {
    }

    private RecordedLoad(IRoute route, Tag[][] tags, int seed)
    {
        this.route = route;
        tagsOfClients = tags;
        clients = [.. tagsOfClients.Select((own, number) => Task.Factory.StartNew(() => Work(own, new Random(seed + number)), CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default))];
    }

    /// <summary>How many replicas are asked to confirm each write; 0 asks none.</summary>
    public int Confirmations
    {
        set => confirmations = value;
    }

    /// <summary>Whether a client goes on when a server answers with an error, or does not answer. Otherwise that ends it, and the test fails.</summary>
    public bool FailuresAllowed
    {
        set => failuresAllowed = value;
    }

    public IEnumerable<Tag> Tags => tagsOfClients.SelectMany(tags => tags);

    /// <summary>Waits until each of these tags has been written to, and acknowledged, some more times.</summary>
    public void WaitForMore(int rounds, IEnumerable<Tag> tags, int seconds = 120)
    {
        var targets = tags.Select(tag => (Tag: tag, Rounds: tag.Rounds + rounds)).ToList();
        var deadline = DateTime.UtcNow.AddSeconds(seconds);
        while (targets.FirstOrDefault(t => t.Tag.Rounds < t.Rounds).Tag is { } late)
        {
            ThrowIfBroken();
            if (DateTime.UtcNow > deadline)
                throw new TimeoutException($"No write to {{{late.Name}}} is acknowledged any more; the last error: {late.LastError}");
            Thread.Sleep(5);
        }
    }

    /// <summary>Throws what a client has thrown.</summary>
    public void ThrowIfBroken()
    {
        if (clients.FirstOrDefault(c => c.IsFaulted) is { } broken)
            broken.GetAwaiter().GetResult();
    }

    /// <summary>Ends the clients and throws what one of them threw.</summary>
    public void Stop()
    {
        stop.Cancel();
        Assert.True(Task.WaitAll(clients, TimeSpan.FromSeconds(90)), "A client hangs.");
    }

    /// <summary>
    /// Checks each key: its value is whole, and lies between what <paramref name="least"/> gives and the last number sent (<paramref name="most"/>).
    /// The record then goes on from what is there.
    /// </summary>
    /// <returns>How many keys were looked at.</returns>
    public static int Check(IEnumerable<Tag> tags, Func<Tag, RespClient> connect, Func<Tag, int, long> least, Func<Tag, int, long> most, bool keep = true)
    {
        var looked = 0;
        foreach (var tag in tags)
        {
            var client = connect(tag);
            for (var key = 0; key < KeysOfATag; key++)
            {
                var text = client.Must("GET", tag.Key(key)).Text;
                var number = text is null ? 0 : long.Parse(text.AsSpan(0, text.IndexOf(':', StringComparison.Ordinal)), CultureInfo.InvariantCulture);
                Assert.True(text is null || text == Value(number), $"{tag.Key(key)} holds a value that nobody wrote: {text}");
                var (low, high) = (least(tag, key), most(tag, key));
                Assert.True(number >= low, $"{tag.Key(key)} is {number}: the write of {low} is lost. Sent {tag.Sent[key]}, acknowledged {tag.Acknowledged[key]}, confirmed {tag.Confirmed[key]}.");
                Assert.True(number <= high, $"{tag.Key(key)} is {number}, and {high} was the last.");
                if (!keep)
                    tag.Sent[key] = tag.Acknowledged[key] = tag.Confirmed[key] = number;
                looked++;
            }

            for (var filler = 0; filler < FillersOfATag; filler++)
                client.Queue("GET", tag.Filler(filler));
            client.Flush();
            for (var filler = 0; filler < FillersOfATag; filler++)
                if (client.Read().Text is var text && (text is not null || tag.Filled) && text != Value(filler))
                    Assert.Fail($"{tag.Filler(filler)} is {text ?? "gone"}");
        }

        return looked;
    }

    public void Dispose()
    {
        stop.Cancel();
        try
        {
            Task.WaitAll(clients, TimeSpan.FromSeconds(5));
        }
        catch (AggregateException)
        {
            // a failure elsewhere has taken the servers away; that failure is the one to report
        }
        stop.Dispose();
    }

    private static string Value(long number) => $"{number}:{new string((char)('a' + (number % 26)), (int)(number * 7 % 300))}";

    private void Work(Tag[] own, Random random)
    {
        var connections = new Dictionary<int, RespClient>();
        try
        {
            while (!stop.IsCancellationRequested)
            {
                var tag = own[random.Next(own.Length)];
                var port = 0;
                string? error;
                try
                {
                    port = route.Find(tag.Name);
                    if (!connections.TryGetValue(port, out var client))
                        connections.Add(port, client = new RespClient(port));
                    error = Round(client, tag, random);
                }
                catch (Exception e) when (failuresAllowed && e is IOException or System.Net.Sockets.SocketException)
                {
                    error = e.Message;
                    if (connections.Remove(port, out var broken))
                        broken.Dispose();
                }

                if (error is null)
                    continue;
                tag.LastError = error;
                if (!failuresAllowed)
                    throw new InvalidOperationException($"A write to {{{tag.Name}}} has failed: {error}");
                route.Failed(tag.Name, error);
                Thread.Sleep(50);
            }
        }
        finally
        {
            foreach (var client in connections.Values)
                client.Dispose();
        }
    }

    /// <summary>Writes some keys of a tag; the first time, what fills it as well.</summary>
    /// <returns>An error reply, or null.</returns>
    private string? Round(RespClient client, Tag tag, Random random)
    {
        var filling = !tag.Filled;
        if (filling)
            client.Queue(["MSET", .. Enumerable.Range(0, FillersOfATag).SelectMany(n => new[] { tag.Filler(n), Value(n) })]);
        var keys = Enumerable.Range(0, 5).Select(_ => random.Next(KeysOfATag)).Distinct().ToArray();
        foreach (var key in keys)
        {
            var number = tag.Sent[key] + 1;
            Volatile.Write(ref tag.Sent[key], number);
            client.Queue("SET", tag.Key(key), Value(number));
        }

        var wanted = confirmations;
        if (wanted > 0)
            client.Queue("WAIT", $"{wanted}", "2000");
        client.Flush();

        string? error = null;
        if (filling)
        {
            var reply = client.Read();
            error = reply.IsError ? reply.Text : null;
            tag.Filled = !reply.IsError;
        }

        foreach (var key in keys)
        {
            var reply = client.Read();
            if (reply.IsError)
                error ??= reply.Text;
            else
                Volatile.Write(ref tag.Acknowledged[key], tag.Sent[key]);
        }

        if (wanted > 0)
        {
            var reply = client.Read();
            if (error is null && reply.IsError)
                error = reply.Text;
            if (error is null && reply.Number >= wanted)
                foreach (var key in keys)
                    tag.Confirmed[key] = tag.Acknowledged[key];
        }

        if (error is null)
            Interlocked.Increment(ref tag.RoundsDone);
        return error;
    }

    /// <summary>Keys that lie on one server, and what was written to them.</summary>
    internal sealed class Tag(string name)
    {
        internal readonly long[] Sent = new long[KeysOfATag], Acknowledged = new long[KeysOfATag], Confirmed = new long[KeysOfATag];
        internal long RoundsDone;
        internal volatile bool Filled;
        internal volatile string? LastError;

        public string Name => name;

        public long Rounds => Interlocked.Read(ref RoundsDone);

        public string Key(int number) => $"{{{name}}}:{number}";

        public string Filler(int number) => $"{{{name}}}:filler:{number}";

        /// <summary>A copy of what has been acknowledged up to now.</summary>
        public long[] AcknowledgedNow() => [.. Enumerable.Range(0, KeysOfATag).Select(key => Volatile.Read(ref Acknowledged[key]))];

        /// <summary>A copy of what has been sent up to now.</summary>
        public long[] SentNow() => [.. Enumerable.Range(0, KeysOfATag).Select(key => Volatile.Read(ref Sent[key]))];
    }
}
