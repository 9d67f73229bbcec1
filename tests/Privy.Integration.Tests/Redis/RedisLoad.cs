namespace Privy.Integration.Tests;

/// <summary>Clients that work until told to stop; what goes wrong in them comes out at the end.</summary>
public sealed class RedisLoad : IDisposable
{
    private readonly CancellationTokenSource stop = new();
    private readonly Task[] clients;
    private long rounds;

    /// <summary>Runs <paramref name="round"/> again and again on each of <paramref name="count"/> connections.</summary>
    public RedisLoad(RedisServer server, int count, int seed, Action<RespClient, Random, int> round) =>
        clients = [.. Enumerable.Range(0, count).Select(number => Task.Factory.StartNew(() =>
        {
            using var client = server.Connect();
            var random = new Random(seed + number);
            while (!stop.IsCancellationRequested)
            {
                round(client, random, number);
                Interlocked.Increment(ref rounds);
            }
        }, CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default))];

    /// <summary>Rounds done so far by all clients.</summary>
    public long Rounds => Interlocked.Read(ref rounds);

    /// <summary>Waits until the clients have done some more rounds.</summary>
    public void WaitForMore(int more)
    {
        var target = Rounds + more;
        var deadline = DateTime.UtcNow.AddSeconds(60);
        while (Rounds < target)
        {
            if (clients.FirstOrDefault(c => c.IsFaulted) is { } broken)
                broken.GetAwaiter().GetResult();
            if (DateTime.UtcNow > deadline)
                throw new TimeoutException("The clients make no progress.");
            Thread.Sleep(1);
        }
    }

    /// <summary>Ends the clients and throws what one of them threw.</summary>
    public void Stop()
    {
        stop.Cancel();
        Assert.True(Task.WaitAll(clients, TimeSpan.FromSeconds(70)), "A client hangs.");
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
            // a failure elsewhere has taken the server away; that failure is the one to report
        }
        stop.Dispose();
    }

    /// <summary>A pipeline of random writes of all types, none of which depends on time.</summary>
    public static void RandomWrites(RespClient client, Random random, int number)
    {
        const int Commands = 20;
        for (var i = 0; i < Commands; i++)
            client.Queue(RandomWrite(random));
        client.Flush();
        for (var i = 0; i < Commands; i++)
            if (client.Read() is { IsError: true } error && !error.Text!.StartsWith("WRONGTYPE", StringComparison.Ordinal))
                throw new InvalidOperationException(error.ToString());
    }

    public static string[] RandomWrite(Random random)
    {
        var n = random.Next(400);
        var value = new string((char)('a' + random.Next(26)), random.Next(1, random.Next(20) == 0 ? 5000 : 60));
        return random.Next(16) switch
        {
            0 => ["SET", $"s:{n}", value],
            1 => ["APPEND", $"s:{n}", value[..Math.Min(10, value.Length)]],
            2 => ["INCRBY", $"c:{n}", $"{random.Next(100)}"],
            3 => ["LPUSH", $"l:{n % 50}", value, $"{n}"],
            4 => ["RPOP", $"l:{n % 50}"],
            5 => ["LTRIM", $"l:{n % 50}", "0", "200"],
            6 => ["SADD", $"set:{n % 50}", $"{random.Next(1000)}", value[..1]],
            7 => ["SREM", $"set:{n % 50}", $"{random.Next(1000)}"],
            8 => ["ZADD", $"z:{n % 50}", $"{random.Next(10000)}", $"m{random.Next(500)}"],
            9 => ["ZREMRANGEBYRANK", $"z:{n % 50}", "300", "-1"],
            10 => ["HSET", $"h:{n % 50}", $"f{random.Next(300)}", value],
            11 => ["HINCRBY", $"hc:{n % 50}", $"f{random.Next(300)}", $"{random.Next(10)}"],
            12 => ["DEL", $"s:{n}"],
            13 => ["SETRANGE", $"s:{n}", $"{random.Next(200)}", "xyz"],
            14 => ["SETBIT", $"b:{n % 20}", $"{random.Next(100000)}", $"{random.Next(2)}"],
            _ => ["GETSET", $"g:{n}", value],
        };
    }
}
