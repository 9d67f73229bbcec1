using System.Collections.Concurrent;
using System.Globalization;
using System.Net;
using System.Net.Sockets;

namespace Privy.Integration.Tests;

/// <summary>A real redis-server, native or under Privy, with a folder of its own. It never outlives this object.</summary>
public sealed class RedisServer : IDisposable
{
    private static readonly ConcurrentDictionary<int, bool> Given = [];

    private readonly ProcessRun run;
    private readonly TemporaryFolder? own;

    /// <summary>Starts a server and waits until it answers. Data lies in <paramref name="folder"/>, or in a new one.</summary>
    public RedisServer(bool underPrivy, IReadOnlyList<string>? configuration = null, string? folder = null, params string[] privyOptions)
        : this(underPrivy, FreePort(), configuration, folder, privyOptions)
    {
    }

    /// <summary>The same on a given port: a server that comes back where others know it.</summary>
    public RedisServer(bool underPrivy, int port, IReadOnlyList<string>? configuration, string? folder, params string[] privyOptions)
        : this(underPrivy, port, folder, home => ["--port", $"{port}", "--bind", "127.0.0.1", "--dir", home, "--save", "", "--appendonly", "no", "--daemonize", "no",
            "--enable-debug-command", "yes", "--loglevel", "notice", .. configuration ?? []], privyOptions)
    {
    }

    private RedisServer(bool underPrivy, int port, string? folder, Func<string, string[]> command, params string[] privyOptions)
    {
        if (folder is null)
            own = new TemporaryFolder();
        Folder = folder ?? own!.Path;
        Port = port;
        var arguments = command(Folder);
        var program = Requirements.Require("redis-server");
        run = new ProcessRun(underPrivy ? Launcher.Command(program, arguments, privyOptions) : [program, .. arguments], Folder);
        try
        {
            WaitUntilReady();
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>Starts a Sentinel, which keeps its state in its configuration file.</summary>
    public static RedisServer Sentinel(bool underPrivy, params string[] configuration)
    {
        var port = FreePort();
        return new RedisServer(underPrivy, port, null, home =>
        {
            var file = Path.Combine(home, "sentinel.conf");
            File.WriteAllLines(file, [$"port {port}", "bind 127.0.0.1", $"dir {home}", "daemonize no", .. configuration]);
            return [file, "--sentinel"];
        });
    }

    public int Port { get; }

    public string Folder { get; }

    /// <summary>The process; under Privy the hypervisor's.</summary>
    public int Id => run.Id;

    public string Log => $"{run.OutputSoFar}\n{run.ErrorsSoFar}";

    public RespClient Connect() => new(Port);

    /// <summary>One command on a connection of its own.</summary>
    public Reply Must(params string[] command)
    {
        using var client = Connect();
        return client.Must(command);
    }

    /// <summary>A field of INFO.</summary>
    public string Info(string field)
    {
        using var client = Connect();
        return Info(client, field);
    }

    /// <summary>A field of INFO.</summary>
    public static string Info(RespClient client, string field) =>
        client.Must("INFO", "everything").Text!.Split("\r\n").FirstOrDefault(l => l.StartsWith(field + ":", StringComparison.Ordinal))?[(field.Length + 1)..]
            ?? throw new InvalidOperationException($"INFO has no field {field}.");

    /// <summary>Starts a BGSAVE and waits until it has succeeded.</summary>
    public void BackgroundSave(RespClient client, int seconds = 60)
    {
        client.Must("BGSAVE");
        Wait(client, "rdb_bgsave_in_progress", "0", seconds);
        Assert.True(Info(client, "rdb_last_bgsave_status") == "ok", $"BGSAVE failed.\n{Log}");
    }

    /// <summary>Waits until a field of INFO has a value.</summary>
    public void Wait(RespClient client, string field, string value, int seconds)
    {
        var deadline = DateTime.UtcNow.AddSeconds(seconds);
        while (Info(client, field) != value)
        {
            if (DateTime.UtcNow > deadline)
                throw new TimeoutException($"{field} is {Info(client, field)}, not {value}, after {seconds} s.\n{ProcessRun.Shorten(Log)}");
            Thread.Sleep(2);
        }
    }

    /// <summary>A digest of all data.</summary>
    public string Digest() => Must("DEBUG", "DIGEST").Text!;

    public void Signal(int signal) => run.Signal(signal);

    /// <summary>Waits for the process to end.</summary>
    public RunResult WaitForExit(int seconds = 60) => run.Wait(TimeSpan.FromSeconds(seconds));

    /// <summary>Ends the server without saving.</summary>
    public RunResult Shutdown(int seconds = 60)
    {
        using (var client = Connect())
        {
            client.Queue("SHUTDOWN", "NOSAVE");
            client.Flush();
        }
        return WaitForExit(seconds);
    }

    public void Dispose()
    {
        run.Dispose();
        own?.Dispose();
    }

    /// <summary>A port that nobody listens on, and that no other test is given.</summary>
    public static int FreePort()
    {
        while (true)
        {
            using var listener = new TcpListener(IPAddress.Loopback, 0);
            listener.Start();
            var port = ((IPEndPoint)listener.LocalEndpoint).Port;
            if (Given.TryAdd(port, true))
                return port;
        }
    }

    public static string Invariant(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);

    private void WaitUntilReady()
    {
        var deadline = DateTime.UtcNow.AddSeconds(60);
        while (true)
        {
            if (run.HasExited)
                throw new InvalidOperationException($"redis-server ended at once.\n{run.Wait(TimeSpan.FromSeconds(5))}");
            try
            {
                using var client = new RespClient(Port, 5);
                if (!client.Command("PING").IsError)
                    return;
            }
            catch (Exception e) when (e is SocketException or IOException)
            {
                // not listening yet, or loading
            }
            if (DateTime.UtcNow > deadline)
                throw new TimeoutException($"redis-server does not answer.\n{Log}");
            Thread.Sleep(20);
        }
    }
}
