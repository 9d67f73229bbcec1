using System.Diagnostics;
using System.Text;

namespace Privy.Integration.Tests;

/// <summary>What a finished process left: output, exit status (128 + n after signal n), and processes that outlived it.</summary>
public sealed record RunResult(int ExitCode, byte[] Output, string Errors, IReadOnlyList<string> LeftOver, TimeSpan Duration)
{
    public string Text => Encoding.UTF8.GetString(Output);

    public override string ToString() => $"exit status {ExitCode} after {Duration.TotalSeconds:F1} s{(LeftOver.Count > 0 ? $", still running: {string.Join("; ", LeftOver)}" : "")}\n" +
        $"--- stdout ---\n{ProcessRun.Shorten(Text)}\n--- stderr ---\n{ProcessRun.Shorten(Errors)}";
}

/// <summary>A process with a time limit, whose descendants never outlive the test.</summary>
/// <remarks>
/// Descendants are found by a variable in their environment, because they may have changed parent, group and session.
/// </remarks>
public sealed class ProcessRun : IDisposable
{
    private const string MarkName = "PRIVY_TEST_RUN";
    private readonly string mark = Guid.NewGuid().ToString("N");
    private readonly Process process;
    private readonly Collector output, errors;
    private readonly Stopwatch watch = Stopwatch.StartNew();
    private readonly string shown;

    /// <summary>Starts a process. Its standard input is <paramref name="input"/>, or empty.</summary>
    public ProcessRun(IReadOnlyList<string> command, string workingDirectory, byte[]? input = null, IReadOnlyDictionary<string, string>? environment = null, bool keepInputOpen = false)
    {
        shown = string.Join(' ', command);
        // The .NET runtime ignores SIGPIPE, and what a process ignores its children ignore, too; a job in the background of a script also
        // ignores SIGINT. A program starts here as from an interactive shell.
        var start = new ProcessStartInfo("/usr/bin/env")
        {
            WorkingDirectory = workingDirectory,
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            UseShellExecute = false,
        };
        start.ArgumentList.Add("--default-signal");
        foreach (var argument in command)
            start.ArgumentList.Add(argument);
        // What the test host itself runs with must not reach the program; the locale decides messages and sort orders.
        foreach (var name in start.Environment.Keys.Where(k => k.StartsWith("DOTNET_", StringComparison.Ordinal) && k != "DOTNET_ROOT" && k != "DOTNET_CLI_HOME" || k.StartsWith("VSTEST", StringComparison.Ordinal) || k.StartsWith("MSBUILD", StringComparison.OrdinalIgnoreCase)).ToList())
            start.Environment.Remove(name);
        start.Environment["LC_ALL"] = "C";
        start.Environment[MarkName] = mark;
        foreach (var (name, value) in environment ?? new Dictionary<string, string>())
            start.Environment[name] = value;
        process = Process.Start(start) ?? throw new InvalidOperationException($"{shown} did not start.");
        output = new Collector(process.StandardOutput.BaseStream);
        errors = new Collector(process.StandardError.BaseStream);
        if (!keepInputOpen)
            _ = OnThread(() => Feed(input));
    }

    public int Id => process.Id;

    public bool HasExited => process.HasExited;

    public Stream Input => process.StandardInput.BaseStream;

    /// <summary>What it has printed so far.</summary>
    public string OutputSoFar => Encoding.UTF8.GetString(output.Bytes());

    /// <summary>What it has printed on the error stream so far.</summary>
    public string ErrorsSoFar => Encoding.UTF8.GetString(errors.Bytes());

    /// <summary>Waits until the process ends, and fails after <paramref name="limit"/> with what was printed up to then.</summary>
    public RunResult Wait(TimeSpan limit)
    {
        if (!process.WaitForExit(limit))
        {
            var state = Describe();
            KillAll();
            throw new TimeoutException($"{shown} did not end within {limit.TotalSeconds:F0} s.\n{state}\n--- stdout ---\n{Shorten(OutputSoFar)}\n--- stderr ---\n{Shorten(ErrorsSoFar)}");
        }
        var duration = watch.Elapsed;
        // The pipes end when the last holder is gone; a left-over process may keep them open.
        Task.WaitAll([output.Done, errors.Done], TimeSpan.FromSeconds(3));
        var left = LeftOver();
        if (left.Count > 0)
        {
            Thread.Sleep(200);
            left = LeftOver();
            KillAll();
        }
        return new RunResult(process.ExitCode, output.Bytes(), ErrorsSoFar, left, duration);
    }

    /// <summary>Sends a signal to the process alone.</summary>
    public void Signal(int signal) => Native.Kill(process.Id, signal);

    /// <summary>Runs to the end.</summary>
    public static RunResult Run(IReadOnlyList<string> command, string workingDirectory, byte[]? input = null, IReadOnlyDictionary<string, string>? environment = null, TimeSpan? limit = null)
    {
        using var run = new ProcessRun(command, workingDirectory, input, environment);
        return run.Wait(limit ?? TimeSpan.FromSeconds(60));
    }

    public void Dispose()
    {
        KillAll();
        process.Dispose();
    }

    internal static string Shorten(string text) => text.Length <= 6000 ? text : $"{text[..3000]}\n[... {text.Length - 6000} characters ...]\n{text[^3000..]}";

    /// <summary>A thread of its own: those of the pool may all wait for processes, and what a program printed would be read too late.</summary>
    private static Task OnThread(Action action) => Task.Factory.StartNew(action, CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);

    private void Feed(byte[]? input)
    {
        try
        {
            if (input is not null)
                process.StandardInput.BaseStream.Write(input);
            process.StandardInput.Close();
        }
        catch (IOException)
        {
            // it ended without reading everything
        }
    }

    private void KillAll()
    {
        for (var round = 0; round < 5; round++)
        {
            var any = false;
            foreach (var pid in Marked())
            {
                any = true;
                _ = Native.Kill(pid, 9);
            }
            if (!process.HasExited)
            {
                any = true;
                _ = Native.Kill(process.Id, 9);
            }
            if (!any)
                return;
            process.WaitForExit(200);
        }
    }

    private List<string> LeftOver() => [.. Marked().Select(pid => $"{pid} {ReadAll($"/proc/{pid}/cmdline").Replace('\0', ' ')}")];

    private string Describe()
    {
        var text = new StringBuilder();
        foreach (var pid in Marked().Append(process.Id).Distinct())
        {
            text.Append(ReadAll($"/proc/{pid}/cmdline").Replace('\0', ' ')).Append('\n');
            try
            {
                foreach (var task in Directory.GetDirectories($"/proc/{pid}/task"))
                    text.Append($"  {Path.GetFileName(task)} {ReadAll($"{task}/comm").Trim()} {ReadAll($"{task}/wchan")} {ReadAll($"{task}/syscall").Trim()}\n");
            }
            catch (IOException)
            {
            }
        }
        return text.ToString();
    }

    private IEnumerable<int> Marked()
    {
        var wanted = $"{MarkName}={mark}";
        foreach (var folder in Directory.GetDirectories("/proc"))
            if (int.TryParse(Path.GetFileName(folder), out var pid) && ReadAll($"{folder}/environ").Contains(wanted, StringComparison.Ordinal) && !ReadAll($"{folder}/stat").Contains(") Z ", StringComparison.Ordinal))
                yield return pid;
    }

    private static string ReadAll(string path)
    {
        try
        {
            return Encoding.Latin1.GetString(File.ReadAllBytes(path));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return "";
        }
    }

    /// <summary>Collects a stream while the process runs, so that it never blocks on a full pipe.</summary>
    private sealed class Collector
    {
        private readonly List<byte> collected = [];

        public Collector(Stream stream) => Done = OnThread(() =>
        {
            var buffer = new byte[65536];
            try
            {
                for (int n; (n = stream.Read(buffer)) > 0;)
                    lock (collected)
                        collected.AddRange(buffer.AsSpan(0, n));
            }
            catch (Exception e) when (e is IOException or ObjectDisposedException)
            {
            }
        });

        public Task Done { get; }

        public byte[] Bytes()
        {
            lock (collected)
                return collected.ToArray();
        }
    }
}
