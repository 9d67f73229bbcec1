using System.Runtime.InteropServices;
using Privy.Hypervisor.Signals;

namespace Privy.Hypervisor.Host;

/// <summary>The words that a stand-in begins with, in the memory it shares with the hypervisor at first; its stack grows down from their end.</summary>
[StructLayout(LayoutKind.Explicit, Size = StackTop)]
internal unsafe struct StandInBlock
{
    internal const int OChannel = 0, OImage = 4, OAbove = 8, OParent = 12, OSignals = 16, OFirst = 24, OSecond = 40, OIdle = 56, OArguments = 72, OEnvironment = 80, OName = 96,
        OEmpty = 112, OMessage = 128, StackTop = OMessage + StandInMessage.Size + 248;

    /// <summary>Descriptor of its end of the channel, and of the program that it executes.</summary>
    [FieldOffset(OChannel)] internal int Channel;
    [FieldOffset(OImage)] internal int Image;

    /// <summary>Above both.</summary>
    [FieldOffset(OAbove)] internal int Above;

    /// <summary>Id of this process: with another parent, it has been left behind.</summary>
    [FieldOffset(OParent)] internal int Parent;

    /// <summary>All signals.</summary>
    [FieldOffset(OSignals)] internal ulong Signals;

    /// <summary>How long it keeps the descriptors shared, then the memory, as <c>struct timespec</c>; and how often it looks for its parent where it can do neither.</summary>
    [FieldOffset(OFirst)] internal long FirstSeconds;
    [FieldOffset(OFirst + 8)] internal long FirstNanoseconds;
    [FieldOffset(OSecond)] internal long SecondSeconds;
    [FieldOffset(OSecond + 8)] internal long SecondNanoseconds;
    [FieldOffset(OIdle)] internal long IdleSeconds;
    [FieldOffset(OIdle + 8)] internal long IdleNanoseconds;

    /// <summary>What its program is given: this process' arguments, for ps, and in place of an environment its name.</summary>
    [FieldOffset(OArguments)] internal byte** Arguments;
    [FieldOffset(OEnvironment)] internal byte* Environment;
    [FieldOffset(OEnvironment + 8)] internal byte* EnvironmentEnd;
    [FieldOffset(OName)] internal fixed byte Name[16];

    /// <summary>An empty string.</summary>
    [FieldOffset(OEmpty)] internal ulong Empty;

    [FieldOffset(OMessage)] internal StandInMessage Message;
}

/// <summary>What stand-ins write to their channel, each time whole: a signal that they have got. Number 0 says that the memory is their own now.</summary>
[StructLayout(LayoutKind.Explicit, Size = Size)]
internal struct StandInMessage
{
    internal const int Size = OProcess + 8, OProcess = SignalInfo.Size;

    private const ulong NudgeValue = 0x7072_6976_7973_7469;

    /// <summary>A signal that only makes a stand-in get memory of its own.</summary>
    internal static SignalInfo Nudge => new() { Number = Signal.Count, Code = SignalInfo.SI_QUEUE, ProcessId = Environment.ProcessId, Value = NudgeValue };

    [FieldOffset(0)] internal SignalInfo Info;

    /// <summary>Which stand-in.</summary>
    [FieldOffset(OProcess)] internal int ProcessId;
}
