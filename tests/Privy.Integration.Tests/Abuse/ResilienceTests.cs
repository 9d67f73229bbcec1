using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text;

namespace Privy.Integration.Tests;

/// <summary>What befalls a server from outside: it is killed, stopped, out of memory, disk, descriptors; nothing is left over, and what can go on does.</summary>
public sealed class ResilienceTests
{
    public static TheoryData<string> Cases() => TestPrograms.Cases("abuse");

    [PrivyTheory(Needs.Compiler)]
    [MemberData(nameof(Cases))]
    public void A_program_that_asks_for_too_much(string name) => TestPrograms.Run("abuse", name, seconds: 150);

    /// <summary>What it needs for threads and children finds room under the limits that shells set, and not among the program's numbers.</summary>
    [PrivyTheory(Needs.Compiler)]
    [InlineData(1024)]
    [InlineData(4096)]
    public void Threads_and_children_under_a_limit_of_descriptors(int limit)
    {
        using var folder = new TemporaryFolder();
        var command = Launcher.Command(TestPrograms.Build("abuse"), ["threads_64", "close_range_beside_new_threads", "children_beyond_the_limit"]);
        var result = ProcessRun.Run(["/bin/sh", "-c", $"ulimit -n {limit} && exec \"$@\"", "sh", .. command], folder, limit: TimeSpan.FromSeconds(200));
        Assert.True(result.ExitCode == 0, result.ToString());
        Assert.Equal("OK threads_64\nOK close_range_beside_new_threads\nOK children_beyond_the_limit\n", result.Text);
    }

    /// <summary>SIGKILL to the host process while a BGSAVE runs: its child, its stand-in and its native children go with it.</summary>
    [PrivyFact(Needs.Redis | Needs.Privy)]
    public void Killed_as_a_whole_it_leaves_nothing()
    {
        using var run = new ProcessRun(Launcher.Command("/bin/bash", ["-c", "(while :; do :; done) & (sleep 600) & sleep 600 & sh -c 'echo ready; exec sleep 600'"]), Path.GetTempPath(), keepInputOpen: true);
        WaitUntil(() => run.OutputSoFar.Contains("ready", StringComparison.Ordinal));
        Thread.Sleep(300);
        Assert.True(Descendants(run.Id).Count >= 3, "there is nothing that could be left");
        var native = Descendants(run.Id).Where(id => Command(id).StartsWith("sleep", StringComparison.Ordinal)).ToList();
        Assert.Equal(0, Native.Kill(run.Id, Native.SIGKILL));
        var family = Descendants(run.Id).Except(native).ToList();
        WaitUntil(() => run.HasExited && !family.Any(id => Directory.Exists($"/proc/{id}") && !IsZombie(id)));
        // A native process that exec made outlives its parent natively, too.
        foreach (var id in native)
            _ = Native.Kill(id, Native.SIGKILL);
    }

    [PrivyFact(Needs.Redis | Needs.Privy)]
    public void Killed_during_a_BGSAVE_the_server_leaves_no_process_and_the_old_file_is_whole()
    {
        using var folder = new TemporaryFolder();
        using (var server = new RedisServer(underPrivy: true, folder: folder))
        {
            using var client = server.Connect();
            client.Must("DEBUG", "POPULATE", "50000", "key", "100");
            server.BackgroundSave(client);
            client.Must("SET", "late", "1");
            client.Must("CONFIG", "SET", "rdb-key-save-delay", "100");
            client.Must("BGSAVE");
            WaitUntil(() => Descendants(server.Id).Count > 0);
            var family = Descendants(server.Id);
            Assert.Equal(0, Native.Kill(server.Id, Native.SIGKILL));
            WaitUntil(() => !family.Any(id => Directory.Exists($"/proc/{id}") && !IsZombie(id)));
        }

        using var native = new RedisServer(underPrivy: false, folder: folder);
        Assert.Equal("50000", native.Must("DBSIZE").Text);
    }

    /// <summary>SIGKILL to what stands for the child: its BGSAVE has failed, the server goes on and the next one works.</summary>
    [PrivyFact(Needs.Redis | Needs.Privy)]
    public void A_killed_child_is_a_failed_BGSAVE()
    {
        using var server = new RedisServer(underPrivy: true);
        using var client = server.Connect();
        client.Must("DEBUG", "POPULATE", "50000", "key", "100");
        client.Must("CONFIG", "SET", "rdb-key-save-delay", "100");
        client.Must("BGSAVE");
        WaitUntil(() => Descendants(server.Id).Count > 0);
        foreach (var id in Descendants(server.Id))
            _ = Native.Kill(id, Native.SIGKILL);
        WaitUntil(() => RedisServer.Info(client, "rdb_bgsave_in_progress") == "0");
        Assert.Equal("err", RedisServer.Info(client, "rdb_last_bgsave_status"));
        client.Must("CONFIG", "SET", "rdb-key-save-delay", "0");
        server.BackgroundSave(client);
        Assert.Equal("50000", client.Must("DBSIZE").Text);
        Assert.Empty(Descendants(server.Id));
    }

    [PrivyFact(Needs.Redis | Needs.Privy)]
    public void Stopped_and_continued_it_goes_on()
    {
        using var server = new RedisServer(underPrivy: true);
        using var client = server.Connect();
        client.Must("DEBUG", "POPULATE", "50000", "key", "100");
        client.Must("CONFIG", "SET", "rdb-key-save-delay", "20");
        var random = new Random(1);
        client.Must("BGSAVE");
        for (var round = 0; round < 8; round++)
        {
            Assert.Equal(0, Native.Kill(server.Id, Native.SIGSTOP));
            Thread.Sleep(random.Next(60));
            client.Queue("INCR", "counter");
            client.Flush();
            Assert.Equal(0, Native.Kill(server.Id, Native.SIGCONT));
            Assert.Equal(round + 1, client.Read().Number);
            Thread.Sleep(random.Next(30));
        }

        SavesAllButTheCounter(server, client);
    }

    /// <summary>SIGSTOP to the child alone: its BGSAVE stands still, the server does not.</summary>
    [PrivyFact(Needs.Redis | Needs.Privy)]
    public void A_stopped_child_is_a_BGSAVE_that_waits()
    {
        using var server = new RedisServer(underPrivy: true);
        using var client = server.Connect();
        client.Must("DEBUG", "POPULATE", "50000", "key", "100");
        client.Must("CONFIG", "SET", "rdb-key-save-delay", "50");
        long Written() => new FileInfo(Assert.Single(Directory.GetFiles(server.Folder, "temp-*.rdb"))).Length;
        client.Must("BGSAVE");
        WaitUntil(() => Descendants(server.Id).Count > 0 && Directory.GetFiles(server.Folder, "temp-*.rdb").Length > 0);
        var child = Assert.Single(Descendants(server.Id));
        for (var round = 0; round < 4; round++)
        {
            Assert.Equal(0, Native.Kill(child, Native.SIGSTOP));
            WaitUntil(() => Stat(child) is ['T', ..]);
            // The state is what the kernel shows at once; the child itself is told of it.
            Thread.Sleep(200);
            var before = Written();
            client.Must("INCR", "counter");
            Thread.Sleep(300);
            Assert.Equal("1", RedisServer.Info(client, "rdb_bgsave_in_progress"));
            Assert.Equal(before, Written());
            Assert.Equal(0, Native.Kill(child, Native.SIGCONT));
            WaitUntil(() => Stat(child) is not ['T', ..]);
            WaitUntil(() => Written() > before);
        }

        SavesAllButTheCounter(server, client);
    }

    /// <summary>
    /// What stands for a child that is stopped cannot see by itself that the hypervisor has gone. Half of them stop while they still share the hypervisor's memory, the others when they have their own.
    /// </summary>
    [PrivyFact(Needs.Privy)]
    public void Killed_as_a_whole_it_leaves_no_stopped_child()
    {
        using var run = new ProcessRun(Launcher.Command("/bin/bash", ["-c", "for i in 0 0 0.1; do (sleep $i; while :; do kill -STOP $BASHPID; done) & (while :; do kill -STOP $BASHPID; done) & done; wait"]), Path.GetTempPath(), keepInputOpen: true);
        WaitUntil(() => Descendants(run.Id).Count(id => Stat(id) is ['T', ..]) == 6);
        var family = Descendants(run.Id);
        Assert.Equal(0, Native.Kill(run.Id, Native.SIGKILL));
        WaitUntil(() => run.HasExited && !family.Any(id => Directory.Exists($"/proc/{id}") && !IsZombie(id)));
    }

    /// <summary>The kernel's out-of-memory killer ends it as it ends any process: nothing is left, whoever waits sees SIGKILL.</summary>
    [PrivyTheory(Needs.Compiler | Needs.MemoryGroup)]
    [InlineData("die_of_memory")]
    [InlineData("die_of_copies")]
    public void Out_of_memory_in_a_control_group(string name)
    {
        using var group = new Abuse.MemoryGroup(250L << 20);
        using var folder = new TemporaryFolder();
        var result = ProcessRun.Run(group.Command(Launcher.Command(TestPrograms.Build("abuse"), [name])), folder, limit: TimeSpan.FromSeconds(120));
        Assert.True(result.ExitCode is 137 or 0 && (result.ExitCode == 137 || name == "die_of_copies" && Launcher.IsNative), result.ToString());
        Assert.Equal("about to die\n", result.Text);
        Assert.Empty(result.LeftOver);
        Assert.False(Long.IsDefect(result.Errors), result.ToString());
    }

    /// <summary>A BGSAVE onto a full disk fails as such; with room again it works.</summary>
    [PrivyFact(Needs.Redis | Needs.Root)]
    public void Disk_full_during_a_BGSAVE()
    {
        using var folder = new TemporaryFolder();
        var port = RedisServer.FreePort();
        var server = Launcher.Command(Requirements.Require("redis-server"), ["--port", $"{port}", "--bind", "127.0.0.1", "--dir", folder, "--save", "", "--enable-debug-command", "yes", "--rdbcompression", "no"]);
        using var run = new ProcessRun(["unshare", "--mount", "--propagation", "private", "bash", "-c", $"mount -t tmpfs -o size=8m none '{folder.Path}' && exec \"$@\"", "disk", .. server], "/");
        using var client = Connect(port);
        string Field(string name) => client.Must("INFO", "persistence").Text!.Split("\r\n").First(line => line.StartsWith(name + ":", StringComparison.Ordinal)).Split(':')[1];
        client.Must("DEBUG", "POPULATE", "1000", "few", "1000");
        for (var round = 0; round < 2; round++)
        {
            client.Must("BGSAVE");
            WaitUntil(() => Field("rdb_bgsave_in_progress") == "0");
            Assert.Equal("ok", Field("rdb_last_bgsave_status"));
            client.Must("DEBUG", "POPULATE", "20000", "many", "1000");
            client.Must("BGSAVE");
            WaitUntil(() => Field("rdb_bgsave_in_progress") == "0");
            Assert.Equal("err", Field("rdb_last_bgsave_status"));
            Assert.Equal("21000", client.Must("DBSIZE").Text);
            client.Must("FLUSHALL");
            client.Must("DEBUG", "POPULATE", "1000", "few", "1000");
        }
    }

    /// <summary>Ten thousand clients at once, and a snapshot while they are served.</summary>
    [PrivyFact(Needs.Redis | Needs.Privy)]
    public void Ten_thousand_connections()
    {
        const int Count = 10_000;
        if (Limit() < 2 * Count)
            throw new InvalidOperationException("The test needs 20,000 descriptors; raise the limit (ulimit -Hn).");
        using var server = new RedisServer(underPrivy: true, ["--maxclients", $"{Count + 100}", "--tcp-backlog", "4096"]);
        using var control = server.Connect();
        control.Must("DEBUG", "POPULATE", "20000", "key", "100");
        var sockets = new List<Socket>(Count);
        try
        {
            for (var i = 0; i < Count; i++)
            {
                var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true, ReceiveTimeout = 120_000 };
                socket.Connect(IPAddress.Loopback, server.Port);
                sockets.Add(socket);
            }

            control.Must("BGSAVE");
            var reply = new byte[64];
            for (var round = 0; round < 2; round++)
            {
                foreach (var socket in sockets)
                    socket.Send("*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n"u8);
                long sum = 0;
                foreach (var socket in sockets)
                {
                    var n = socket.Receive(reply);
                    sum += long.Parse(Encoding.ASCII.GetString(reply.AsSpan(1, n - 3)), CultureInfo.InvariantCulture);
                }

                // Each of the numbers once.
                long first = 1 + round * Count, last = (round + 1) * Count;
                Assert.Equal((first + last) * Count / 2, sum);
            }

            Assert.Equal($"{Count + 1}", RedisServer.Info(control, "connected_clients"));
            WaitUntil(() => RedisServer.Info(control, "rdb_bgsave_in_progress") == "0");
            Assert.Equal("ok", RedisServer.Info(control, "rdb_last_bgsave_status"));
        }
        finally
        {
            foreach (var socket in sockets) socket.Dispose();
        }

        Assert.Equal("20001", control.Must("DBSIZE").Text);
    }

    /// <summary>Its BGSAVE succeeds, and a native server that loads the file has what this one has.</summary>
    private static void SavesAllButTheCounter(RedisServer server, RespClient client)
    {
        WaitUntil(() => RedisServer.Info(client, "rdb_bgsave_in_progress") == "0");
        Assert.Equal("ok", RedisServer.Info(client, "rdb_last_bgsave_status"));
        using var other = new TemporaryFolder();
        File.Copy(Path.Combine(server.Folder, "dump.rdb"), Path.Combine(other, "dump.rdb"));
        using var native = new RedisServer(underPrivy: false, folder: other);
        // The counter came after the snapshot.
        client.Must("DEL", "counter");
        Assert.Equal(server.Digest(), native.Digest());
    }

    private static long Limit() =>
        long.TryParse(File.ReadLines("/proc/self/limits").First(line => line.StartsWith("Max open files", StringComparison.Ordinal)).Split(' ', StringSplitOptions.RemoveEmptyEntries)[4], CultureInfo.InvariantCulture, out var hard) ? hard : long.MaxValue;

    private static RespClient Connect(int port)
    {
        for (var since = Stopwatch.StartNew(); ;)
        {
            try
            {
                return new RespClient(port, 120);
            }
            catch (SocketException) when (since.Elapsed < TimeSpan.FromSeconds(60))
            {
                Thread.Sleep(20);
            }
        }
    }

    private static void WaitUntil(Func<bool> condition)
    {
        for (var since = Stopwatch.StartNew(); !condition(); Thread.Sleep(10))
            Assert.True(since.Elapsed < TimeSpan.FromSeconds(150), "It does not come to pass.");
    }

    private static string Command(int id)
    {
        try
        {
            return File.ReadAllText($"/proc/{id}/comm").Trim();
        }
        catch (IOException)
        {
            return "";
        }
    }

    private static bool IsZombie(int id) => Stat(id) is ['Z', ..];

    /// <summary>State and parent: what follows the name in /proc/PID/stat.</summary>
    private static string Stat(int id)
    {
        try
        {
            var text = File.ReadAllText($"/proc/{id}/stat");
            return text[(text.LastIndexOf(')') + 2)..];
        }
        catch (IOException)
        {
            return "";
        }
    }

    private static List<int> Descendants(int root)
    {
        var parents = Directory.GetDirectories("/proc").Select(Path.GetFileName).Where(n => int.TryParse(n, out _)).Select(n => int.Parse(n!, CultureInfo.InvariantCulture))
            .Select(id => (Id: id, Fields: Stat(id).Split(' '))).Where(p => p.Fields.Length > 1 && p.Fields[0] != "Z").ToDictionary(p => p.Id, p => int.Parse(p.Fields[1], CultureInfo.InvariantCulture));
        return [.. parents.Keys.Where(id =>
        {
            for (var at = id; parents.TryGetValue(at, out var parent); at = parent)
                if (parent == root) return true;
            return false;
        })];
    }
}
