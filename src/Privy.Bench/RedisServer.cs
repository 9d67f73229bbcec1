using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text.RegularExpressions;
using Privy.Hypervisor;

namespace Privy.Bench;

/// <summary>How to start a server.</summary>
public sealed record RedisServerOptions
{
    /// <summary>The server's program: Redis, Valkey or KeyDB.</summary>
    public string Program { get; init; } = "redis-server";

    /// <summary>What precedes the program's command line (<c>privy run --</c>); empty to run it natively.</summary>
    public IReadOnlyList<string> Launcher { get; init; } = [];

    /// <summary>Further arguments of the server.</summary>
    public IReadOnlyList<string> Arguments { get; init; } = [];

    /// <summary>Allow DEBUG POPULATE.</summary>
    public bool AllowDebug { get; init; }

    /// <summary>Variables added to the server's environment.</summary>
    public IReadOnlyDictionary<string, string> Environment { get; init; } = new Dictionary<string, string>();

    /// <summary>Where the server's directory is made.</summary>
    public string TemporaryDirectory { get; init; } = Path.GetTempPath();
}

/// <summary>A Redis server of our own: free port, temporary directory, nothing persistent. Ends, and leaves nothing behind, when disposed.</summary>
public sealed partial class RedisServer : IDisposable
{
    private static readonly TimeSpan StartTimeout = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan CommandTimeout = TimeSpan.FromSeconds(120);

    private readonly Process _process;
    private readonly TemporaryDirectory _directory;
    private readonly Queue<string> _lastLines = new();
    private RespClient? _control;

    private RedisServer(Process process, TemporaryDirectory directory, int port)
    {
        _process = process;
        _directory = directory;
        Port = port;
    }

    /// <summary>The port it listens on, on the loopback address.</summary>
    public int Port { get; }

    /// <summary>The server's own directory, where it writes its files.</summary>
    public string DataDirectory => _directory.Path;

    /// <summary>The process (under Privy, the hypervisor's).</summary>
    public int ProcessId => _process.Id;

    /// <summary>A connection for control commands.</summary>
    public RespClient Control => _control ?? throw new InvalidOperationException("The server has not started.");

    /// <summary>The first of the known servers that is installed, or null.</summary>
    public static string? FindInstalled()
    {
        foreach (var name in (ReadOnlySpan<string>)["redis-server", "valkey-server", "keydb-server"])
            if (ProgramSearch.Find(name, out _) is not null) return name;
        return null;
    }

    /// <summary>The version line's number, for example "7.0.15", or null.</summary>
    public static string? Version(string program)
    {
        try
        {
            using var process = Process.Start(new ProcessStartInfo(program, ["--version"]) { RedirectStandardOutput = true });
            var text = process!.StandardOutput.ReadToEnd();
            process.WaitForExit();
            var match = VersionNumber().Match(text);
            return match.Success ? match.Groups[1].Value : null;
        }
        catch (System.ComponentModel.Win32Exception)
        {
            return null;
        }
    }

    /// <summary>Starts a server and waits until it answers.</summary>
    public static RedisServer Start(RedisServerOptions options, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(options);
        cancellation.ThrowIfCancellationRequested();
        var port = FreePort();
        var directory = new TemporaryDirectory("privy-redis-", options.TemporaryDirectory);
        RedisServer? server = null;
        try
        {
            List<string> command = [.. options.Launcher, options.Program,
                "--port", port.ToString(CultureInfo.InvariantCulture), "--bind", "127.0.0.1", "--dir", directory.Path,
                "--save", "", "--appendonly", "no", "--daemonize", "no", "--loglevel", "notice"];
            if (options.AllowDebug && NeedsDebugSwitch(options.Program)) command.AddRange(["--enable-debug-command", "yes"]);
            command.AddRange(options.Arguments);

            var start = new ProcessStartInfo(command[0], command.Skip(1)) { RedirectStandardOutput = true, RedirectStandardError = true, RedirectStandardInput = true };
            foreach (var (name, value) in options.Environment) start.Environment[name] = value;
            server = new RedisServer(StartProcess(start), directory, port);
            server._process.StandardInput.Close();
            server._process.OutputDataReceived += server.Keep;
            server._process.ErrorDataReceived += server.Keep;
            server._process.BeginOutputReadLine();
            server._process.BeginErrorReadLine();
            server.AwaitAnswer(cancellation);
            return server;
        }
        catch
        {
            if (server is null) directory.Dispose();
            else server.Dispose();
            throw;
        }
    }

    /// <summary>Starts a BGSAVE and returns how long the server says its fork took.</summary>
    public TimeSpan StartBackgroundSave()
    {
        Control.Command("BGSAVE");
        return LastFork();
    }

    /// <summary>How long the last fork took (latest_fork_usec).</summary>
    public TimeSpan LastFork() => TimeSpan.FromMicroseconds(long.Parse(Control.Info("stats")["latest_fork_usec"], CultureInfo.InvariantCulture));

    /// <summary>Whether a BGSAVE is running.</summary>
    public bool IsSaving() => Control.Info("persistence")["rdb_bgsave_in_progress"] != "0";

    /// <summary>Waits until the running BGSAVE has ended, and fails if it failed.</summary>
    public void AwaitBackgroundSave(TimeSpan timeout, CancellationToken cancellation = default)
    {
        var since = Stopwatch.GetTimestamp();
        while (true)
        {
            var info = Control.Info("persistence");
            if (info["rdb_bgsave_in_progress"] == "0")
            {
                if (info["rdb_last_bgsave_status"] != "ok") throw new BenchException("the BGSAVE failed; the server said: " + LastOutput());
                return;
            }

            if (Stopwatch.GetElapsedTime(since) > timeout) throw new BenchException($"the BGSAVE did not end within {timeout.TotalSeconds:0} s");
            Pause(100, cancellation);
        }
    }

    /// <summary>The memory of the data set and what the server needs for it (used_memory).</summary>
    public long UsedMemory() => long.Parse(Control.Info("memory")["used_memory"], CultureInfo.InvariantCulture);

    /// <summary>
    /// Adds keys with values of <paramref name="valueSize"/> bytes, by DEBUG POPULATE, until the server uses <paramref name="bytes"/> of memory.
    /// Reports the share done. The server is blocked meanwhile, some tenths of a second at a time.
    /// </summary>
    public void Populate(long bytes, int valueSize = 1024, IProgress<double>? progress = null, CancellationToken cancellation = default)
    {
        const int ChunkKeys = 50_000;
        var begin = UsedMemory();
        for (var chunk = 0; ; chunk++)
        {
            cancellation.ThrowIfCancellationRequested();
            var used = UsedMemory();
            progress?.Report(bytes > begin ? Math.Clamp((double)(used - begin) / (bytes - begin), 0, 1) : 1);
            if (used >= bytes) return;
            var keys = Math.Clamp((bytes - used) / (valueSize + 128), 1, ChunkKeys);
            Control.Command("DEBUG", "POPULATE", keys.ToString(CultureInfo.InvariantCulture), string.Create(CultureInfo.InvariantCulture, $"populate:{chunk}"), valueSize.ToString(CultureInfo.InvariantCulture));
        }
    }

    /// <summary>The end of what the server printed, on one line.</summary>
    public string LastOutput()
    {
        lock (_lastLines) return _lastLines.Count == 0 ? "(nothing)" : string.Join(" | ", _lastLines.TakeLast(3));
    }

    public void Dispose()
    {
        _control?.Dispose();
        try
        {
            if (!_process.HasExited)
            {
                // Killing a server whose BGSAVE child still runs would leave the child behind; with SIGTERM the server takes it along.
                Signal(_process.Id, SIGTERM);
                if (!_process.WaitForExit(5000)) _process.Kill(entireProcessTree: true);
                _process.WaitForExit(5000);
            }
        }
        catch (InvalidOperationException)
        {
            // It ended between the question and the kill.
        }

        _process.Dispose();
        _directory.Dispose();
    }

    internal static void Pause(int milliseconds, CancellationToken cancellation)
    {
        cancellation.WaitHandle.WaitOne(milliseconds);
        cancellation.ThrowIfCancellationRequested();
    }

    internal static Process StartProcess(ProcessStartInfo start)
    {
        try
        {
            return Process.Start(start)!;
        }
        catch (System.ComponentModel.Win32Exception e)
        {
            throw new BenchException($"{start.FileName} cannot be started: {e.Message}", e);
        }
    }

    // Redis 7 and Valkey refuse DEBUG unless told otherwise; earlier servers do not know the option and would not start with it.
    private static bool NeedsDebugSwitch(string program) =>
        Version(program) is { } version && int.Parse(version.AsSpan(0, version.IndexOf('.', StringComparison.Ordinal)), CultureInfo.InvariantCulture) >= 7;

    private static int FreePort()
    {
        using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        socket.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        return ((IPEndPoint)socket.LocalEndPoint!).Port;
    }

    private void AwaitAnswer(CancellationToken cancellation)
    {
        var since = Stopwatch.GetTimestamp();
        while (true)
        {
            if (_process.HasExited)
            {
                _process.WaitForExit();
                throw new BenchException($"the server did not start (status {_process.ExitCode}): {LastOutput()}");
            }

            try
            {
                _control = RespClient.Connect(Port, CommandTimeout);
                _control.Command("PING");
                return;
            }
            catch (SocketException)
            {
                _control?.Dispose();
            }

            if (Stopwatch.GetElapsedTime(since) > StartTimeout) throw new BenchException($"the server did not answer within {StartTimeout.TotalSeconds:0} s; it said: {LastOutput()}");
            Pause(20, cancellation);
        }
    }

    private void Keep(object sender, DataReceivedEventArgs e)
    {
        if (string.IsNullOrWhiteSpace(e.Data)) return;
        lock (_lastLines)
        {
            _lastLines.Enqueue(e.Data.Trim());
            if (_lastLines.Count > 20) _lastLines.Dequeue();
        }
    }

    private const int SIGTERM = 15;

    [System.Runtime.InteropServices.LibraryImport("libc", EntryPoint = "kill")]
    private static partial int SendSignal(int pid, int signal);

    private static void Signal(int pid, int signal) => _ = SendSignal(pid, signal);

    [GeneratedRegex(@"v=(\d+\.\d+(\.\d+)?)")]
    private static partial Regex VersionNumber();
}
