using System.Runtime.InteropServices;
using Privy.Hypervisor.Syscalls;

namespace Privy.Hypervisor.Tests.Syscalls;

/// <summary>
/// A program's memory and the host kernel below it. In main an address is that of the native memory; in a snapshot addresses are
/// shifted, so that a pointer that reaches the kernel untranslated fails with EFAULT.
/// </summary>
internal sealed unsafe partial class FakeContext : ISyscallContext, IDisposable
{
    internal const ulong Shift = 0x1000_0000_0000;
    private const int Guard = 65536;

    private readonly byte* _start;
    private readonly int _length;
    private int _used;

    public FakeContext(bool translates, int length = 1 << 20)
    {
        Translates = translates;
        _length = length;
        _start = (byte*)NativeMemory.AlignedAlloc((nuint)(length + 2 * Guard), 65536) + Guard;
        new Span<byte>(_start, length).Clear();
        End = Address(_start + length);
    }

    public bool Translates { get; }

    public int ProcessId { get; set; } = Environment.ProcessId;

    public string ProgramPath { get; set; } = "/usr/bin/env";

    public SyscallArena Arena { get; } = new();

    /// <summary>What the program is to see in /proc/self/maps and its relatives.</summary>
    public string Memory { get; set; } = "";

    public string ListMemory(MemoryReport report) => $"{report}\n{Memory}";

    /// <summary>First address beyond the program's memory.</summary>
    public ulong End { get; }

    public List<(ulong Address, ulong Length)> Prepared { get; } = [];

    /// <summary>What was prepared when the kernel was entered.</summary>
    public List<(ulong Address, ulong Length)> PreparedAtCall { get; private set; } = [];

    /// <summary>From now on no page is mapped writable.</summary>
    public bool Unwritable { get; set; }

    public int Sigpipes { get; private set; }

    public int OutputsEnded { get; private set; }

    public ulong? TemporaryMask { get; private set; }

    public HashSet<int> Reserved { get; } = [];

    /// <summary>Takes the place of the kernel.</summary>
    public Func<long, ulong[], long>? Kernel { get; set; }

    public List<(long Number, ulong[] Arguments)> HostCalls { get; } = [];

    /// <summary>True for an address of the program.</summary>
    public bool Contains(ulong address) => address >= Address(_start) && address <= End;

    public ulong Allocate(int length)
    {
        var at = _used;
        _used += (length + 15) & ~15;
        if (_used > _length) throw new InvalidOperationException("The fake program has no more memory.");
        return Address(_start + at);
    }

    public ulong PutBytes(ReadOnlySpan<byte> content)
    {
        var address = Allocate(content.Length);
        content.CopyTo(Bytes(address, content.Length));
        return address;
    }

    public ulong Put(string text) => PutBytes([.. System.Text.Encoding.UTF8.GetBytes(text), 0]);

    public ulong Words(params ReadOnlySpan<ulong> values) => PutBytes(MemoryMarshal.AsBytes(values));

    public Span<byte> Bytes(ulong address, int length) => new(Native(address), length);

    public ref T At<T>(ulong address) where T : unmanaged => ref *(T*)Native(address);

    public long Call(long number, ulong a0 = 0, ulong a1 = 0, ulong a2 = 0, ulong a3 = 0, ulong a4 = 0, ulong a5 = 0) =>
        SyscallDispatcher.Execute(this, number, new SyscallArguments(a0, a1, a2, a3, a4, a5));

    public bool PrepareOutput(ulong address, ulong length)
    {
        if (Translates) throw new InvalidOperationException("PrepareOutput is for main.");
        if (!IsMapped(address, length)) return false;
        Prepared.Add((address, length));
        return true;
    }

    public void EndOutputs()
    {
        OutputsEnded++;
        Prepared.Clear();
    }

    public bool TryRead(ulong address, Span<byte> destination)
    {
        if (!IsMapped(address, (ulong)destination.Length)) return false;
        new ReadOnlySpan<byte>(Native(address), destination.Length).CopyTo(destination);
        return true;
    }

    public bool TryWrite(ulong address, ReadOnlySpan<byte> source)
    {
        if (Unwritable || !IsMapped(address, (ulong)source.Length)) return false;
        source.CopyTo(new Span<byte>(Native(address), source.Length));
        return true;
    }

    public long HostCall(long number, ulong a0 = 0, ulong a1 = 0, ulong a2 = 0, ulong a3 = 0, ulong a4 = 0, ulong a5 = 0)
    {
        ulong[] arguments = [a0, a1, a2, a3, a4, a5];
        HostCalls.Add((number, arguments));
        PreparedAtCall = [.. Prepared];
        return Kernel is null ? Raw(number, a0, a1, a2, a3, a4, a5) : Kernel(number, arguments);
    }

    public void RaiseSigpipe() => Sigpipes++;

    /// <summary>What the program may not name; nothing unless a test says so.</summary>
    public Func<ulong, bool> Reaches { get; set; } = _ => true;

    public bool IsReachable(ulong address) => Reaches(address);

    public bool IsReservedDescriptor(int descriptor) => Reserved.Contains(descriptor);

    public int NextReservedDescriptor(int first, int last) => Reserved.Where(d => d >= first && d <= last).DefaultIfEmpty(last + 1).Min();

    public void SetTemporarySignalMask(ulong mask) => TemporaryMask = mask;

    public void Dispose()
    {
        Arena.Dispose();
        NativeMemory.AlignedFree(_start - Guard);
    }

    /// <summary>The kernel itself, with errno folded into the result.</summary>
    public static long Raw(long number, ulong a0 = 0, ulong a1 = 0, ulong a2 = 0, ulong a3 = 0, ulong a4 = 0, ulong a5 = 0)
    {
        var result = Syscall(number, a0, a1, a2, a3, a4, a5);
        return result == -1 ? -Marshal.GetLastPInvokeError() : result;
    }

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true)]
    private static partial long Syscall(long number, ulong a0, ulong a1, ulong a2, ulong a3, ulong a4, ulong a5);

    private bool IsMapped(ulong address, ulong length)
    {
        var start = Address(_start);
        return address >= start && length <= (ulong)_length && address - start <= (ulong)_length - length;
    }

    private ulong Address(byte* native) => (ulong)native + (Translates ? Shift : 0);

    private byte* Native(ulong address) => (byte*)(address - (Translates ? Shift : 0));
}
