using Privy.Hypervisor.Host;
using Privy.Hypervisor.Memory;
using Privy.Hypervisor.Syscalls;

namespace Privy.Hypervisor.Processes;

/// <summary>What system calls ask of their thread (<see cref="ISyscallContext"/>).</summary>
internal sealed unsafe partial class GuestThread : ISyscallContext
{
    bool ISyscallContext.Translates => !Space.IsMain;

    int ISyscallContext.ProcessId => Process.Id;

    int ISyscallContext.HostIdOf(int id) => Process.Table.HostIdOf(id);

    bool ISyscallContext.PrepareSettings(int processId) => Process.Table.Find(processId)?.PrepareSettings() == true;

    string ISyscallContext.ShowIdentity(string name)
    {
        var (process, parent) = (Process, ProcessCalls.ParentId(Process));
        var text = HostFile.ReadText($"/proc/{process.FirstHostThread}/{name}");
        return name == "stat" ? ProcessReport.Stat(text, process.Id, parent, process.Group, process.Session) : ProcessReport.Status(text, process.Id, parent);
    }

    string ISyscallContext.ProgramPath => Process.ProgramPath;

    SyscallArena ISyscallContext.Arena { get; } = new();

    /// <inheritdoc/>
    public bool PrepareOutput(ulong address, ulong length)
    {
        // Under the lock that a fork takes, so that a fork either sees this output in flight or has happened before.
        lock (Space.Changes)
        {
            if (!Space.PrepareWrite(Vcpu, address, length))
                return false;
            lock (_outputs)
                _outputs.Add((address, length));
            return true;
        }
    }

    /// <inheritdoc/>
    public bool IsView(ulong address) => Space.IsMain && IsView(address, out _);

    /// <inheritdoc/>
    public void EndOutputs()
    {
        lock (_outputs)
            _outputs.Clear();
    }

    /// <inheritdoc/>
    public bool IsReachable(ulong address) => Machine.IsProgramAddress(address);

    /// <inheritdoc/>
    public bool TryRead(ulong address, Span<byte> destination)
    {
        lock (Space.Changes)
            return Space.TryRead(Vcpu, address, destination);
    }

    /// <inheritdoc/>
    public bool TryWrite(ulong address, ReadOnlySpan<byte> source)
    {
        lock (Space.Changes)
            return Space.TryWrite(Vcpu, address, source);
    }

    /// <inheritdoc/>
    public long HostCall(long number, ulong a0 = 0, ulong a1 = 0, ulong a2 = 0, ulong a3 = 0, ulong a4 = 0, ulong a5 = 0)
    {
        var result = Host.Invoke(number, a0, a1, a2, a3, a4, a5);
        // Stopped before the kernel was entered: as if the signal had come one instruction earlier.
        return result == -Errno.ERESTARTSYS ? -Errno.ERESTARTNOINTR : result;
    }

    /// <inheritdoc/>
    public bool IsReservedDescriptor(int descriptor) => Kvm.OwnDescriptors.Contains(descriptor);

    /// <inheritdoc/>
    public int NextReservedDescriptor(int first, int last) => Kvm.OwnDescriptors.Next(first, last);

    /// <inheritdoc/>
    public string ListMemory(MemoryReport report)
    {
        var subject = Space.Describe();
        // Counting is slow in the host, which would count for all processes of the program at once.
        var source = report == MemoryReport.Maps || !Space.IsMain ? "/proc/self/maps" : "/proc/self/smaps";
        return MemoryListing.Write(report, subject, HostFile.ReadText(source));
    }

    internal bool TryReadWord(ulong address, out ulong value)
    {
        ulong word = 0;
        var ok = TryRead(address, new Span<byte>(&word, sizeof(ulong)));
        value = word;
        return ok;
    }

    internal bool TryWriteInt(ulong address, int value) => TryWrite(address, new ReadOnlySpan<byte>(&value, sizeof(int)));

    /// <summary>The longest C string that the kernel takes (MAX_ARG_STRLEN).</summary>
    internal const int LongestString = 1 << 17;

    /// <summary>Reads a C string.</summary>
    internal bool TryReadString(ulong address, out string text)
    {
        Span<byte> buffer = stackalloc byte[256];
        var bytes = new List<byte>();
        text = "";
        while (bytes.Count < LongestString)
        {
            // Up to the end of a page, since the next one may not be mapped.
            var piece = buffer[..(int)Math.Min((ulong)buffer.Length, 4096 - (address & 4095))];
            if (!TryRead(address, piece))
                return false;
            var end = piece.IndexOf((byte)0);
            bytes.AddRange(end < 0 ? piece : piece[..end]);
            if (end >= 0)
            {
                text = ProgramBytes.Decode(bytes.ToArray());
                return true;
            }

            address += (ulong)piece.Length;
        }

        return false;
    }
}
