using System.Runtime.InteropServices;

namespace Privy.Kernel;

/// <summary>What a page fault and its stub leave on the fault stack; the hardware's part begins at <see cref="Error"/>.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct TrapFrame
{
    /// <summary>Value of <see cref="Cr2"/> after a fault that came to ring 3 directly, where CR2 cannot be read. No address is like that.</summary>
    public const ulong Unknown = 1UL << 63;

    /// <summary>Faulting address (CR2), or <see cref="Unknown"/>.</summary>
    public ulong Cr2;

    /// <summary>The program's rax.</summary>
    public ulong Rax;

    /// <summary>Page-fault error code (Intel SDM vol. 3, 4.7).</summary>
    public ulong Error;

    /// <summary>Interrupted rip.</summary>
    public ulong Rip;

    /// <summary>Interrupted cs.</summary>
    public ulong Cs;

    /// <summary>Interrupted rflags.</summary>
    public ulong Rflags;

    /// <summary>Interrupted rsp.</summary>
    public ulong Rsp;

    /// <summary>Interrupted ss.</summary>
    public ulong Ss;
}

/// <summary>The words through which the host, the kernel and the stubs of one vCPU talk. Lies at the start of the vCPU's area.</summary>
[StructLayout(LayoutKind.Sequential)]
public unsafe struct VcpuArea
{
    /// <summary>The kernel's state.</summary>
    public KernelState* Kernel;

    /// <summary>Index of this vCPU.</summary>
    public int Index;

    /// <summary>Index of the address space the vCPU runs in; written by the host.</summary>
    public int Space;

    /// <summary>Guest-physical address of the root the vCPU last loaded; written by the host before each entry.</summary>
    public ulong LoadedRoot;

    /// <summary>1 while the vCPU may execute in the guest. The host sets it (with a full fence) before it looks at <see cref="FlushPending"/>.</summary>
    public int InGuest;

    /// <summary>1: translations must be flushed before the next entry.</summary>
    public int FlushPending;

    /// <summary>Not 0: the kernel must leave to the host instead of returning to the program; see <see cref="ExitReason"/>.</summary>
    public int ExitRequest;

    /// <summary>Signal code of a fault the kernel could not resolve: SEGV_MAPERR (1) or SEGV_ACCERR (2).</summary>
    public int FaultCode;

    /// <summary>Address of the fault the kernel could not resolve.</summary>
    public ulong FaultAddress;

    /// <summary>Page-fault error code of it.</summary>
    public ulong FaultError;

    /// <summary>The trap frame on this vCPU's fault stack.</summary>
    public TrapFrame* Trap;

    /// <summary>The program's general registers at its last page fault, in the order of their numbers in instructions; on the kernel's stack.</summary>
    public ulong* Registers;

    /// <summary>The word of the IDT that leads page faults to their handler.</summary>
    public ulong* FaultGate;

    /// <summary>Its value for the way through ring 0, which reads CR2.</summary>
    public ulong GateThroughRing0;

    /// <summary>Its value for the way straight to ring 3; 0: not to be used.</summary>
    public ulong GateDirect;

    /// <summary>The kernel's own: the bytes of the instruction that faulted.</summary>
    public ulong Code0;

    /// <summary>The kernel's own: the bytes after them.</summary>
    public ulong Code1;

    /// <summary>The kernel's own: rip of the last fault whose address was guessed; 0: none.</summary>
    public ulong GuessRip;

    /// <summary>The kernel's own: the guess.</summary>
    public ulong GuessAddress;

    /// <summary>The kernel's own: the error code of that fault.</summary>
    public ulong GuessError;

    /// <summary>Page faults whose address had to be asked of ring 0.</summary>
    public ulong FaultsAsked;

    /// <summary>Request to the host: a <see cref="HostRequest"/>.</summary>
    public ulong Request;

    /// <summary>First argument of the request.</summary>
    public ulong RequestArg0;

    /// <summary>Second argument of the request.</summary>
    public ulong RequestArg1;

    /// <summary>The host's answer.</summary>
    public ulong RequestResult;

    /// <summary>Result of a kernel function the host called.</summary>
    public ulong CallResult;

    /// <summary>Page faults taken.</summary>
    public ulong Faults;

    /// <summary>Pages copied for snapshots by faults of this vCPU.</summary>
    public ulong PcowCopies;

    /// <summary>The kernel's own: guest-physical address whose memory slot the operation in progress waits for.</summary>
    public ulong PendingSlot;

    /// <summary>The one instruction outside the program that touches its memory: the system-call stub's copy of what the program writes.</summary>
    public ulong CopyRip;

    /// <summary>The kernel's own: where the pages end that the last fault copied ahead.</summary>
    public ulong AroundEnd;

    /// <summary>The kernel's own: how many pages the last fault copied, its own included.</summary>
    public int AroundCount;

    /// <summary>The kernel's own: timestamp counter at the start of the present window of <see cref="KernelState.RateWindow"/>.</summary>
    public ulong RateStart;

    /// <summary>The kernel's own: copy-on-write faults in the present window.</summary>
    public int RateNow;

    /// <summary>The kernel's own: copy-on-write faults in the window right before it.</summary>
    public int RateBefore;

    /// <summary>The kernel's own: the epoch that <see cref="RateSinceSnapshot"/> is about.</summary>
    public ulong RateEpoch;

    /// <summary>The kernel's own: copy-on-write faults in this epoch.</summary>
    public int RateSinceSnapshot;

    /// <summary>The kernel's own: 1 when the host has no more memory ready for copies ahead, until the next fault.</summary>
    public int NoReadyFrames;

    /// <summary>The kernel's own: where to go on copying what a snapshot reads; 0: nowhere.</summary>
    public ulong CopyReadsNext;

    /// <summary>The kernel's own: the snapshot that <see cref="CopyReadsNext"/> is about.</summary>
    public int CopyReadsSpace;

    /// <summary>The kernel's own: the view that is to get <see cref="Block"/>.</summary>
    public int BlockSpace;

    /// <summary>The kernel's own: a block of frames that a view's 2 MB are being copied to; 0: none.</summary>
    public ulong Block;

    /// <summary>The kernel's own: the address of these 2 MB in main.</summary>
    public ulong BlockArea;

    /// <summary>The kernel's own: the epoch of the view.</summary>
    public ulong BlockEpoch;
}

/// <summary>Values of <see cref="VcpuArea.FaultCode"/>; the first two are Linux's si_code of SIGSEGV.</summary>
public static class FaultCode
{
    /// <summary>No mapping there (SEGV_MAPERR).</summary>
    public const int NotMapped = 1;

    /// <summary>The mapping does not allow the access (SEGV_ACCERR).</summary>
    public const int Denied = 2;

    /// <summary>No frame, table or memory slot could be had (the program gets SIGBUS).</summary>
    public const int NoMemory = 3;
}

/// <summary>Bits of <see cref="VcpuArea.ExitRequest"/>.</summary>
public static class ExitReason
{
    /// <summary>The host wants the vCPU: a signal to deliver, the world to stop.</summary>
    public const int Host = 1;

    /// <summary>The program made a bad access; see <see cref="VcpuArea.FaultAddress"/>.</summary>
    public const int Fault = 2;
}

/// <summary>What the kernel may ask of the host while it runs (<see cref="VcpuArea.Request"/>).</summary>
public static class HostRequest
{
    /// <summary>Make the memory slot that holds guest-physical address Arg0. Result: 0 or a negative errno.</summary>
    public const ulong NeedSlot = 1;

    /// <summary>Make vCPU Arg0 flush its translations: it must have left the guest when the call returns (<see cref="VcpuArea.FlushPending"/> is set already).</summary>
    public const ulong Kick = 2;

    /// <summary>The kernel lock is held by a vCPU that does not run: let others run.</summary>
    public const ulong Yield = 3;

    /// <summary>An invariant is broken: Arg0 says which, Arg1 is a value for the diagnosis. Does not return.</summary>
    public const ulong Panic = 4;

    /// <summary>The frame pool is exhausted. Result: 0 when there are frames again, else negative errno (the program gets SIGBUS... or ENOMEM).</summary>
    public const ulong NeedFrames = 5;

    /// <summary>The table frames are exhausted. Result: 0 when <see cref="KernelState.TableEnd"/> was raised, else negative errno.</summary>
    public const ulong NeedTables = 6;

    /// <summary>No more frames have memory of the host ready behind them (<see cref="KernelState.PoolReady"/>). Result: 0 when there are some again, else negative errno.</summary>
    public const ulong NeedReadyFrames = 7;
}

/// <summary>First argument of <see cref="HostRequest.Panic"/>.</summary>
public static class PanicCode
{
    /// <summary>The kernel itself faulted; Arg1 is the address.</summary>
    public const ulong KernelFault = 1;

    /// <summary>A reserved bit was set in a table entry; Arg1 is the address.</summary>
    public const ulong ReservedBit = 2;

    /// <summary>A guest-physical address beyond the direct map; Arg1 is the address.</summary>
    public const ulong PhysicalRange = 3;

    /// <summary>A table lies outside the kernel region; Arg1 is the entry.</summary>
    public const ulong BadTable = 4;
}
