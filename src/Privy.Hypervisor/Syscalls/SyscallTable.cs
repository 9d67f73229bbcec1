using System.Runtime.CompilerServices;

namespace Privy.Hypervisor.Syscalls;

/// <summary>
/// What the hypervisor knows of every system call. A call that is not described here is refused: passed on blind, it could write
/// to memory that a snapshot still reads (rule 1), or give the host kernel a snapshot's pointer (rule 6).
/// </summary>
public static partial class SyscallTable
{
    private static readonly SyscallDescription?[] s_calls = CreateCalls();

    /// <summary>All numbers are below this.</summary>
    public static int Count => SyscallNumber.Count;

    /// <summary>Description by number; null outside the table and for numbers the kernel does not use.</summary>
    public static SyscallDescription? Find(long number) => (ulong)number < (ulong)s_calls.Length ? s_calls[number] : null;

    /// <summary>Description of the call these arguments make: of the command, where the call is a multiplexed one.</summary>
    public static SyscallDescription? Find(long number, in SyscallArguments arguments)
    {
        var call = Find(number);
        if (call?.VariantTable is not { } variants) return call;
        return variants.GetValueOrDefault((uint)arguments[call.CommandArgument], call);
    }

    /// <summary>The kernel's name, or "syscall_N".</summary>
    public static string NameOf(long number) =>
        (ulong)number < (ulong)SyscallNumber.Names.Length && SyscallNumber.Names[number] is { } name ? name : $"syscall_{number}";

    private static SyscallDescription?[] CreateCalls()
    {
        var calls = new SyscallDescription?[SyscallNumber.Count];
        DescribeFiles(calls);
        DescribeSockets(calls);
        DescribePolling(calls);
        DescribeTime(calls);
        DescribeIdentity(calls);
        DescribeHandled(calls);
        DescribeConstants(calls);
        for (var number = 0; number < calls.Length; number++)
        {
            if (calls[number] is null && SyscallNumber.Names[number] is { } name)
                calls[number] = new SyscallDescription(number, name, SyscallRoute.Unknown, []);
        }
        return calls;
    }

    private static void Add(SyscallDescription?[] calls, SyscallDescription call)
    {
        if (calls[call.Number] is not null) throw new InvalidOperationException($"System call {call.Name} is described twice.");
        calls[call.Number] = call;
    }

    private static void Host(SyscallDescription?[] calls, int number, params ArgumentDescription[] arguments) =>
        Add(calls, new SyscallDescription(number, NameOf(number), SyscallRoute.Host, arguments));

    /// <summary>A call that may fail with EPIPE.</summary>
    private static void Sends(SyscallDescription?[] calls, int number, int noSignalArgument, params ArgumentDescription[] arguments) =>
        Add(calls, new SyscallDescription(number, NameOf(number), SyscallRoute.Host, arguments) { RaisesSigpipe = true, NoSignalArgument = noSignalArgument });

    /// <summary>A call that EINTR ends as soon as a handler ran.</summary>
    private static void Waits(SyscallDescription?[] calls, int number, params ArgumentDescription[] arguments) =>
        Add(calls, new SyscallDescription(number, NameOf(number), SyscallRoute.Host, arguments) { Restart = RestartRule.OnlyWithoutHandler });

    private static void Creates(SyscallDescription?[] calls, int number, params ArgumentDescription[] arguments) =>
        Add(calls, new SyscallDescription(number, NameOf(number), SyscallRoute.Host, arguments) { CreatesDescriptors = true });

    private static void Handled(SyscallDescription?[] calls, int number, params ArgumentDescription[] arguments) =>
        Add(calls, new SyscallDescription(number, NameOf(number), SyscallRoute.Handled, arguments));

    private static void Constant(SyscallDescription?[] calls, int number, long result) =>
        Add(calls, new SyscallDescription(number, NameOf(number), SyscallRoute.Constant, []) { Constant = result });

    private static SyscallDescription Variant(int number, SyscallRoute route, params ArgumentDescription[] arguments) =>
        new(number, NameOf(number), route, arguments);

    // The vocabulary of the descriptions.
    private static ArgumentDescription Value(ValueFormat format = ValueFormat.Int) => new(ArgumentKind.Value) { Format = format };

    private static ArgumentDescription Int => Value();

    private static ArgumentDescription Long => Value(ValueFormat.Long);

    private static ArgumentDescription Size => Value(ValueFormat.Unsigned);

    private static ArgumentDescription Hex => Value(ValueFormat.Hex);

    private static ArgumentDescription Mode => Value(ValueFormat.Mode);

    private static ArgumentDescription Fd => new(ArgumentKind.Descriptor);

    /// <summary>A path of which the kernel does not follow the last component.</summary>
    private static ArgumentDescription Path => new(ArgumentKind.Path) { Memory = MemoryFormat.Text };

    private static ArgumentDescription PathFollowed => new(ArgumentKind.Path) { Memory = MemoryFormat.Text, Follows = true };

    /// <summary>A path that is followed unless the flags argument holds one of the bits.</summary>
    private static ArgumentDescription PathFollowedUnless(int flagsArgument, int bits) =>
        new(ArgumentKind.Path) { Memory = MemoryFormat.Text, Follows = true, LengthArgument = flagsArgument, Size = bits };

    private static ArgumentDescription Text(int limit) => new(ArgumentKind.Text) { Memory = MemoryFormat.Text, Limit = limit };

    private static ArgumentDescription In(int size, MemoryFormat memory = MemoryFormat.Address) =>
        new(ArgumentKind.In) { Size = size, Memory = memory };

    private static ArgumentDescription Out(int size, MemoryFormat memory = MemoryFormat.Address) =>
        new(ArgumentKind.Out) { Size = size, Memory = memory };

    private static ArgumentDescription InOut(int size, MemoryFormat memory = MemoryFormat.Address) =>
        new(ArgumentKind.InOut) { Size = size, Memory = memory };

    /// <summary>Input of a length that must fit: longer ones are refused as the kernel would.</summary>
    private static ArgumentDescription BufferIn(int lengthArgument, LengthSource length, int limit, int size = 1, MemoryFormat memory = MemoryFormat.Address) =>
        new(ArgumentKind.In) { Size = size, Length = length, LengthArgument = lengthArgument, Limit = limit, Memory = memory };

    /// <summary>Data to write, of which the call may take only a part.</summary>
    private static ArgumentDescription DataIn(int lengthArgument) =>
        new(ArgumentKind.In) { Size = 1, Length = LengthSource.Argument, LengthArgument = lengthArgument, Partial = true, Memory = MemoryFormat.Text };

    /// <summary>Room for data, of which the call may use only a part.</summary>
    private static ArgumentDescription DataOut(int lengthArgument) => new(ArgumentKind.Out)
    {
        Size = 1, Length = LengthSource.Argument, LengthArgument = lengthArgument, Partial = true, CopyBack = CopyBack.Result, Memory = MemoryFormat.Text,
    };

    /// <summary>Output whose length in bytes is the result.</summary>
    private static ArgumentDescription BytesOut(int lengthArgument, LengthSource length, int limit, MemoryFormat memory = MemoryFormat.Address) => new(ArgumentKind.Out)
    {
        Size = 1, Length = length, LengthArgument = lengthArgument, Limit = limit, CopyBack = CopyBack.Result, Memory = memory,
    };

    /// <summary>Output of as many elements as the call returns.</summary>
    private static ArgumentDescription ElementsOut(int lengthArgument, int size, long limit, MemoryFormat memory = MemoryFormat.Address) => new(ArgumentKind.Out)
    {
        Size = size, Length = LengthSource.IntArgument, LengthArgument = lengthArgument, Limit = limit, CopyBack = CopyBack.ResultElements, Memory = memory,
    };

    /// <summary>Output whose room, and afterwards length, is the int another argument points to.</summary>
    private static ArgumentDescription SizedOut(int lengthArgument, int limit, MemoryFormat memory) => new(ArgumentKind.Out)
    {
        Size = 1, Length = LengthSource.Pointer, LengthArgument = lengthArgument, Limit = limit, Memory = memory,
    };

    private static ArgumentDescription SocketAddressIn(int lengthArgument) =>
        BufferIn(lengthArgument, LengthSource.IntArgument, KernelStructSize.SockaddrStorage, memory: MemoryFormat.SocketAddress);

    private static ArgumentDescription SocketAddressOut(int lengthArgument) =>
        SizedOut(lengthArgument, KernelStructSize.SockaddrStorage, MemoryFormat.SocketAddress);

    private static ArgumentDescription IntInOut => InOut(4, MemoryFormat.Int);

    private static ArgumentDescription VectorIn(int countArgument) => new(ArgumentKind.VectorIn) { LengthArgument = countArgument };

    private static ArgumentDescription VectorOut(int countArgument) => new(ArgumentKind.VectorOut) { LengthArgument = countArgument };

    private static ArgumentDescription DescriptorSet(int countArgument) => new(ArgumentKind.InOut)
    {
        Length = LengthSource.Bits, LengthArgument = countArgument, Limit = 1 << 17, Memory = MemoryFormat.DescriptorSet,
    };

    private static ArgumentDescription TimespecIn => In(KernelStructSize.Timespec, MemoryFormat.Timespec);

    /// <summary>Time left, which the kernel also writes when a signal ends the wait.</summary>
    private static ArgumentDescription TimespecLeft => InOut(KernelStructSize.Timespec, MemoryFormat.Timespec) with { OnInterrupt = true };
}
