using System.Runtime.InteropServices;
using Privy.Kernel;

namespace Privy.Hypervisor.Boot;

/// <summary>How the system-call stub of a vCPU treats a call (<see cref="SyscallRing.Mode"/>).</summary>
internal static class SyscallMode
{
    /// <summary>Every call leaves the guest.</summary>
    internal const int Exit = 0;

    /// <summary>The stub answers what needs no host (getpid, gettid, sched_yield); other calls leave.</summary>
    internal const int Local = 1;

    /// <summary>Calls of <see cref="SyscallRing.Numbers"/> are posted for the polling thread as well.</summary>
    internal const int Ring = 2;
}

/// <summary>Who has the call in a ring (<see cref="SyscallRing.State"/>).</summary>
internal static class RingState
{
    /// <summary>Nobody: there is no call.</summary>
    internal const int Idle = 0;

    /// <summary>The stub offers a call. It may take it back; the poller may claim it: both by compare-and-swap.</summary>
    internal const int Posted = 1;

    /// <summary>The poller carries the call out; everybody waits for it.</summary>
    internal const int Claimed = 2;

    /// <summary>The result is there.</summary>
    internal const int Done = 3;

    /// <summary>The poller did nothing: the call must leave the guest.</summary>
    internal const int Declined = 4;
}

/// <summary>What was received ahead for a descriptor.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct Fetched
{
    /// <summary>Where the bytes are.</summary>
    internal ulong Address;

    /// <summary>How many; 0: none.</summary>
    internal ulong Length;

    /// <summary>How many of them the program has read; the stub adds to it.</summary>
    internal ulong Taken;

    /// <summary>Not 0: there may be more to receive. A read that gets less than it has room for says that there is not.</summary>
    internal ulong More;
}

/// <summary>
/// The words by which a vCPU's system-call stub (<see cref="SyscallStub"/>) hands a call to a polling host thread without leaving the guest. Lies in
/// the vCPU's area at <see cref="VcpuLayout.Ring"/>; what the two sides write often is on cache lines of its own.
/// </summary>
[StructLayout(LayoutKind.Explicit, Size = 0x580)]
internal unsafe struct SyscallRing
{
    /// <summary>A <see cref="SyscallMode"/>; written by the host.</summary>
    [FieldOffset(0x00)] internal int Mode;

    /// <summary>1: SYSCALL enters ring 0 here, and SYSRET is the way back.</summary>
    [FieldOffset(0x04)] internal int Ring0;

    /// <summary>Rounds that the stub waits for a claim before it takes the call back.</summary>
    [FieldOffset(0x08)] internal uint Patience;

    /// <summary>Answer to getpid.</summary>
    [FieldOffset(0x0C)] internal int ProcessId;

    /// <summary>Answer to gettid.</summary>
    [FieldOffset(0x10)] internal int ThreadId;

    /// <summary>sched_yield calls until one goes to the host, which can let another thread run.</summary>
    [FieldOffset(0x14)] internal int YieldsLeft;

    /// <summary>Calls taken back because nobody claimed them in time; written by the stub.</summary>
    [FieldOffset(0x18)] internal int TakenBack;

    /// <summary>The program's stack pointer while the stub restores the flags.</summary>
    [FieldOffset(0x20)] internal ulong StackPointer;

    /// <summary>Descriptor whose small writes go into the buffer; -1: none.</summary>
    [FieldOffset(0x1C)] internal int BufferedDescriptor;

    /// <summary>Bytes before each buffered write: <see cref="SendHeader"/> for one to a socket, which says where to; 0 for one to <see cref="BufferedDescriptor"/>.</summary>
    [FieldOffset(0x38)] internal int BufferHeader;

    /// <summary>1 while writes to <see cref="SendDescriptors"/> are buffered; written by the host.</summary>
    [FieldOffset(0x3C)] internal int SendsOpen;

    /// <summary>Where the next buffered byte goes.</summary>
    [FieldOffset(0x28)] internal ulong BufferNext;

    /// <summary>End of the buffer.</summary>
    [FieldOffset(0x30)] internal ulong BufferEnd;

    /// <summary>A <see cref="RingState"/>.</summary>
    [FieldOffset(0x40)] internal int State;

    /// <summary>Result of a call that is <see cref="RingState.Done"/>.</summary>
    [FieldOffset(0x48)] internal long Result;

    /// <summary>Number of the posted call (rax).</summary>
    [FieldOffset(0x80)] internal ulong Number;

    /// <summary>First argument (rdi).</summary>
    [FieldOffset(0x88)] internal ulong A0;

    /// <summary>Second argument (rsi).</summary>
    [FieldOffset(0x90)] internal ulong A1;

    /// <summary>Third argument (rdx).</summary>
    [FieldOffset(0x98)] internal ulong A2;

    /// <summary>Fourth argument (r10).</summary>
    [FieldOffset(0xA0)] internal ulong A3;

    /// <summary>Fifth argument (r8).</summary>
    [FieldOffset(0xA8)] internal ulong A4;

    /// <summary>Sixth argument (r9).</summary>
    [FieldOffset(0xB0)] internal ulong A5;

    /// <summary>Where the program goes on (rcx); of the last call that the stub has answered, too.</summary>
    [FieldOffset(0xB8)] internal ulong Rip;

    /// <summary>The program's flags (r11).</summary>
    [FieldOffset(0xC0)] internal ulong Flags;

    /// <summary>The descriptor whose next <c>epoll_wait</c> has an event for certain; -1: none.</summary>
    [FieldOffset(0xC8)] internal int ReadyEpoll;

    /// <summary>How often the stub may say so before the host looks at all descriptors again.</summary>
    [FieldOffset(0xCC)] internal int ReadyBudget;

    /// <summary>The <see cref="Fetched"/> whose bytes are the reason.</summary>
    [FieldOffset(0xD0)] internal Fetched* ReadyFetched;

    /// <summary>The event (struct epoll_event, packed).</summary>
    [FieldOffset(0xD8)] internal fixed byte ReadyEvent[EventSize];

    /// <summary>A bit for each call number that may be posted.</summary>
    [FieldOffset(0x100)] internal fixed ulong Numbers[8];

    /// <summary>A bit for each descriptor that the host has received for: a read takes those bytes.</summary>
    [FieldOffset(0x380)] internal fixed uint FetchedDescriptors[SendDescriptorCount / 32];

    /// <summary>A bit for each descriptor whose writes are buffered while <see cref="SendsOpen"/>; written by the host.</summary>
    [FieldOffset(0x180)] internal fixed uint SendDescriptors[SendDescriptorCount / 32];

    /// <summary>Writes to a descriptor are not buffered any more.</summary>
    internal void ForgetBuffered(int descriptor)
    {
        if (descriptor == BufferedDescriptor)
            BufferedDescriptor = -1;
        if ((uint)descriptor < SendDescriptorCount)
            Interlocked.And(ref SendDescriptors[descriptor / 32], ~(1U << (descriptor % 32)));
    }

    /// <summary>What was received for each descriptor; at the start of <see cref="Layout.ReadAheadOffset"/>.</summary>
    internal static Fetched* FetchedOf(int descriptor) => (Fetched*)(Layout.KernelBase + Layout.ReadAheadOffset) + descriptor;

    /// <summary>Whether a descriptor's next read takes what was received ahead.</summary>
    internal bool IsFetched(int descriptor) => (Volatile.Read(ref FetchedDescriptors[descriptor / 32]) >> (descriptor % 32) & 1) != 0;

    /// <summary>A descriptor's next read takes nothing of what was received ahead.</summary>
    internal void ForgetFetched(int descriptor)
    {
        if ((uint)descriptor < SendDescriptorCount)
            Interlocked.And(ref FetchedDescriptors[descriptor / 32], ~(1U << (descriptor % 32)));
        ReadyEpoll = -1;
    }

    /// <summary>Descriptors that have a bit in <see cref="SendDescriptors"/>.</summary>
    internal const int SendDescriptorCount = 4096;

    /// <summary>Before the bytes for a socket: descriptor and length, 4 bytes each. The next header is at the next multiple of its size.</summary>
    internal const int SendHeader = 8;

    /// <summary>Longest write that is buffered.</summary>
    internal const int LongestBufferedWrite = 16 * 1024;

    /// <summary>Bytes of a struct epoll_event.</summary>
    internal const int EventSize = 12;

    /// <summary>Numbers that have a bit in <see cref="Numbers"/>.</summary>
    internal const int NumberCount = 512;

    /// <summary>Top of the few words on which the stub restores the flags; after <see cref="Numbers"/>.</summary>
    internal const ulong StackTop = 0x180;
}
