using System.Diagnostics;
using System.Net.Sockets;
using System.Text;

namespace Privy.Library.Tests;

/// <summary>The sample programs do what they say.</summary>
public sealed class SampleTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("privy-samples").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [EngineFact]
    public void Htap_finds_every_snapshot_consistent()
    {
        string plot = Path.Combine(_folder, "plot.svg");
        string csv = Path.Combine(_folder, "series.csv");
        string output = Harness.Run(Environment.ProcessPath!, _folder, Path.Combine(AppContext.BaseDirectory, "privy-htap.dll"),
            "--memory", "16m", "--seconds", "2", "--interval", "20", "--writers", "2", "--plot", plot, "--csv", csv);
        Assert.Contains("Every snapshot was a state between transactions.", output, StringComparison.Ordinal);
        Assert.Contains("</svg>", File.ReadAllText(plot), StringComparison.Ordinal);
        Assert.True(File.ReadAllLines(csv).Length > 3);
        string best = output.Split('\n').Single(l => l.StartsWith("portable", StringComparison.Ordinal) || l.StartsWith("privileged", StringComparison.Ordinal));
        Assert.True(int.Parse(best.Split('|')[1].Split(' ', StringSplitOptions.RemoveEmptyEntries)[0], null) > 3, output);
    }

    [EngineFact]
    public void Kv_serves_saves_and_restores()
    {
        using (var server = new KvServer(_folder))
        {
            Assert.Equal("+OK", server.Ask("SET", "number", "41"));
            Assert.Equal(":42", server.Ask("INCR", "number"));
            Assert.Equal(":52", server.Ask("INCRBY", "number", "10"));
            Assert.Equal("$52", server.Ask("GET", "number"));
            Assert.Equal("$-1", server.Ask("GET", "nothing"));
            string large = new('x', 100_000);
            Assert.Equal("+OK", server.Ask("SET", "large", large));
            Assert.Equal("$" + large, server.Ask("GET", "large"));
            Assert.Equal("+OK", server.Ask("SET", "text", "a b"));
            Assert.StartsWith("-ERR value is not an integer", server.Ask("INCR", "text"), StringComparison.Ordinal);
            Assert.StartsWith("-ERR unknown command", server.Ask("NONSENSE"), StringComparison.Ordinal);
            Assert.StartsWith("-ERR wrong number", server.Ask("GET"), StringComparison.Ordinal);
            Assert.Equal("+OK", server.Ask("MULTI"));
            Assert.Equal("+QUEUED", server.Ask("SET", "a", "1"));
            Assert.Equal("+QUEUED", server.Ask("INCR", "a"));
            Assert.Equal("*2 +OK :2", server.Ask("EXEC"));
            Assert.Equal("+OK", server.Ask("MULTI"));
            Assert.StartsWith("-ERR unknown", server.Ask("NONSENSE"), StringComparison.Ordinal);
            Assert.StartsWith("-EXECABORT", server.Ask("EXEC"), StringComparison.Ordinal);
            Assert.Equal(":1", server.Ask("DEL", "text", "nothing"));
            Assert.Equal(":3", server.Ask("DBSIZE"));
            Assert.Equal("+OK", server.Ask("SAVE"));
            Assert.Equal("+OK", server.Ask("SET", "a", "3"));
            Assert.Equal("+OK", server.Ask("SAVE"));
            Assert.Contains("last_checkpoint_full:0", server.Ask("INFO"), StringComparison.Ordinal);
            Assert.Equal("+OK", server.Ask("SET", "a", "not saved"));
            server.Kill();
        }
        using (var server = new KvServer(_folder))
        {
            Assert.Equal("$3", server.Ask("GET", "a"));
            Assert.Equal("$52", server.Ask("GET", "number"));
            Assert.Equal(":3", server.Ask("DBSIZE"));
            server.Stop();
        }
    }

    /// <summary>A save must not catch a transaction half done, however the clients go at it.</summary>
    [EngineFact]
    public void Kv_saves_whole_transactions_under_load()
    {
        const int Saves = 12;
        for (int round = 0; round < 3; round++)
        {
            using (var server = new KvServer(_folder))
            {
                using var stop = new CancellationTokenSource();
                Task[] clients = [.. Enumerable.Range(0, 2).Select(c => Task.Run(() =>
                {
                    using Connection connection = server.Connect();
                    for (int i = 0; !stop.IsCancellationRequested; i++)
                    {
                        connection.Ask("MULTI");
                        connection.Ask("INCR", $"left{i % 50}");
                        connection.Ask("INCR", $"right{i % 50}");
                        connection.Ask("EXEC");
                    }
                }))];
                // There is something to save.
                Assert.True(SpinWait.SpinUntil(() => server.Ask("GET", "right0") != "$-1", TimeSpan.FromSeconds(30)));
                for (int save = 0; save < Saves / 3; save++)
                {
                    Thread.Sleep(30);
                    Assert.Equal("+OK", server.Ask("SAVE"));
                }
                stop.Cancel();
                Task.WaitAll(clients);
                server.Kill();
            }
            using (var server = new KvServer(_folder))
            {
                int pairs = 0;
                for (int i = 0; i < 50; i++)
                {
                    string left = server.Ask("GET", $"left{i}");
                    Assert.Equal(left, server.Ask("GET", $"right{i}"));
                    pairs += left == "$-1" ? 0 : 1;
                }
                Assert.True(pairs > 0);
                server.Stop();
            }
        }
    }

    [RedisToolFact]
    public void Kv_can_be_driven_by_redis_benchmark() => DriveKv(underPrivy: false);

    [RedisToolFact(underPrivy: true)]
    public void Kv_can_be_driven_by_redis_benchmark_under_Privy() => DriveKv(underPrivy: true);

    private void DriveKv(bool underPrivy)
    {
        using var server = new KvServer(_folder, underPrivy);
        string port = server.Port.ToString(null, null);
        string output = Harness.Run("redis-benchmark", _folder, "-p", port, "-n", "4000", "-c", "5", "-P", "8", "-r", "500", "--csv", "-t", "set,get,incr");
        Assert.Equal(4, output.Split('\n').Count(line => line.StartsWith('"')));
        Assert.Equal("5", Harness.Run("redis-cli", _folder, "-p", port, "incrby", "fresh", "5").Trim());
        Assert.StartsWith("Background saving", Harness.Run("redis-cli", _folder, "-p", port, "bgsave").Trim(), StringComparison.Ordinal);
        Assert.True(SpinWait.SpinUntil(() => Harness.Run("redis-cli", _folder, "-p", port, "info").Contains("rdb_bgsave_in_progress:0", StringComparison.Ordinal), TimeSpan.FromMinutes(2)));
        Assert.Equal("OK", Harness.Run("redis-cli", _folder, "-p", port, "save").Trim());
        string engine = underPrivy || SnapshotRegion.IsAvailable(SnapshotEngine.Privileged, out _) ? "privileged" : "portable";
        Assert.Contains(engine, Harness.Run("redis-cli", _folder, "-p", port, "info"), StringComparison.OrdinalIgnoreCase);
        server.Stop();
    }

    private sealed class KvServer : IDisposable
    {
        private readonly Process _process;
        private readonly Connection _connection;

        internal KvServer(string folder, bool underPrivy = false)
        {
            using (var probe = new TcpListener(System.Net.IPAddress.Loopback, 0))
            {
                probe.Start();
                Port = ((System.Net.IPEndPoint)probe.LocalEndpoint).Port;
            }
            string[] arguments = ["--port", Port.ToString(null, null), "--memory", "64m", "--dir", Path.Combine(folder, "kv")];
            _process = underPrivy
                ? Harness.Start(PrivyRun.Cli!, folder, ["run", "--", Environment.ProcessPath!, Path.Combine(AppContext.BaseDirectory, "privy-kv.dll"), .. arguments])
                : Harness.StartAssembly("privy-kv.dll", arguments);
            string? line;
            do
                line = _process.StandardOutput.ReadLine();
            while (line is not null && !line.StartsWith("ready", StringComparison.Ordinal));
            if (line is null)
                Assert.Fail(_process.StandardError.ReadToEnd());
            _connection = Connect();
        }

        internal int Port { get; }

        internal Connection Connect() => new(Port);

        internal string Ask(params string[] request) => _connection.Ask(request);

        internal void Kill()
        {
            _process.Kill();
            _process.WaitForExit();
        }

        internal void Stop()
        {
            _connection.Send("SHUTDOWN");
            Assert.True(_process.WaitForExit(TimeSpan.FromSeconds(30)));
            Assert.Equal(0, _process.ExitCode);
        }

        public void Dispose()
        {
            _connection.Dispose();
            if (!_process.HasExited)
                Kill();
            _process.Dispose();
        }
    }

    private sealed class Connection : IDisposable
    {
        private readonly TcpClient _client;
        private readonly StreamReader _reader;

        internal Connection(int port)
        {
            _client = new TcpClient("127.0.0.1", port) { NoDelay = true };
            _reader = new StreamReader(_client.GetStream(), Encoding.Latin1);
        }

        internal string Ask(params string[] request)
        {
            Send(request);
            return Reply();
        }

        internal void Send(params string[] request)
        {
            var text = new StringBuilder($"*{request.Length}\r\n");
            foreach (string argument in request)
                text.Append($"${argument.Length}\r\n{argument}\r\n");
            _client.GetStream().Write(Encoding.Latin1.GetBytes(text.ToString()));
        }

        public void Dispose() => _client.Dispose();

        private string Reply()
        {
            string line = _reader.ReadLine() ?? throw new IOException("The server has closed the connection.");
            if (line[0] == '*')
                return string.Join(' ', Enumerable.Range(0, int.Parse(line[1..], null)).Select(_ => Reply()).Prepend(line));
            if (line[0] != '$' || line == "$-1")
                return line;
            var bytes = new char[int.Parse(line[1..], null) + 2];
            _reader.ReadBlock(bytes);
            return "$" + new string(bytes, 0, bytes.Length - 2);
        }
    }
}

/// <summary>A test that is skipped, by name, where there is no redis-benchmark.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class RedisToolFactAttribute : FactAttribute
{
    public RedisToolFactAttribute(bool underPrivy = false) => Skip = (underPrivy ? PrivyRun.Missing : Engine.Missing) ?? (Has("redis-benchmark") && Has("redis-cli") ? null : "There is no redis-benchmark or redis-cli in PATH (apt-get install redis-tools).");

    private static bool Has(string program) => (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':').Any(folder => File.Exists(Path.Combine(folder, program)));
}
