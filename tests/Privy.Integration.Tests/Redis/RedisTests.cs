using System.Globalization;
using System.Text.RegularExpressions;
using StackExchange.Redis;
using Xunit.Abstractions;

namespace Privy.Integration.Tests;

/// <summary>The real redis-server under Privy. A native one is the judge of everything it writes.</summary>
public sealed partial class RedisTests(ITestOutputHelper output)
{
    private readonly int seed = int.TryParse(Environment.GetEnvironmentVariable("PRIVY_TEST_SEED"), CultureInfo.InvariantCulture, out var given) ? given : Environment.TickCount & 0xffffff;

    /// <summary>Every command's reply is compared with that of a native server.</summary>
    [PrivyFact(Needs.Redis)]
    public void Mixed_workload_gives_the_native_replies()
    {
        using var native = new RedisServer(underPrivy: false);
        using var privy = new RedisServer(underPrivy: true);
        using var one = native.Connect();
        using var two = privy.Connect();
        var differences = new List<string>();
        foreach (var command in RedisCommands.All)
        {
            var expected = one.Command(command).ToString();
            var actual = two.Command(command).ToString();
            if (expected != actual)
                differences.Add($"{string.Join(' ', command)}: {actual} instead of {expected}");
        }
        Assert.True(differences.Count == 0, string.Join('\n', differences));
        Assert.Equal(native.Digest(), privy.Digest());
    }

    [PrivyFact(Needs.Redis)]
    public void Random_workload_gives_the_native_replies()
    {
        Note();
        using var native = new RedisServer(underPrivy: false);
        using var privy = new RedisServer(underPrivy: true);
        using var one = native.Connect();
        using var two = privy.Connect();
        var random = new Random(seed);
        for (var batch = 0; batch < 200; batch++)
        {
            var commands = Enumerable.Range(0, 100).Select(_ => RedisLoad.RandomWrite(random)).ToList();
            foreach (var command in commands)
            {
                one.Queue(command);
                two.Queue(command);
            }
            one.Flush();
            two.Flush();
            foreach (var command in commands)
            {
                var expected = one.Read().ToString();
                var actual = two.Read().ToString();
                Assert.True(expected == actual, $"seed {seed}: {string.Join(' ', command)}: {actual} instead of {expected}");
            }
            if (batch % 50 == 25)
                privy.BackgroundSave(two);
        }
        Assert.Equal(native.Digest(), privy.Digest());
    }

    /// <summary>
    /// Clients move money between accounts of three types, and count what they do, in transactions, while 20 snapshots are taken. In every one of them the
    /// total and the counts agree.
    /// </summary>
    [PrivyFact(Needs.Redis)]
    public void Money_test()
    {
        const int Accounts = 500, Start = 1000, Saves = 20;
        Note();
        using var server = new RedisServer(underPrivy: true, ["--hz", "100"]);
        using var kept = new TemporaryFolder();
        using var control = server.Connect();
        control.Must("DEBUG", "POPULATE", "100000", "filler", "200");
        for (var i = 0; i < Accounts; i++)
        {
            control.Must("SET", $"account:{i}", $"{Start}");
            control.Must("HSET", "bank", $"{i}", $"{Start}");
            control.Must("ZADD", "vault", $"{Start}", $"{i}");
        }
        using (var load = new RedisLoad(server, 4, seed, Transfer))
        {
            for (var save = 0; save < Saves; save++)
            {
                load.WaitForMore(30);
                control.Must("BGSAVE");
                load.WaitForMore(10);
                server.Wait(control, "rdb_bgsave_in_progress", "0", 60);
                Assert.True(RedisServer.Info(control, "rdb_last_bgsave_status") == "ok", server.Log);
                File.Copy(Path.Combine(server.Folder, "dump.rdb"), Path.Combine(kept, $"{save}.rdb"));
                output.WriteLine($"latest_fork_usec {RedisServer.Info(control, "latest_fork_usec")}");
            }
            load.Stop();
        }
        CheckMoney(control);
        server.Shutdown();

        long last = -1;
        for (var save = 0; save < Saves; save++)
        {
            var check = ProcessRun.Run([Requirements.Require("redis-check-rdb"), Path.Combine(kept, $"{save}.rdb")], kept);
            Assert.True(check.ExitCode == 0 && check.Text.Contains("RDB looks OK", StringComparison.Ordinal), $"seed {seed}, snapshot {save}: {check}");
            using var judge = new RedisServer(underPrivy: false, ["--dbfilename", $"{save}.rdb"], kept);
            using var client = judge.Connect();
            Assert.Equal("100000", RedisServer.Invariant($"{client.Must("DBSIZE").Number - Accounts - 5}"));
            var done = CheckMoney(client);
            Assert.True(done > last, $"Snapshot {save} has {done} transfers, the one before {last}: it is not a new one.");
            last = done;
        }

        void Transfer(RespClient client, Random random, int number)
        {
            const int Pipeline = 10;
            for (var i = 0; i < Pipeline; i++)
            {
                var amount = random.Next(1, 50).ToString(CultureInfo.InvariantCulture);
                client.Queue("MULTI");
                Pay($"{random.Next(Accounts)}", $"-{amount}");
                Pay($"{random.Next(Accounts)}", amount);
                client.Queue("INCR", "transfers");
                client.Queue("HINCRBY", "transfers-by-client", $"{number}", "1");
                client.Queue("RPUSH", "journal", amount);
                client.Queue("EXEC");

                void Pay(string account, string money)
                {
                    switch (random.Next(3))
                    {
                        case 0: client.Queue("INCRBY", $"account:{account}", money); break;
                        case 1: client.Queue("HINCRBY", "bank", account, money); break;
                        default: client.Queue("ZINCRBY", "vault", money, account); break;
                    }
                }
            }
            client.Flush();
            for (var i = 0; i < Pipeline * 7; i++)
                if (client.Read() is { IsError: true } error)
                    throw new InvalidOperationException(error.ToString());
        }

        long CheckMoney(RespClient client)
        {
            long total = 0;
            for (var i = 0; i < Accounts; i++)
                client.Queue("GET", $"account:{i}");
            client.Flush();
            for (var i = 0; i < Accounts; i++)
                total += client.Read().Number;
            total += client.Must("HVALS", "bank").Items!.Sum(r => r.Number);
            total += client.Must("ZRANGE", "vault", "0", "-1", "WITHSCORES").Items!.Where((_, i) => i % 2 == 1).Sum(r => r.Number);
            Assert.True(total == 3L * Accounts * Start, $"seed {seed}: the total is {total}, not {3 * Accounts * Start}.");
            var transfers = client.Must("GET", "transfers").Number;
            Assert.Equal(transfers, client.Must("HVALS", "transfers-by-client").Items!.Sum(r => r.Number));
            Assert.Equal(transfers, client.Must("LLEN", "journal").Number);
            return transfers;
        }
    }

    /// <summary>A snapshot must hold exactly the data of its instant: with the clients at rest, its digest is that of the server.</summary>
    [PrivyFact(Needs.Redis)]
    public void Snapshot_is_exactly_the_data_of_its_instant()
    {
        Note();
        using var server = new RedisServer(underPrivy: true, ["--hz", "100"]);
        using var control = server.Connect();
        for (var round = 0; round < 5; round++)
        {
            using (var before = new RedisLoad(server, 2, seed + round * 100, RedisLoad.RandomWrites))
            {
                before.WaitForMore(100);
                before.Stop();
            }
            var digest = control.Must("DEBUG", "DIGEST").Text;
            // the fork happens in BGSAVE; all writes after its reply are after the snapshot
            control.Must("BGSAVE");
            using (var after = new RedisLoad(server, 2, seed + round * 100 + 50, RedisLoad.RandomWrites))
            {
                after.WaitForMore(50);
                server.Wait(control, "rdb_bgsave_in_progress", "0", 60);
                after.Stop();
            }
            using var judge = new RedisServer(underPrivy: false, ["--dbfilename", "dump.rdb"], server.Folder);
            Assert.Equal(digest, judge.Digest());
            Assert.NotEqual(digest, server.Digest());
            judge.Shutdown();
        }
    }

    [PrivyFact(Needs.Redis)]
    public void Append_only_file_is_rewritten_under_load_and_loads_natively()
    {
        Note();
        using var folder = new TemporaryFolder();
        string digest;
        using (var server = new RedisServer(underPrivy: true, ["--appendonly", "yes", "--appendfsync", "everysec", "--hz", "100", "--auto-aof-rewrite-percentage", "0"], folder))
        {
            using var control = server.Connect();
            control.Must("DEBUG", "POPULATE", "50000", "filler", "100");
            using (var load = new RedisLoad(server, 3, seed, RedisLoad.RandomWrites))
            {
                for (var i = 0; i < 5; i++)
                {
                    load.WaitForMore(50);
                    control.Must("BGREWRITEAOF");
                    server.Wait(control, "aof_rewrite_in_progress", "0", 60);
                    Assert.True(RedisServer.Info(control, "aof_last_bgrewrite_status") == "ok", server.Log);
                }
                load.WaitForMore(50);
                load.Stop();
            }
            // DEBUG POPULATE is not logged, so what it made is in the file by the rewrites alone
            digest = server.Digest();
            server.Signal(Native.SIGTERM);
            Assert.Equal(0, server.WaitForExit().ExitCode);
        }
        using var judge = new RedisServer(underPrivy: false, ["--appendonly", "yes"], folder);
        Assert.Equal(digest, judge.Digest());
    }

    [PrivyTheory(Needs.Redis)]
    [InlineData(true, true)]
    [InlineData(true, false)]
    [InlineData(false, true)]
    [InlineData(false, false)]
    public void Replica_syncs(bool primaryUnderPrivy, bool diskless)
    {
        Note();
        var option = diskless ? "yes" : "no";
        using var primary = new RedisServer(primaryUnderPrivy, ["--repl-diskless-sync", option, "--repl-diskless-sync-delay", "0", "--hz", "100"]);
        using var replica = new RedisServer(!primaryUnderPrivy, ["--repl-diskless-load", diskless ? "on-empty-db" : "disabled", "--hz", "100"]);
        using var one = primary.Connect();
        using var two = replica.Connect();
        one.Must("DEBUG", "POPULATE", "50000", "filler", "100");
        using (var load = new RedisLoad(primary, 2, seed, RedisLoad.RandomWrites))
        {
            load.WaitForMore(50);
            two.Must("REPLICAOF", "127.0.0.1", $"{primary.Port}");
            replica.Wait(two, "master_link_status", "up", 90);
            load.WaitForMore(50);
            load.Stop();
        }
        var offset = RedisServer.Info(one, "master_repl_offset");
        Assert.Equal(1, one.Must("WAIT", "1", "30000").Number);
        Assert.True(long.Parse(RedisServer.Info(two, "slave_repl_offset"), CultureInfo.InvariantCulture) >= long.Parse(offset, CultureInfo.InvariantCulture));
        Assert.Equal(primary.Digest(), replica.Digest());
        Assert.Equal(one.Must("DBSIZE").Number, two.Must("DBSIZE").Number);
    }

    [PrivyFact(Needs.Redis)]
    public void Sigterm_saves_and_exits_with_0()
    {
        using var folder = new TemporaryFolder();
        string digest;
        using (var server = new RedisServer(underPrivy: true, ["--save", "3600 1"], folder))
        {
            using var client = server.Connect();
            for (var i = 0; i < 1000; i++)
                client.Must("SET", $"key:{i}", $"value {i}");
            digest = server.Digest();
            server.Signal(Native.SIGTERM);
            var result = server.WaitForExit();
            Assert.True(result.ExitCode == 0 && result.LeftOver.Count == 0, result.ToString());
        }
        using var judge = new RedisServer(underPrivy: false, folder: folder);
        Assert.Equal(digest, judge.Digest());
    }

    /// <summary>SIGTERM while a BGSAVE runs: the child is killed, the server saves and exits.</summary>
    [PrivyFact(Needs.Redis)]
    public void Sigterm_during_a_background_save()
    {
        using var folder = new TemporaryFolder();
        string digest;
        using (var server = new RedisServer(underPrivy: true, ["--save", "3600 1", "--rdb-key-save-delay", "2000"], folder))
        {
            using var client = server.Connect();
            for (var i = 0; i < 2000; i++)
                client.Must("SET", $"key:{i}", $"value {i}");
            digest = server.Digest();
            client.Must("BGSAVE");
            Assert.Equal("1", RedisServer.Info(client, "rdb_bgsave_in_progress"));
            client.Must("CONFIG", "SET", "rdb-key-save-delay", "0");
            server.Signal(Native.SIGTERM);
            var result = server.WaitForExit();
            Assert.True(result.ExitCode == 0 && result.LeftOver.Count == 0, result.ToString());
        }
        using var judge = new RedisServer(underPrivy: false, folder: folder);
        Assert.Equal(digest, judge.Digest());
    }

    /// <summary>A crash prints the whole report, with a memory test of everything in /proc/self/maps, and ends by the same signal as natively.</summary>
    [PrivyTheory(Needs.Redis)]
    [InlineData(false)]
    [InlineData(true)]
    public void Crash_report(bool underPrivy)
    {
        // jemalloc's thread, which the report does not end, would go on in the memory that the test turns over: it then dies in it now and then, natively as well.
        using var server = new RedisServer(underPrivy, ["--jemalloc-bg-thread", "no"]);
        using (var client = server.Connect())
        {
            client.Must("DEBUG", "POPULATE", "100000");
            client.Queue("DEBUG", "SEGFAULT");
            client.Flush();
            var result = server.WaitForExit();
            Assert.Equal(139, result.ExitCode);
            foreach (var part in (string[])["crashed by signal: 11", "FAST MEMORY TEST", "Fast memory test PASSED", "DUMPING CODE AROUND EIP", "REDIS BUG REPORT END"])
                Assert.True(result.Text.Contains(part, StringComparison.Ordinal), $"no '{part}' in: {result}");
        }
    }

    /// <summary>The server kills the child of a BGSAVE, as FLUSHALL does with SIGUSR1; the next BGSAVE succeeds.</summary>
    [PrivyFact(Needs.Redis)]
    public void Background_save_that_is_killed()
    {
        using var server = new RedisServer(underPrivy: true, ["--rdb-key-save-delay", "5000", "--hz", "100"]);
        using var client = server.Connect();
        for (var i = 0; i < 3000; i++)
            client.Must("SET", $"key:{i}", $"value {i}");
        client.Must("BGSAVE");
        Assert.Equal("1", RedisServer.Info(client, "rdb_bgsave_in_progress"));
        client.Must("FLUSHALL", "SYNC");
        server.Wait(client, "rdb_bgsave_in_progress", "0", 30);
        client.Must("CONFIG", "SET", "rdb-key-save-delay", "0");
        client.Must("SET", "a", "1");
        server.BackgroundSave(client);
        using var judge = new RedisServer(underPrivy: false, folder: server.Folder);
        Assert.Equal(1, judge.Must("DBSIZE").Number);
    }

    /// <summary>After 500 snapshots there are no more threads, descriptors, virtual processors and memory than after the first few.</summary>
    [PrivyFact(Needs.Redis)]
    public void Five_hundred_forks_leave_nothing_behind()
    {
        using var server = new RedisServer(underPrivy: true, ["--hz", "500"], null, "--stats");
        using var client = server.Connect();
        client.Must("DEBUG", "POPULATE", "5000", "key", "100");
        var usec = new List<long>();
        Usage early = default;
        for (var i = 0; i < 500; i++)
        {
            if (i == 50)
                early = Measure(server.Id);
            client.Must("SET", $"key:{i}", new string('x', 200));
            server.BackgroundSave(client);
            usec.Add(long.Parse(RedisServer.Info(client, "latest_fork_usec"), CultureInfo.InvariantCulture));
        }
        Thread.Sleep(300);
        var late = Measure(server.Id);
        usec.Sort();
        output.WriteLine($"after 50 forks {early}, after 500 {late}; latest_fork_usec median {usec[250]}, max {usec[^1]}");
        Assert.True(late.Threads <= early.Threads + 2, $"Threads: {early} became {late}");
        Assert.True(late.Descriptors <= early.Descriptors, $"Descriptors: {early} became {late}");
        Assert.True(late.Processors <= early.Processors, $"vCPUs: {early} became {late}");
        Assert.True(late.Kilobytes <= early.Kilobytes + 65536, $"Memory: {early} became {late}");
        var result = server.Shutdown();
        Assert.Equal(0, result.ExitCode);
        if (!Launcher.IsNative)
        {
            var frames = FramesInUse().Match(result.Errors + result.Text);
            Assert.True(frames.Success, $"--stats prints no line \"frames in use\".\n{result}");
            Assert.Equal("0", frames.Groups[1].Value);
        }
    }

    [PrivyFact(Needs.Redis)]
    public void Benchmark_completes()
    {
        using var server = new RedisServer(underPrivy: true);
        using var folder = new TemporaryFolder();
        var result = ProcessRun.Run([Requirements.Require("redis-benchmark"), "-p", $"{server.Port}", "-t", "set,get,incr,lpush,zadd,mset", "-n", "100000", "-c", "50", "-P", "16", "--csv"],
            folder, limit: TimeSpan.FromSeconds(240));
        output.WriteLine(result.Text);
        Assert.True(result.ExitCode == 0, result.ToString());
        foreach (var test in new[] { "SET", "GET", "INCR", "LPUSH", "ZADD", "MSET" })
            Assert.Contains($"\"{test}", result.Text, StringComparison.Ordinal);
        Assert.DoesNotContain("rror", result.Text + result.Errors, StringComparison.Ordinal);
        using var client = server.Connect();
        Assert.Equal(100000, client.Must("LLEN", "mylist").Number);
        Assert.Equal("100000", client.Must("GET", "counter:__rand_int__").Text);
    }

    /// <summary>A client library of the real world: many operations at once, publish and subscribe, a script.</summary>
    [PrivyFact(Needs.Redis)]
    public async Task Client_library()
    {
        using var server = new RedisServer(underPrivy: true);
        await using var connection = await ConnectionMultiplexer.ConnectAsync($"127.0.0.1:{server.Port},connectTimeout=20000,syncTimeout=30000,asyncTimeout=30000");
        var database = connection.GetDatabase();
        await Task.WhenAll(Enumerable.Range(0, 20000).Select(i => (Task)(i % 2 == 0 ? database.StringSetAsync($"k:{i}", i) : database.HashIncrementAsync("counters", i % 100))));
        Assert.Equal(19998, (int)await database.StringGetAsync("k:19998"));
        Assert.Equal(10000, (await database.HashGetAllAsync("counters")).Sum(e => (int)e.Value));
        var received = new TaskCompletionSource<string>();
        await connection.GetSubscriber().SubscribeAsync(RedisChannel.Literal("news"), (_, message) => received.TrySetResult(message!));
        await connection.GetSubscriber().PublishAsync(RedisChannel.Literal("news"), "hello");
        Assert.Equal("hello", await received.Task.WaitAsync(TimeSpan.FromSeconds(20)));
        Assert.Equal(10, (int)await database.ScriptEvaluateAsync("local s = 0 for i = 1, 4 do s = s + i end return s + ARGV[1]", values: [0]));
        var transaction = database.CreateTransaction();
        var increment = transaction.StringIncrementAsync("t", 5);
        Assert.True(await transaction.ExecuteAsync());
        Assert.Equal(5, await increment);
    }

    [PrivyTheory(Needs.Redis)]
    [InlineData("-n 1 SET from-cli hello", "OK\n")]
    [InlineData("--raw ECHO text", "text\n")]
    public void The_command_line_client_under_Privy(string arguments, string expected)
    {
        using var server = new RedisServer(underPrivy: false);
        using var folder = new TemporaryFolder();
        var result = ProcessRun.Run(Launcher.Command(Requirements.Require("redis-cli"), ["-p", $"{server.Port}", .. arguments.Split(' ')]), folder);
        Assert.Equal(expected, result.Text);
        Assert.Equal(0, result.ExitCode);
    }

    /// <summary>Threads of Redis' own: replies written by I/O threads, memory freed in the background.</summary>
    [PrivyFact(Needs.Redis)]
    public void Io_threads_and_lazy_freeing()
    {
        Note();
        using var server = new RedisServer(underPrivy: true, ["--io-threads", "3", "--io-threads-do-reads", "yes", "--lazyfree-lazy-user-del", "yes", "--hz", "100"]);
        using var control = server.Connect();
        using var load = new RedisLoad(server, 6, seed, RedisLoad.RandomWrites);
        for (var i = 0; i < 5; i++)
        {
            load.WaitForMore(100);
            for (var j = 0; j < 5; j++)
                control.Must("DEBUG", "POPULATE", "2000", $"lazy{j}");
            control.Must("EVAL", "for i = 1, 20000 do redis.call('RPUSH', 'long', i) end", "0");
            server.BackgroundSave(control);
            control.Must("UNLINK", "long");
            control.Must("FLUSHALL", "ASYNC");
        }
        load.Stop();
    }

    /// <summary>An idle server costs no processor time: the hypervisor waits and does not poll.</summary>
    [PrivyFact(Needs.Redis)]
    public void Idle_server_uses_no_processor()
    {
        using var server = new RedisServer(underPrivy: true);
        server.Must("SET", "a", "1");
        var best = double.MaxValue;
        for (var attempt = 0; attempt < 3 && best > 0.05; attempt++)
        {
            Thread.Sleep(1000);
            var before = ProcessorSeconds(server.Id);
            Thread.Sleep(2000);
            best = Math.Min(best, (ProcessorSeconds(server.Id) - before) / 2);
        }
        output.WriteLine($"{best * 100:F1}% of one processor");
        Assert.True(best <= 0.05, $"The idle server uses {best * 100:F1}% of a processor.");
    }

    [GeneratedRegex(@"frames in use[^\d\n]*(\d+)")]
    private static partial Regex FramesInUse();

    private void Note() => output.WriteLine($"PRIVY_TEST_SEED={seed}");

    private static double ProcessorSeconds(int id)
    {
        var fields = File.ReadAllText($"/proc/{id}/stat").Split(") ")[^1].Split(' ');
        return (long.Parse(fields[11], CultureInfo.InvariantCulture) + long.Parse(fields[12], CultureInfo.InvariantCulture)) / 100.0;
    }

    private static Usage Measure(int id)
    {
        var links = Directory.GetFileSystemEntries($"/proc/{id}/fd").Select(f =>
        {
            try
            {
                return new FileInfo(f).LinkTarget ?? "";
            }
            catch (IOException)
            {
                return "";
            }
        }).ToList();
        var resident = File.ReadLines($"/proc/{id}/status").First(l => l.StartsWith("VmRSS:", StringComparison.Ordinal)).Split(' ', StringSplitOptions.RemoveEmptyEntries)[1];
        return new Usage(Directory.GetDirectories($"/proc/{id}/task").Length, links.Count, links.Count(l => l.Contains("kvm-vcpu", StringComparison.Ordinal)), long.Parse(resident, CultureInfo.InvariantCulture));
    }

    private readonly record struct Usage(int Threads, int Descriptors, int Processors, long Kilobytes);
}
