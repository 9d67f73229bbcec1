using System.Globalization;
using Xunit.Abstractions;

namespace Privy.Integration.Tests;

/// <summary>
/// A Redis Cluster and a group with Sentinels, every process under Privy. Clients write all the time; BGSAVE, full synchronization and the death of a primary
/// must lose nothing that was promised to them.
/// </summary>
public sealed class RedisFailoverTests(ITestOutputHelper output)
{
    private readonly int seed = int.TryParse(Environment.GetEnvironmentVariable("PRIVY_TEST_SEED"), CultureInfo.InvariantCulture, out var given) ? given : Environment.TickCount & 0xffffff;

    /// <summary>
    /// Three primaries and a replica of each. While clients write: a BGSAVE on each primary, whose file holds every write acknowledged before and none sent after; the
    /// replicas come and take a full copy; a primary is killed, its replica takes over, and comes back as a replica of the other.
    /// </summary>
    [PrivyFact(Needs.Redis)]
    public void Cluster()
    {
        const int Primaries = 3, Clients = 3, TagsOfAClient = 8;
        output.WriteLine($"PRIVY_TEST_SEED={seed}");
        var ports = Enumerable.Range(0, 4 * Primaries).Select(_ => RedisServer.FreePort()).ToArray();
        using var all = new Servers();
        for (var n = 0; n < 2 * Primaries; n++)
            all.Add(Start(n));
        var primaries = all.List.Take(Primaries).ToList();
        var replicas = all.List.Skip(Primaries).ToList();

        for (var n = 0; n < Primaries; n++)
            primaries[n].Must("CLUSTER", "ADDSLOTSRANGE", $"{FirstSlot(n)}", $"{FirstSlot(n + 1) - 1}");
        for (var n = 0; n < all.List.Count; n++)
            all.List[n].Must("CLUSTER", "SET-CONFIG-EPOCH", $"{n + 1}");
        for (var n = 1; n < all.List.Count; n++)
            primaries[0].Must("CLUSTER", "MEET", "127.0.0.1", $"{ports[n]}", $"{ports[n + 2 * Primaries]}");
        foreach (var node in all.List)
            Until(() => ClusterInfo(node, "cluster_state") == "ok" && ClusterInfo(node, "cluster_known_nodes") == $"{2 * Primaries}", () => node.Must("CLUSTER", "NODES").Text!);

        var route = new ClusterRoute(ports.Take(2 * Primaries), slot => ports[Owner(slot)]);
        using var load = new RecordedLoad(route, Clients, TagsOfAClient, seed);
        load.WaitForMore(3, load.Tags);
        var tagsOf = Enumerable.Range(0, Primaries).Select(n => load.Tags.Where(tag => Owner(ClusterRoute.Slot(tag.Name)) == n).ToList()).ToList();
        Assert.All(tagsOf, tags => Assert.NotEmpty(tags));

        // BGSAVE on all at once, made slow enough that much is written meanwhile.
        foreach (var primary in primaries)
            primary.Must("CONFIG", "SET", "rdb-key-save-delay", "800");
        var saves = primaries.Select((primary, n) => SaveUnderLoad(primary, tagsOf[n])).ToList();
        load.WaitForMore(3, load.Tags);
        for (var n = 0; n < Primaries; n++)
            CheckSave(primaries[n], tagsOf[n], saves[n]);

        // Full synchronization: the first by a file, the others straight to the socket.
        primaries[0].Must("CONFIG", "SET", "repl-diskless-sync", "no");
        foreach (var primary in primaries)
            primary.Must("CONFIG", "SET", "rdb-key-save-delay", "200");
        for (var n = 0; n < Primaries; n++)
            replicas[n].Must("CLUSTER", "REPLICATE", primaries[n].Must("CLUSTER", "MYID").Text!);
        load.WaitForMore(3, load.Tags);
        foreach (var replica in replicas)
            WaitForLink(replica);
        load.Confirmations = 1;
        load.WaitForMore(5, load.Tags);
        foreach (var primary in primaries)
            Assert.True(long.Parse(primary.Info("sync_full"), CultureInfo.InvariantCulture) >= 1, "There was no full synchronization.");
        foreach (var node in all.List)
            Until(() => ClusterInfo(node, "cluster_state") == "ok", () => node.Must("CLUSTER", "NODES").Text!);

        // The first primary dies. The others never stop.
        load.FailuresAllowed = true;
        primaries[0].Signal(Native.SIGKILL);
        var orphans = tagsOf[0];
        Until(() => replicas[0].Must("ROLE").Items![0].Text == "master", () => replicas[0].Must("CLUSTER", "NODES").Text!);
        load.Confirmations = 0;
        load.WaitForMore(3, load.Tags);
        load.Stop();
        var looked = RecordedLoad.Check(orphans, Connect, (tag, key) => tag.Confirmed[key], (tag, key) => tag.Sent[key], keep: false);
        // Where nothing died nothing acknowledged may be missing, confirmed or not.
        looked += RecordedLoad.Check(tagsOf.Skip(1).SelectMany(tags => tags), Connect, (tag, key) => tag.Acknowledged[key], (tag, key) => tag.Sent[key], keep: false);
        output.WriteLine($"after the failover: {looked} keys, {orphans.Sum(tag => tag.Rounds)} rounds on the slots of the dead primary, {load.Tags.Sum(tag => tag.Rounds)} in all");

        // It comes back, and is told that it is a replica now.
        Assert.Equal(137, primaries[0].WaitForExit().ExitCode);
        primaries[0].Dispose();
        using var again = new RecordedLoad(route, load, seed + 1);
        again.WaitForMore(2, again.Tags);
        var returned = all.Replace(0, Start(0));
        Until(() => returned.Must("ROLE").Items![0].Text == "slave", () => returned.Must("CLUSTER", "NODES").Text!);
        WaitForLink(returned);
        again.WaitForMore(3, again.Tags);
        again.Stop();
        RecordedLoad.Check(again.Tags, Connect, (tag, key) => tag.Acknowledged[key], (tag, key) => tag.Sent[key]);
        SameData(replicas[0], returned);
        SameData(primaries[1], replicas[1]);
        SameData(primaries[2], replicas[2]);

        RedisServer Start(int n) => new(underPrivy: true, ports[n], ["--cluster-enabled", "yes", "--cluster-port", $"{ports[n + 2 * Primaries]}", "--cluster-node-timeout", "5000",
            "--cluster-require-full-coverage", "no", "--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0", "--hz", "50"], all.Folder(n));
        static int FirstSlot(int n) => ClusterRoute.Slots * n / Primaries;
        static int Owner(int slot) => Enumerable.Range(0, Primaries).Last(n => slot >= FirstSlot(n));
        RespClient Connect(RecordedLoad.Tag tag) => all.Connection(route.Find(tag.Name));
    }

    /// <summary>
    /// A primary with two replicas, watched by three Sentinels. The replicas take their full copies while clients write; after the primary's death one of them is promoted
    /// with every write that both had confirmed, and the old primary is made a replica when it comes back.
    /// </summary>
    [PrivyFact(Needs.Redis)]
    public void Sentinel_failover()
    {
        const string Name = "group";
        output.WriteLine($"PRIVY_TEST_SEED={seed}");
        var ports = Enumerable.Range(0, 3).Select(_ => RedisServer.FreePort()).ToArray();
        using var all = new Servers();
        for (var n = 0; n < 3; n++)
            all.Add(Start(n));
        var primary = all.List[0];
        List<RedisServer> sentinels = [];
        var route = new SentinelRoute(Name, ports[0], sentinels);
        using var load = new RecordedLoad(route, 3, 4, seed);
        load.WaitForMore(3, load.Tags);

        primary.Must("CONFIG", "SET", "rdb-key-save-delay", "200");
        foreach (var replica in all.List.Skip(1))
            replica.Must("REPLICAOF", "127.0.0.1", $"{ports[0]}");
        load.WaitForMore(3, load.Tags);
        foreach (var replica in all.List.Skip(1))
            WaitForLink(replica);
        load.Confirmations = 2;

        for (var n = 0; n < 3; n++)
            sentinels.Add(all.Add(RedisServer.Sentinel(underPrivy: true, $"sentinel monitor {Name} 127.0.0.1 {ports[0]} 2", $"sentinel down-after-milliseconds {Name} 4000",
                $"sentinel failover-timeout {Name} 20000", $"sentinel parallel-syncs {Name} 1")));
        foreach (var sentinel in sentinels)
            Until(() => Field(sentinel, "num-slaves") == "2" && Field(sentinel, "num-other-sentinels") == "2" && Field(sentinel, "flags") == "master",
                () => sentinel.Must("SENTINEL", "MASTER", Name).ToString());

        primary.Must("CONFIG", "SET", "rdb-key-save-delay", "800");
        var tags = load.Tags.ToList();
        var save = SaveUnderLoad(primary, tags);
        load.WaitForMore(5, load.Tags);
        CheckSave(primary, tags, save);

        load.FailuresAllowed = true;
        primary.Signal(Native.SIGKILL);
        Until(() => all.List.Skip(1).Take(2).Any(server => server.Must("ROLE").Items![0].Text == "master"), () => sentinels[0].Must("SENTINEL", "MASTER", Name).ToString());
        load.Confirmations = 0;
        load.WaitForMore(3, load.Tags);
        load.Stop();
        var promoted = all.List.Skip(1).Take(2).Single(server => server.Must("ROLE").Items![0].Text == "master");
        var looked = RecordedLoad.Check(load.Tags, _ => all.Connection(promoted.Port), (tag, key) => tag.Confirmed[key], (tag, key) => tag.Sent[key], keep: false);
        output.WriteLine($"after the failover: {looked} keys, {load.Tags.Sum(tag => tag.Rounds)} rounds");

        var other = all.List.Skip(1).Take(2).Single(server => server != promoted);
        Until(() => other.Info("master_port") == $"{promoted.Port}", () => sentinels[0].Must("SENTINEL", "REPLICAS", Name).ToString());
        WaitForLink(other);

        Assert.Equal(137, primary.WaitForExit().ExitCode);
        primary.Dispose();
        using var again = new RecordedLoad(new SentinelRoute(Name, promoted.Port, sentinels), load, seed + 1);
        var returned = all.Replace(0, Start(0));
        Until(() => returned.Must("ROLE").Items![0].Text == "slave", () => sentinels[0].Must("SENTINEL", "REPLICAS", Name).ToString());
        WaitForLink(returned);
        again.WaitForMore(3, again.Tags);
        again.Stop();
        RecordedLoad.Check(again.Tags, _ => all.Connection(promoted.Port), (tag, key) => tag.Acknowledged[key], (tag, key) => tag.Sent[key]);
        SameData(promoted, returned);
        SameData(promoted, other);

        RedisServer Start(int n) => new(underPrivy: true, ports[n], ["--repl-diskless-sync", n == 0 ? "no" : "yes", "--repl-diskless-sync-delay", "0", "--hz", "50"], all.Folder(n));
        static string? Field(RedisServer sentinel, string name)
        {
            var fields = sentinel.Must("SENTINEL", "MASTER", Name).Items!;
            return Enumerable.Range(0, fields.Count / 2).Where(n => fields[2 * n].Text == name).Select(n => fields[2 * n + 1].Text).FirstOrDefault();
        }
    }

    /// <summary>Saves while the clients write, and sees that each kind of key was written to before the save has ended.</summary>
    /// <returns>What had been acknowledged before the snapshot, and sent before its end.</returns>
    private static (Dictionary<string, long[]> Least, Dictionary<string, long[]> Most) SaveUnderLoad(RedisServer server, List<RecordedLoad.Tag> tags)
    {
        using var control = server.Connect();
        var least = tags.ToDictionary(tag => tag.Name, tag => tag.AcknowledgedNow());
        control.Must("BGSAVE"); // the fork is done when it answers
        var most = tags.ToDictionary(tag => tag.Name, tag => tag.SentNow());
        var before = tags.Sum(tag => tag.Rounds);
        var meanwhile = before;
        var deadline = DateTime.UtcNow.AddSeconds(120);
        while (true)
        {
            var now = tags.Sum(tag => tag.Rounds);
            if (RedisServer.Info(control, "rdb_bgsave_in_progress") == "0")
                break;
            meanwhile = now;
            Assert.True(DateTime.UtcNow < deadline, $"BGSAVE does not end.\n{server.Log}");
            Thread.Sleep(5);
        }

        Assert.True(RedisServer.Info(control, "rdb_last_bgsave_status") == "ok", server.Log);
        Assert.True(meanwhile > before, "No write was acknowledged while BGSAVE ran.");
        return (least, most);
    }

    /// <summary>A native server reads the file and finds every write that was acknowledged before the snapshot, and none that was sent after it.</summary>
    private static void CheckSave(RedisServer server, List<RecordedLoad.Tag> tags, (Dictionary<string, long[]> Least, Dictionary<string, long[]> Most) save)
    {
        using var folder = new TemporaryFolder();
        File.Copy(Path.Combine(server.Folder, "dump.rdb"), Path.Combine(folder, "dump.rdb"));
        using var judge = new RedisServer(underPrivy: false, folder: folder);
        using var client = judge.Connect();
        RecordedLoad.Check(tags, _ => client, (tag, key) => save.Least[tag.Name][key], (tag, key) => save.Most[tag.Name][key]);
    }

    /// <summary>The clients are at rest: both have the same data as soon as the replica has all that the primary has sent.</summary>
    private static void SameData(RedisServer primary, RedisServer replica)
    {
        Until(() => primary.Info("master_repl_offset") == replica.Info("slave_repl_offset"), () => $"{primary.Info("master_repl_offset")} and {replica.Info("slave_repl_offset")}");
        Assert.Equal(primary.Digest(), replica.Digest());
    }

    private static void WaitForLink(RedisServer replica)
    {
        using var client = replica.Connect();
        replica.Wait(client, "master_link_status", "up", 180);
    }

    private static string ClusterInfo(RedisServer node, string field) =>
        node.Must("CLUSTER", "INFO").Text!.Split("\r\n").First(line => line.StartsWith(field + ":", StringComparison.Ordinal))[(field.Length + 1)..];

    private static void Until(Func<bool> condition, Func<string> describe)
    {
        var deadline = DateTime.UtcNow.AddSeconds(180);
        while (!Met())
        {
            if (DateTime.UtcNow > deadline)
                throw new TimeoutException($"It does not come to that: {describe()}");
            Thread.Sleep(20);
        }

        bool Met()
        {
            try
            {
                return condition();
            }
            catch (IOException)
            {
                return false; // Sentinel closes all connections of a server whose part it changes.
            }
        }
    }

    /// <summary>The servers of a test with their folders, and a connection to each; all end with it.</summary>
    private sealed class Servers : IDisposable
    {
        private readonly Dictionary<int, TemporaryFolder> folders = [];
        private readonly Dictionary<int, RespClient> connections = [];

        public List<RedisServer> List { get; } = [];

        public RedisServer Add(RedisServer server)
        {
            List.Add(server);
            return server;
        }

        public RedisServer Replace(int index, RedisServer server) => List[index] = server;

        public string Folder(int index)
        {
            if (!folders.TryGetValue(index, out var folder))
                folders.Add(index, folder = new TemporaryFolder());
            return folder;
        }

        public RespClient Connection(int port)
        {
            if (!connections.TryGetValue(port, out var client))
                connections.Add(port, client = new RespClient(port));
            return client;
        }

        public void Dispose()
        {
            foreach (var client in connections.Values)
                client.Dispose();
            foreach (var server in List)
                server.Dispose();
            foreach (var folder in folders.Values)
                folder.Dispose();
        }
    }
}
