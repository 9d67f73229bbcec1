using Privy.Hypervisor.Host;
using Privy.Hypervisor.Syscalls;

namespace Privy.Hypervisor.Memory;

/// <summary>
/// Copies between the hypervisor and the program's memory at its place in the host. A page of a file mapping may be gone at any time, because
/// somebody cut the file short: the host kernel copies there, which finds out, where a load of the hypervisor's own would end it by SIGBUS.
/// </summary>
internal static unsafe class ProgramCopy
{
    private struct Vector
    {
        public ulong Base;
        public ulong Length;
    }

    /// <summary>Reads memory that is certainly there.</summary>
    internal static bool Read(ulong address, Span<byte> destination)
    {
        new ReadOnlySpan<byte>((void*)address, destination.Length).CopyTo(destination);
        return true;
    }

    /// <summary>Writes memory that is certainly there.</summary>
    internal static bool Write(ulong address, ReadOnlySpan<byte> source)
    {
        source.CopyTo(new Span<byte>((void*)address, source.Length));
        return true;
    }

    /// <summary>Reads memory of a file mapping. False: not all of it is there.</summary>
    internal static bool TryRead(ulong address, Span<byte> destination)
    {
        fixed (byte* own = destination)
            return Copy(SyscallNumber.process_vm_readv, own, address, destination.Length);
    }

    /// <summary>Writes memory of a file mapping. False: not all of it is there.</summary>
    internal static bool TryWrite(ulong address, ReadOnlySpan<byte> source)
    {
        fixed (byte* own = source)
            return Copy(SyscallNumber.process_vm_writev, own, address, source.Length);
    }

    private static bool Copy(int number, byte* own, ulong address, int length)
    {
        var local = new Vector { Base = (ulong)own, Length = (ulong)length };
        var remote = new Vector { Base = address, Length = (ulong)length };
        return HostSyscall.Raw(number, (ulong)Environment.ProcessId, (ulong)(&local), 1, (ulong)(&remote), 1) == length;
    }
}
