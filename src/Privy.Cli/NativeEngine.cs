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
        ExecuteProgram(path, argv, environment);
        return Marshal.GetLastPInvokeError();
    }

    [LibraryImport("libc", EntryPoint = "execve", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int ExecuteProgram(string path, byte** argv, byte** envp);

    [LibraryImport("libc", EntryPoint = "signal")]
    private static partial nint Signal(int signal, nint handler);

    [LibraryImport("libc", EntryPoint = "sigprocmask")]
    private static partial int SignalMask(int how, ulong* set, ulong* old);
}
