using System.Net;
using System.Net.Http;
using System.Net.Sockets;
using System.Text;

namespace Privy.Integration.Tests;

/// <summary>Databases and servers other than Redis.</summary>
public sealed class OtherProgramTests
{
    [PrivyFact(Needs.Sqlite)]
    public void Sqlite()
    {
        const string script = """
            pragma journal_mode=wal;
            create table t(a integer primary key, b text);
            with recursive c(n) as (select 1 union all select n+1 from c where n<30000) insert into t select n, hex(n*7919) from c;
            select count(*), sum(a), min(b), max(b) from t;
            create index i on t(b);
            begin; delete from t where a%3=0; rollback;
            delete from t where a%5=0;
            vacuum;
            select count(*), sum(length(b)) from t;
            pragma mmap_size=100000000;
            select count(*) from t where b like '3%';
            pragma integrity_check;
            """;
        var result = Both.Run(Requirements.Require("sqlite3"), ["test.db"], input: Encoding.ASCII.GetBytes(script), exitCode: 0);
        Assert.EndsWith("ok\n", result.Text, StringComparison.Ordinal);
    }

    [PrivyFact(Needs.Memcached)]
    public void Memcached()
    {
        var port = RedisServer.FreePort();
        // As root it wants to be told whom to become; as anybody else it stays who it is.
        string[] arguments = ["-l", "127.0.0.1", "-p", $"{port}", "-t", "4", "-m", "64", "-u", Environment.UserName];
        using var folder = new TemporaryFolder();
        var replies = new List<string>();
        foreach (var underPrivy in (bool[])[false, true])
        {
            var program = Requirements.Require("memcached");
            using var run = new ProcessRun(underPrivy ? Launcher.Command(program, arguments) : [program, .. arguments], folder);
            replies.Add(string.Concat(Enumerable.Range(0, 8).AsParallel().AsOrdered().WithDegreeOfParallelism(8).Select(n => TalkToMemcached(run, port, n))));
            run.Signal(Native.SIGTERM);
            var result = run.Wait(TimeSpan.FromSeconds(20));
            Assert.True(result.ExitCode == 0 && result.LeftOver.Count == 0, result.ToString());
        }

        Assert.Contains("VALUE key-7-99 0 1000\r\n", replies[0], StringComparison.Ordinal);
        Assert.Equal(replies[0], replies[1]);
    }

    /// <summary>A master that forks two workers; it reloads its configuration and ends in order.</summary>
    [PrivyFact(Needs.Nginx)]
    public void Nginx()
    {
        foreach (var underPrivy in (bool[])[false, true])
        {
            using var folder = new TemporaryFolder();
            var port = RedisServer.FreePort();
            var content = new byte[3_000_000];
            new Random(5).NextBytes(content);
            File.WriteAllBytes(Path.Combine(folder, "large"), content);
            File.WriteAllText(Path.Combine(folder, "small"), "hello\n");
            var temporary = string.Concat(new[] { "client_body", "proxy", "fastcgi", "uwsgi", "scgi" }.Select(name => $"{name}_temp_path {folder.Path}/{name};\n"));
            File.WriteAllText(Path.Combine(folder, "nginx.conf"), $$"""
                {{(Environment.UserName == "root" ? "user root root;" : "")}}
                daemon off; worker_processes 2; pid {{folder.Path}}/pid; error_log stderr;
                events { worker_connections 200; }
                http {
                    {{temporary}} access_log off; sendfile on;
                    server { listen 127.0.0.1:{{port}}; root {{folder.Path}}; }
                }
                """);
            string[] arguments = ["-c", $"{folder.Path}/nginx.conf"];
            var program = Requirements.Require("nginx");
            using var run = new ProcessRun(underPrivy ? Launcher.Command(program, arguments) : [program, .. arguments], folder);
            using var client = new HttpClient { Timeout = TimeSpan.FromSeconds(20) };
            var small = new Uri($"http://127.0.0.1:{port}/small");
            Until(run, () => client.GetStringAsync(small).Result == "hello\n");
            for (var i = 0; i < 20; i++)
                Assert.True(client.GetByteArrayAsync(new Uri($"http://127.0.0.1:{port}/large")).Result.AsSpan().SequenceEqual(content), $"file {i}, under Privy: {underPrivy}");
            run.Signal(1); // SIGHUP: new workers, the old ones end
            for (var i = 0; i < 200; i++)
                Assert.Equal("hello\n", client.GetStringAsync(small).Result);
            Assert.Equal(HttpStatusCode.NotFound, client.GetAsync(new Uri($"http://127.0.0.1:{port}/none")).Result.StatusCode);
            run.Signal(3); // SIGQUIT: after the last answer
            var result = run.Wait(TimeSpan.FromSeconds(30));
            Assert.True(result.ExitCode == 0 && result.LeftOver.Count == 0, result.ToString());
        }
    }

    /// <summary>PostgreSQL in single-user mode, which is what initdb runs. It refuses to run as root.</summary>
    [PrivyFact(Needs.Postgres)]
    public void Postgres_in_single_user_mode()
    {
        const string prepare = """
            set -e
            chmod 777 .
            # Somebody who is not root, but may open what root may: /dev/kvm is for root alone on some machines.
            become() { if [ "$(id -u)" = 0 ]; then setpriv --reuid=nobody --regid=nogroup --clear-groups --inh-caps=+dac_override --ambient-caps=+dac_override "$@"; else "$@"; fi; }
            become "$BIN/initdb" -D data -A trust --no-locale -E UTF8 -U test >initdb.log 2>&1 || { cat initdb.log; exit 9; }
            """;
        const string query = """
            become $RUN "$BIN/postgres" --single -D data -j postgres 2>errors <<'SQL' | grep -v '^PostgreSQL\|^backend' || { cat errors; exit 8; }
            create table t as select n as a, md5(n::text) as b from generate_series(1, 20000) n;

            create index on t(b);

            select count(*), sum(a), min(b), max(b) from t;

            delete from t where a % 3 = 0;

            vacuum full t;

            select count(*), string_agg(b, '' order by a) = (select string_agg(md5(n::text), '' order by n) from generate_series(1, 20000) n where n % 3 <> 0) from t;

            SQL
            """;
        var bin = Requirements.FindPostgres()!;
        var outputs = new List<string>();
        foreach (var underPrivy in (bool[])[false, true])
        {
            using var folder = new TemporaryFolder();
            var command = underPrivy ? string.Join(' ', Launcher.Command("", [])[..^1]) : "";
            var environment = new Dictionary<string, string> { ["BIN"] = bin, ["RUN"] = command };
            var result = ProcessRun.Run(["/bin/bash", "-c", $"{prepare}\n{query}"], folder, environment: environment, limit: TimeSpan.FromSeconds(120));
            Assert.True(result.ExitCode == 0, result.ToString());
            outputs.Add(result.Text);
        }

        Assert.Contains("= \"13334\"", outputs[0], StringComparison.Ordinal);
        Assert.Equal(outputs[0], outputs[1]);
    }

    private static void Until(ProcessRun run, Func<bool> condition)
    {
        var deadline = DateTime.UtcNow.AddSeconds(40);
        while (true)
        {
            try
            {
                if (condition())
                    return;
            }
            catch (Exception e) when (e is SocketException or HttpRequestException or IOException or AggregateException)
            {
                // not listening yet
            }

            if (run.HasExited || DateTime.UtcNow > deadline)
                throw new TimeoutException($"The server does not answer.\n{run.OutputSoFar}\n{run.ErrorsSoFar}");
            Thread.Sleep(20);
        }
    }

    private static string TalkToMemcached(ProcessRun run, int port, int number)
    {
        using var client = new TcpClient { ReceiveTimeout = 20_000 };
        Until(run, () =>
        {
            client.Connect(IPAddress.Loopback, port);
            return true;
        });
        var request = new StringBuilder();
        for (var i = 0; i < 100; i++)
            request.Append($"set key-{number}-{i} 0 0 1000\r\n{new string((char)('a' + ((number + i) % 26)), 1000)}\r\n");
        for (var i = 0; i < 100; i++)
            request.Append($"get key-{number}-{i}\r\n");
        request.Append($"set n-{number} 0 0 2\r\n41\r\nincr n-{number} 1\r\ndelete n-{number}\r\nget n-{number}\r\nquit\r\n");
        var stream = client.GetStream();
        var bytes = Encoding.ASCII.GetBytes(request.ToString());
        var writing = stream.WriteAsync(bytes);
        using var reader = new StreamReader(stream, Encoding.ASCII);
        var reply = reader.ReadToEnd();
        writing.AsTask().Wait();
        return reply;
    }
}
