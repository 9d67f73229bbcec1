using Privy.Hypervisor.Host;
using Privy.Hypervisor.Syscalls;

namespace Privy.Hypervisor.Tests.Syscalls;

/// <summary>
/// Rules 1 and 6, for every call in the table: what the kernel writes in main is made safe first, and a snapshot's pointer
/// never reaches the kernel.
/// </summary>
public class SyscallOutputTests
{
    private const int Room = 4096;

    public static TheoryData<string> Descriptions()
    {
        var data = new TheoryData<string>();
        foreach (var (name, _, call, _) in SyscallTableTests.AllDescriptions())
            if (call.Route == SyscallRoute.Host && call.Variants is null) data.Add(name);
        return data;
    }

    [Theory, MemberData(nameof(Descriptions))]
    public void Outputs_are_prepared_before_the_kernel_is_entered(string name)
    {
        using var context = new FakeContext(translates: false, 1 << 18) { Kernel = static (_, _) => 1 };
        var (call, arguments, outputs) = MakeCall(context, name);
        var before = context.HostCalls.Count;
        var result = SyscallMarshaller.Execute(context, call, in arguments);
        Assert.Equal(before + 1, context.HostCalls.Count);
        Assert.True(result >= 0, $"{name}: {result}");
        foreach (var (argument, address, length) in outputs)
        {
            Assert.True(context.PreparedAtCall.Any(p => p.Address <= address && p.Address + p.Length >= address + (ulong)length),
                $"{name}: {length} bytes of argument {argument} were not prepared");
        }
        if (outputs.Count > 0) Assert.Equal(1, context.OutputsEnded);
        Assert.Empty(context.Prepared);
    }

    [Theory, MemberData(nameof(Descriptions))]
    public void Pointers_of_a_snapshot_do_not_reach_the_kernel(string name)
    {
        using var context = new FakeContext(translates: true, 1 << 18);
        var (call, arguments, _) = MakeCall(context, name);
        var entered = 0;
        context.Kernel = (_, passed) =>
        {
            entered++;
            for (var i = 0; i < call.Arguments.Length; i++)
            {
                switch (call.Arguments[i].Kind)
                {
                    case ArgumentKind.Value or ArgumentKind.Descriptor:
                        break;
                    case ArgumentKind.SignalMask or ArgumentKind.SignalMaskPair:
                        Assert.Equal(0ul, passed[i]);
                        break;
                    default:
                        Check(passed[i], i);
                        break;
                }
                switch (call.Arguments[i].Kind)
                {
                    case ArgumentKind.VectorIn or ArgumentKind.VectorOut:
                        CheckVectors(passed[i], i);
                        break;
                    case ArgumentKind.MessageIn or ArgumentKind.MessageOut:
                        CheckMessage(passed[i], i);
                        break;
                    case ArgumentKind.MessagesIn or ArgumentKind.MessagesOut:
                        for (ulong m = 0; m < 3; m++) CheckMessage(passed[i] + 64 * m, i);
                        break;
                }
            }
            return 1;
        };
        var result = SyscallMarshaller.Execute(context, call, in arguments);
        Assert.True(result >= 0, $"{name}: {result}");
        Assert.Equal(1, entered);

        void Check(ulong address, int argument)
        {
            Assert.True(address != 0 && !context.Contains(address), $"{name}: 0x{address:x} in argument {argument} was passed on");
        }

        unsafe void CheckVectors(ulong address, int argument)
        {
            for (var v = 0; v < 3; v++) Check(((ulong*)address)[2 * v], argument);
        }

        unsafe void CheckMessage(ulong address, int argument)
        {
            var words = (ulong*)address;
            Check(words[0], argument);
            Check(words[2], argument);
            Check(words[4], argument);
            CheckVectors(words[2], argument);
        }
    }

    [Theory, MemberData(nameof(Descriptions))]
    public void Reserved_descriptors_do_not_exist(string name)
    {
        foreach (var translates in new[] { false, true })
        {
            using var context = new FakeContext(translates, 1 << 18) { Kernel = static (_, _) => 1 };
            var (call, arguments, _) = MakeCall(context, name);
            for (var i = 0; i < call.Arguments.Length; i++)
            {
                if (call.Arguments[i].Kind != ArgumentKind.Descriptor) continue;
                context.Reserved.Add(1000 + i);
                Assert.Equal(-Errno.EBADF, SyscallMarshaller.Execute(context, call, in arguments));
                context.Reserved.Clear();
            }
            Assert.Empty(context.HostCalls);
        }
    }

    /// <summary>Nothing a program passes brings the hypervisor down, nor what the kernel answers.</summary>
    [Theory, InlineData(false), InlineData(true)]
    public void Any_arguments_are_survived(bool translates)
    {
        var random = new Random(11);
        using var context = new FakeContext(translates, 1 << 16);
        ulong[] values =
        [
            0, 1, 2, 8, 63, 1024, 1025, 4096, 0x7fff_f000, 0x7fff_ffff, 0x8000_0000, uint.MaxValue, long.MaxValue, 1ul << 63, ulong.MaxValue, ulong.MaxValue - 100,
            context.Put("/proc/self/exe"), context.Put("/dev/stdin"), Vectors(context), Message(context), Messages(context, 3), context.Words(0x7fff_ffff), context.Words(ulong.MaxValue, ulong.MaxValue, ulong.MaxValue),
            context.Words(context.End - 8, ulong.MaxValue, context.End - 8, 16, context.End, 1ul << 40), context.Allocate(8192), context.End - 8, context.End,
        ];
        long[] results = [0, 1, 100, 5000, int.MaxValue, long.MaxValue, long.MinValue, -4, -14, -32, -512, -4096];
        foreach (var (name, _, call, commandArgument) in SyscallTableTests.AllDescriptions())
        {
            if (call.Route != SyscallRoute.Host || call.Variants is not null) continue;
            for (var round = 0; round < 100; round++)
            {
                ulong Pick() => values[random.Next(values.Length)];
                var arguments = new SyscallArguments(Pick(), Pick(), Pick(), Pick(), Pick(), Pick());
                context.Kernel = (_, passed) =>
                {
                    for (var i = 0; i < call.Arguments.Length; i++)
                    {
                        if (call.Arguments[i].Kind is ArgumentKind.Value or ArgumentKind.Descriptor || passed[i] == 0) continue;
                        if (translates) Assert.False(context.Contains(passed[i]), $"{name}: argument {i} was passed on");
                    }
                    return results[random.Next(results.Length)];
                };
                SyscallMarshaller.Execute(context, call, in arguments);
                Assert.Empty(context.Prepared);
            }
        }
    }

    /// <summary>
    /// The kernel itself as the judge of sizes: it runs with every byte behind the outputs watched. Only calls that do no harm
    /// with made-up arguments.
    /// </summary>
    [Theory]
    [InlineData("uname"), InlineData("sysinfo"), InlineData("getrlimit"), InlineData("prlimit64"), InlineData("getrusage"), InlineData("times"), InlineData("time"), InlineData("gettimeofday")]
    [InlineData("clock_gettime"), InlineData("clock_getres"), InlineData("getresuid"), InlineData("getresgid"), InlineData("getcpu"), InlineData("sched_getaffinity"), InlineData("sched_getparam")]
    [InlineData("sched_getattr"), InlineData("adjtimex"), InlineData("getcwd"), InlineData("getrandom"), InlineData("pipe2"), InlineData("statfs"), InlineData("stat"), InlineData("lstat"), InlineData("statx")]
    public void The_kernel_writes_nothing_that_was_not_prepared(string name)
    {
        using var context = new FakeContext(translates: false, 1 << 18);
        var (call, arguments, outputs) = MakeCall(context, name);
        arguments = name switch
        {
            "getrlimit" => arguments with { A0 = 7 },
            "prlimit64" => arguments with { A0 = 0, A1 = 7, A2 = 0 },
            "getrusage" or "clock_gettime" or "clock_getres" or "sched_getparam" => arguments with { A0 = 0 },
            "sched_getattr" => arguments with { A0 = 0, A3 = 0 },
            "sched_getaffinity" => arguments with { A0 = 0, A1 = 1024 },
            "getrandom" or "pipe2" => arguments with { A1 = name == "pipe2" ? 0x80000u : arguments.A1, A2 = 0 },
            "statx" => arguments with { A0 = unchecked((ulong)-100L), A2 = 0, A3 = 0xfff },
            _ => arguments,
        };
        foreach (var (_, address, _) in outputs)
        {
            if (name is not "adjtimex") context.Bytes(address, Room).Fill(0xa5);
        }
        var result = SyscallMarshaller.Execute(context, call, in arguments);
        Assert.True(result >= 0, $"{name}: {result}");
        foreach (var (argument, address, _) in outputs)
        {
            var prepared = (int)context.PreparedAtCall.Where(p => p.Address == address).Select(p => p.Length).DefaultIfEmpty().Max();
            Assert.True(context.Bytes(address, Room)[prepared..].IndexOfAnyExcept((byte)(name is "adjtimex" ? 0 : 0xa5)) < 0, $"{name}: more than {prepared} bytes of argument {argument} were written");
            if (prepared > 0 && name is not "adjtimex") Assert.True(context.Bytes(address, prepared).IndexOfAnyExcept((byte)0xa5) >= 0, $"{name}: nothing was written");
        }
        if (name == "pipe2")
        {
            FakeContext.Raw(SyscallNumber.close, (ulong)context.At<int>(arguments.A0));
            FakeContext.Raw(SyscallNumber.close, (ulong)context.At<int>(arguments.A0 + 4));
        }
    }

    /// <summary>Arguments in the shape of a description: every pointer has room, every length says some, descriptors are 1000 and up.</summary>
    private static (SyscallDescription Call, SyscallArguments Arguments, List<(int Argument, ulong Address, long Length)> Outputs) MakeCall(FakeContext context, string name)
    {
        var (_, command, call, commandArgument) = SyscallTableTests.AllDescriptions().Single(d => d.Name == name);
        const int Count = 3;
        var values = new ulong[6];
        // Lengths first: a count of three elements; three bytes are little for memory, so that there it is the room.
        for (var i = 0; i < call.Arguments.Length; i++)
        {
            var argument = call.Arguments[i];
            if (argument.Kind == ArgumentKind.SignalMask) values[argument.LengthArgument] = 8;
            else if (argument.Kind is not (ArgumentKind.Value or ArgumentKind.Descriptor or ArgumentKind.Path or ArgumentKind.Text) && argument.Length != LengthSource.Pointer && IsCounted(argument))
                values[argument.LengthArgument] = argument is { Size: 1, Kind: not ArgumentKind.VectorIn and not ArgumentKind.VectorOut } ? 64u : Count;
        }
        for (var i = 0; i < call.Arguments.Length; i++)
        {
            var argument = call.Arguments[i];
            values[i] = argument.Kind switch
            {
                ArgumentKind.Value => values[i],
                ArgumentKind.Descriptor => (ulong)(1000 + i),
                ArgumentKind.Path or ArgumentKind.Text => context.Put("/tmp"),
                ArgumentKind.SignalMaskPair => context.Words(context.Allocate(8), 8),
                ArgumentKind.VectorIn or ArgumentKind.VectorOut => Vectors(context),
                ArgumentKind.MessageIn or ArgumentKind.MessageOut => Message(context),
                ArgumentKind.MessagesIn or ArgumentKind.MessagesOut => Messages(context, Count),
                _ => context.Allocate(Room),
            };
        }
        var outputs = new List<(int, ulong, long)>();
        for (var i = 0; i < call.Arguments.Length; i++)
        {
            var argument = call.Arguments[i];
            if (argument.Length == LengthSource.Pointer && argument.Kind == ArgumentKind.Out) context.At<int>(values[argument.LengthArgument]) = 100;
            switch (argument.Kind)
            {
                case ArgumentKind.Out or ArgumentKind.InOut:
                    var length = argument.Length switch
                    {
                        LengthSource.Fixed => argument.Size,
                        LengthSource.Pointer => 100,
                        LengthSource.Bits => 8,
                        _ => (long)values[argument.LengthArgument] * argument.Size,
                    };
                    outputs.Add((i, values[i], length));
                    break;
                case ArgumentKind.VectorOut:
                    for (ulong v = 0; v < Count; v++) outputs.Add((i, context.At<ulong>(values[i] + 16 * v), (long)context.At<ulong>(values[i] + 16 * v + 8)));
                    break;
                case ArgumentKind.MessageOut:
                    AddMessage(values[i], i);
                    outputs.Add((i, values[i], 56));
                    break;
                case ArgumentKind.MessagesIn:
                    outputs.Add((i, values[i], 64 * Count));
                    break;
                case ArgumentKind.MessagesOut:
                    for (ulong m = 0; m < Count; m++) AddMessage(values[i] + 64 * m, i);
                    outputs.Add((i, values[i], 64 * Count));
                    break;
            }
        }
        if (command is { } value) values[commandArgument] = value;
        return (call, new SyscallArguments(values[0], values[1], values[2], values[3], values[4], values[5]), outputs);

        void AddMessage(ulong header, int i)
        {
            outputs.Add((i, context.At<ulong>(header), 100));
            outputs.Add((i, context.At<ulong>(header + 32), 200));
            var vectors = context.At<ulong>(header + 16);
            for (ulong v = 0; v < Count; v++) outputs.Add((i, context.At<ulong>(vectors + 16 * v), (long)context.At<ulong>(vectors + 16 * v + 8)));
        }
    }

    private static bool IsCounted(ArgumentDescription argument) =>
        argument.Kind is ArgumentKind.VectorIn or ArgumentKind.VectorOut or ArgumentKind.MessagesIn or ArgumentKind.MessagesOut
        || argument.Length is LengthSource.Argument or LengthSource.IntArgument or LengthSource.Bits;

    private static ulong Vectors(FakeContext context) =>
        context.Words(context.Allocate(100), 100, context.Allocate(10), 10, context.Allocate(1000), 1000);

    private static ulong Message(FakeContext context) =>
        context.Words(context.Allocate(128), 100, Vectors(context), 3, context.Allocate(200), 200, 0);

    private static ulong Messages(FakeContext context, int count)
    {
        var words = new List<ulong>();
        for (var i = 0; i < count; i++)
            words.AddRange([context.Allocate(128), 100, Vectors(context), 3, context.Allocate(200), 200, 0, 0]);
        return context.Words([.. words]);
    }
}
