using System.Text;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Processes;

namespace Privy.Hypervisor.Boot;

/// <summary>A program to load, after PATH search and scripts have been resolved.</summary>
/// <param name="Path">The ELF file.</param>
/// <param name="Arguments">argv, argv[0] included, in the form of <see cref="ProgramBytes"/>.</param>
/// <param name="ExecutedName">The name as given to exec, for AT_EXECFN.</param>
internal sealed record ResolvedProgram(string Path, string[] Arguments, string ExecutedName);

/// <summary>Finds the program behind a name as a shell and execve(2) do.</summary>
internal static class ProgramResolver
{
    private const int MaxScriptDepth = 5;
    private const int MaxScriptLine = 255;

    /// <summary>Resolves a command: PATH search, access checks, <c>#!</c> scripts.</summary>
    /// <param name="program">The program as it was named.</param>
    /// <param name="name0">argv[0], where it is another.</param>
    /// <param name="arguments">The other arguments, in the form of <see cref="ProgramBytes"/>.</param>
    /// <exception cref="ProgramException">Not found (127) or not executable (126).</exception>
    internal static ResolvedProgram Resolve(string program, string? name0, IReadOnlyList<string> arguments)
    {
        var path = FindInPath(program);
        string[] argv = [ProgramBytes.FromText(name0 ?? program), .. arguments];
        var name = path;
        for (var depth = 0; depth < MaxScriptDepth; depth++)
        {
            CheckExecutable(path);
            if (ReadScriptLine(path) is not { } line)
                return new ResolvedProgram(path, argv, name);
            var (interpreter, argument) = line;
            argv = [.. (argument is null ? [interpreter, path] : new[] { interpreter, argument, path }).Select(ProgramBytes.FromText), .. argv.Skip(1)];
            if (!File.Exists(interpreter))
                throw new ProgramException($"{path}: its interpreter {interpreter} does not exist; install it or mend the #! line", ProgramException.NotFound);
            path = interpreter;
        }

        throw new ProgramException($"{program}: scripts call each other more than {MaxScriptDepth - 1} deep", ProgramException.NotExecutable);
    }

    /// <summary>True when exec would take the file: an ELF program for this machine, or a script with a <c>#!</c> line.</summary>
    internal static bool IsLoadable(string path)
    {
        try
        {
            if (ReadScriptLine(path) is not null)
                return true;
            using var file = File.OpenRead(path);
            _ = ElfImage.Read(path, file);
            return true;
        }
        catch (Exception e) when (e is ProgramException or IOException or UnauthorizedAccessException)
        {
            return false;
        }
    }

    private static string FindInPath(string program)
    {
        if (program.Length == 0)
            throw new ProgramException("the name of the program is empty", ProgramException.NotFound);
        if (program.Contains('/', StringComparison.Ordinal))
        {
            if (!File.Exists(program) && !Directory.Exists(program))
                throw new ProgramException($"{program}: no such file", ProgramException.NotFound);
            return program;
        }

        string? denied = null;
        foreach (var folder in (Environment.GetEnvironmentVariable("PATH") ?? "/usr/local/bin:/usr/bin:/bin").Split(':'))
        {
            var candidate = System.IO.Path.Combine(folder.Length == 0 ? "." : folder, program);
            if (!File.Exists(candidate))
                continue;
            if (IsExecutable(candidate))
                return candidate;
            denied ??= candidate;
        }

        throw denied is null
            ? new ProgramException($"{program}: not found in PATH", ProgramException.NotFound)
            : new ProgramException($"{denied}: not executable; chmod +x it", ProgramException.NotExecutable);
    }

    private static void CheckExecutable(string path)
    {
        if (Directory.Exists(path))
            throw new ProgramException($"{path} is a folder, not a program", ProgramException.NotExecutable);
        if (!IsExecutable(path))
            throw new ProgramException($"{path}: not executable; chmod +x it", ProgramException.NotExecutable);
    }

    private static unsafe bool IsExecutable(string path)
    {
        const long faccessat = 269;
        const int atFdCwd = -100, executeOk = 1;
        fixed (byte* name = Encoding.UTF8.GetBytes(path + '\0'))
            return HostSyscall.Raw(faccessat, unchecked((ulong)atFdCwd), (ulong)name, executeOk) == 0;
    }

    private static (string Interpreter, string? Argument)? ReadScriptLine(string path)
    {
        Span<byte> head = stackalloc byte[MaxScriptLine];
        int length;
        try
        {
            using var file = File.OpenRead(path);
            length = file.ReadAtLeast(head, head.Length, throwOnEndOfStream: false);
        }
        catch (Exception e) when (e is UnauthorizedAccessException or IOException)
        {
            throw new ProgramException($"{path}: {e.Message}", ProgramException.NotExecutable);
        }

        if (length < 3 || head[0] != '#' || head[1] != '!')
            return null;
        var end = head[..length].IndexOf((byte)'\n');
        var line = Encoding.UTF8.GetString(head[2..(end < 0 ? length : end)]).Trim(' ', '\t', '\r');
        if (line.Length == 0)
            throw new ProgramException($"{path}: the #! line names no interpreter", ProgramException.NotExecutable);
        var blank = line.AsSpan().IndexOfAny(' ', '\t');
        return blank < 0 ? (line, null) : (line[..blank], line[blank..].Trim(' ', '\t'));
    }
}
