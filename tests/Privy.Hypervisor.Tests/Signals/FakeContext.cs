using System.Diagnostics;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Signals;
using Privy.Hypervisor.Syscalls;
using Privy.Kvm;

namespace Privy.Hypervisor.Tests.Signals;

/// <summary>A program thread without a program: one stretch of memory, calls of the host made by a real host thread.</summary>
internal sealed class FakeContext : ISignalContext, IProcessDirectory, IDisposable
{
    internal const ulong MemoryBase = 0x7fff_0000_0000;
    internal readonly byte[] Memory = new byte[1 << 20];
    internal readonly byte[] Xsave;
    internal readonly HostThread? Host;
    internal int Wakes;
    private GuestRegisters _registers;

    internal FakeContext(ProcessSignals? process = null, bool host = false, int? xsaveLength = null)
    {
        Xsave = new byte[xsaveLength ?? 576];
        XsaveFeatures = 3;
        Host = host ? new HostThread() : null;
        ProcessSignals = process ?? new ProcessSignals(Environment.ProcessId);
        ThreadSignals = new ThreadSignals(ProcessSignals, Host?.ThreadId ?? 4242, default, () =>
        {
            Interlocked.Increment(ref Wakes);
            Host?.Interrupt();
        });
        _registers.Rsp = MemoryBase + 0x80000;
        _registers.Rflags = 0x202;
    }

    internal List<int> Stops { get; } = [];

    public void SetTemporarySignalMask(ulong mask) => ThreadSignals.BeginTemporaryMask(new SignalSet(mask));

    public bool Translates => true;
    public int ProcessId => ProcessSignals.ProcessId;
    public string ProgramPath => "/bin/fake";
    public SyscallArena Arena { get; } = new();
    public ThreadSignals ThreadSignals { get; }
    public ProcessSignals ProcessSignals { get; }
    public int ThreadId => ThreadSignals.ThreadId;
    public int UserId => 1000;
    public ref GuestRegisters Registers => ref _registers;
    public long CallNumber { get; set; } = -1;
    public TrapDetails Trap { get; set; }
    public ulong XsaveFeatures { get; set; }
    public int XsaveLength => Xsave.Length;
    public IProcessDirectory Processes => this;

    public void GetXsave(Span<byte> destination) => Xsave.CopyTo(destination);
    public void SetXsave(ReadOnlySpan<byte> source) => source.CopyTo(Xsave);
    public void StopProcess(int signal) => Stops.Add(signal);
    public bool PrepareOutput(ulong address, ulong length) => true;
    public void EndOutputs()
    {
    }

    public bool TryRead(ulong address, Span<byte> destination)
    {
        if (!Inside(address, destination.Length))
            return false;
        Memory.AsSpan((int)(address - MemoryBase), destination.Length).CopyTo(destination);
        return true;
    }

    public bool TryWrite(ulong address, ReadOnlySpan<byte> source)
    {
        if (!Inside(address, source.Length))
            return false;
        source.CopyTo(Memory.AsSpan((int)(address - MemoryBase)));
        return true;
    }

    private bool Inside(ulong address, int length) => address >= MemoryBase && address + (ulong)length <= MemoryBase + (ulong)Memory.Length;

    public long HostCall(long number, ulong a0 = 0, ulong a1 = 0, ulong a2 = 0, ulong a3 = 0, ulong a4 = 0, ulong a5 = 0) =>
        Host!.Invoke(number, a0, a1, a2, a3, a4, a5);

    public void RaiseSigpipe() => throw new UnreachableException();
    public string ListMemory(MemoryReport report) => throw new NotSupportedException();

    public bool IsReservedDescriptor(int descriptor) => false;

    public int NextReservedDescriptor(int first, int last) => last + 1;

    public bool IsReachable(ulong address) => true;

    public ProcessSignals? FindProcess(int processId) => processId == ProcessId ? ProcessSignals : null;
    public ThreadSignals? FindThread(int threadId) => threadId == ThreadId ? ThreadSignals : null;
    public IReadOnlyList<ProcessSignals> SnapshotsOfGroup(int group) => [];
    public int GroupOf(int processId) => processId;

    internal ulong ReadWord(ulong address)
    {
        Span<byte> bytes = stackalloc byte[8];
        Assert.True(TryRead(address, bytes));
        return BitConverter.ToUInt64(bytes);
    }

    internal void WriteWords(ulong address, params ReadOnlySpan<ulong> words)
    {
        foreach (ulong word in words)
        {
            Assert.True(TryWrite(address, BitConverter.GetBytes(word)));
            address += 8;
        }
    }

    /// <summary>Makes a call as the thread loop does; returns what the program would see, after delivery.</summary>
    internal DeliveryResult Finish(long number, long result)
    {
        Registers.Rax = (ulong)result;
        CallNumber = number;
        Host?.ClearInterrupt();
        return SignalDelivery.BeforeReturn(this);
    }

    internal void Handle(int signal, ulong flags = 0, ulong mask = 0, ulong handler = 0x401000) =>
        ProcessSignals.SetAction(signal, new SignalAction { Handler = handler, Flags = flags | SignalAction.SA_RESTORER, Restorer = 0x402000, Mask = mask });

    internal static SignalInfo User(int signal, ulong value = 0) => new() { Number = signal, Code = SignalInfo.SI_USER, ProcessId = 1, Value = value };

    public void Dispose()
    {
        Host?.Dispose();
        Arena.Dispose();
    }
}
