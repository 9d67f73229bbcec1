using Privy.Hypervisor.Syscalls;

namespace Privy.Hypervisor.Processes;

/// <summary>Writes a line per system call.</summary>
internal sealed class Tracer(TextWriter writer)
{
    internal void Enter(GuestThread thread, long number, in SyscallArguments arguments) { }

    internal void Exit(GuestThread thread, long number, in SyscallArguments a, long result)
    {
        lock (writer)
        {
            writer.WriteLine($"[{thread.ThreadId}] {SyscallTable.NameOf(number)}(0x{a.A0:x}, 0x{a.A1:x}, 0x{a.A2:x}, 0x{a.A3:x}) = {result}");
            writer.Flush();
        }
    }
}
