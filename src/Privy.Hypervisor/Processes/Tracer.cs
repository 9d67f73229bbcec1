using System.Text;
using Microsoft.Win32.SafeHandles;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Syscalls;

namespace Privy.Hypervisor.Processes;

/// <summary>Writes a line per system call, to standard error or a file.</summary>
internal sealed class Tracer
{
    private readonly SafeFileHandle? _file;
    private readonly Lock _lock = new();
    private long _position;

    /// <summary>Opens the trace.</summary>
    /// <param name="path">A file's path; "-" for standard error.</param>
    /// <exception cref="IOException">The file cannot be written.</exception>
    internal Tracer(string path)
    {
        if (path == "-")
            return;
        _file = File.OpenHandle(path, FileMode.Create, FileAccess.Write, FileShare.Read);
        // A forked child's thread writes with the number in its own table: it must be among the descriptors the program cannot close.
        Kvm.OwnDescriptors.Add((int)_file.DangerousGetHandle());
    }

    /// <summary>Writes a finished call.</summary>
    internal void Write(GuestThread thread, long number, in SyscallArguments arguments, long result) =>
        WriteLine(SyscallTrace.Format(thread, thread.ThreadId, number, arguments, result));

    /// <summary>Writes a call that does not return.</summary>
    internal void WriteUnfinished(GuestThread thread, long number, in SyscallArguments arguments) =>
        WriteLine(SyscallTrace.Format(thread, thread.ThreadId, number, arguments, null));

    private void WriteLine(string line)
    {
        lock (_lock)
        {
            if (_file is null)
            {
                ErrorOutput.WriteLine(line);
                return;
            }

            var bytes = Encoding.UTF8.GetBytes(line + "\n");
            RandomAccess.Write(_file, bytes, _position);
            _position += bytes.Length;
        }
    }
}
