using System.Runtime.InteropServices;
using Privy.Hypervisor;

namespace Privy.Cli;

/// <summary><c>--engine native</c>: this process becomes the program, by execve.</summary>
internal static unsafe partial class NativeEngine
{
    private const int SIGPIPE = 13;
    private const int SIG_SETMASK = 2;

    /// <summary>Returns only on failure, with the status a shell would give.</summary>
    public static int Run(RunOptions options)
    {
        if (options.MemoryBytes is not null || options.TraceFile is not null || options.Stats)
        {
            Console.Error.WriteLine("privy run: --memory, --trace and --stats need the engine kvm");
            return RunCommand.UsageError;
        }

        if (ProgramSearch.Find(options.Program, out var errno) is { } path) errno = Execute(path, options);
        Console.Error.WriteLine("privy run: " + ProgramSearch.Explain(options.Program, errno));
        return ProgramSearch.ExitStatus(errno);
    }

    private static int Execute(string path, RunOptions options)
    {
        // The runtime ignores SIGPIPE, and what is ignored stays so across execve. Whether our parent had it ignored can no longer be
        // seen; the default is what a shell hands on. The mask is reset for the same reason: it survives execve.
        Signal(SIGPIPE, 0);
        var emptyMask = stackalloc ulong[16];
        new Span<ulong>(emptyMask, 16).Clear();
        _ = SignalMask(SIG_SETMASK, emptyMask, null);

        var argv = (byte**)NativeMemory.AllocZeroed((nuint)(options.Arguments.Length + 2), (nuint)sizeof(byte*));
        argv[0] = (byte*)Marshal.StringToCoTaskMemUTF8(options.Program);
        for (var i = 0; i < options.Arguments.Length; i++) argv[i + 1] = (byte*)Marshal.StringToCoTaskMemUTF8(options.Arguments[i]);

        // The libc's own table, not the runtime's view of it: names and values pass as the bytes they are.
        var environment = *(byte***)NativeLibrary.GetExport(NativeLibrary.GetMainProgramHandle(), "environ");
        RemoveDiagnosticFiles();
        ExecuteProgram(path, argv, environment);
        return Marshal.GetLastPInvokeError();
    }

    /// <summary>
    /// The runtime makes the end points of its debugger and profiler at start-up and removes them at exit, which execve never reaches.
    /// Their names hold the process id and its start time in clock ticks (field 22 of /proc/self/stat).
    /// </summary>
    private static void RemoveDiagnosticFiles()
    {
        try
        {
            var stat = File.ReadAllText("/proc/self/stat");
            var fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' ');
            var id = Environment.ProcessId.ToString(System.Globalization.CultureInfo.InvariantCulture) + "-" + fields[19];
            var directory = Environment.GetEnvironmentVariable("TMPDIR") is { Length: > 0 } chosen ? chosen : "/tmp";
            File.Delete($"{directory}/dotnet-diagnostic-{id}-socket");
            File.Delete($"{directory}/clr-debug-pipe-{id}-in");
            File.Delete($"{directory}/clr-debug-pipe-{id}-out");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // Three small files stay behind; no reason not to run the program.
        }
    }

    [LibraryImport("libc", EntryPoint = "execve", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int ExecuteProgram(string path, byte** argv, byte** envp);

    [LibraryImport("libc", EntryPoint = "signal")]
    private static partial nint Signal(int signal, nint handler);

    [LibraryImport("libc", EntryPoint = "sigprocmask")]
    private static partial int SignalMask(int how, ulong* set, ulong* old);
}
