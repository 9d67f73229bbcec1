using System.Runtime.InteropServices;
using Privy.Hypervisor.Host;

namespace Privy.Hypervisor;

/// <summary>Finds the file of a program the way execvp(3) and the shells do.</summary>
public static partial class ProgramSearch
{
    private const int X_OK = 1;

    /// <summary>The search path where PATH is not set (confstr(_CS_PATH)).</summary>
    private const string DefaultPath = "/bin:/usr/bin";

    /// <summary>
    /// Finds the file of <paramref name="program"/>. Returns null, with the error number, when there is none that can be executed:
    /// ENOENT (a shell's status 127) or EACCES (status 126).
    /// </summary>
    public static string? Find(string program, out int errno) => Find(program, Environment.GetEnvironmentVariable("PATH"), out errno);

    /// <summary>As <see cref="Find(string, out int)"/>, with the search path given.</summary>
    public static string? Find(string program, string? searchPath, out int errno)
    {
        ArgumentNullException.ThrowIfNull(program);
        errno = Errno.ENOENT;
        if (program.Length == 0) return null;
        if (program.Contains('/')) return Check(program, ref errno) ? program : null;

        // An empty element means the working directory (POSIX, XBD 8.3). A file that may not be executed does not end
        // the search, but is the reason to report when nothing else is found.
        var elements = (searchPath ?? DefaultPath).Split(':');
        foreach (var element in elements)
        {
            var path = element.Length == 0 ? "./" + program : element + "/" + program;
            if (Check(path, ref errno)) return path;
        }

        return null;
    }

    /// <summary>The exit status a shell gives for a program that could not be started.</summary>
    public static int ExitStatus(int errno) => errno is Errno.ENOENT ? 127 : 126;

    /// <summary>One line that says why a program could not be started and what to do.</summary>
    public static string Explain(string program, int errno) => errno switch
    {
        Errno.ENOENT when program.Contains('/') => $"{program}: no such file, or its interpreter is missing",
        Errno.ENOENT => $"{program}: not found in PATH; install it or give its path",
        Errno.EACCES when Directory.Exists(program) => $"{program}: is a directory, not a program",
        Errno.EACCES => $"{program}: not executable; 'chmod +x' it, and check that its file system is not mounted noexec",
        Errno.ENOEXEC => $"{program}: not a program this machine can run (needs an x86-64 ELF file, or a script that starts with #!)",
        Errno.ELOOP => $"{program}: too many symbolic links",
        Errno.E2BIG => $"{program}: the arguments and the environment are too long",
        _ => $"{program}: {Marshal.GetPInvokeErrorMessage(errno)}",
    };

    private static bool Check(string path, ref int errno)
    {
        if (Directory.Exists(path))
        {
            errno = Errno.EACCES;
            return false;
        }

        if (Access(path, X_OK) == 0) return true;
        var error = Marshal.GetLastPInvokeError();
        if (error is not Errno.ENOENT and not Errno.ENOTDIR) errno = error;
        return false;
    }

    [LibraryImport("libc", EntryPoint = "access", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Access(string path, int mode);
}
