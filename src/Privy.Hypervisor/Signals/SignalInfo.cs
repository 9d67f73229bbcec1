using System.Runtime.InteropServices;

namespace Privy.Hypervisor.Signals;

/// <summary><c>siginfo_t</c>. The union is by offset: which members mean something depends on the signal and <see cref="Code"/>.</summary>
[StructLayout(LayoutKind.Explicit, Size = Size)]
public struct SignalInfo
{
    /// <summary>Length in bytes.</summary>
    public const int Size = 128;

    /// <summary>Values of <see cref="Code"/>: who sent it (asm-generic/siginfo.h).</summary>
    public const int SI_USER = 0, SI_KERNEL = 0x80, SI_QUEUE = -1, SI_TIMER = -2, SI_TKILL = -6;

    /// <summary>Codes of SIGCHLD, SIGSEGV and SIGBUS.</summary>
    public const int CLD_EXITED = 1, CLD_KILLED = 2, CLD_DUMPED = 3, CLD_STOPPED = 5, CLD_CONTINUED = 6, SEGV_MAPERR = 1, SEGV_ACCERR = 2, BUS_ADRERR = 2;

    /// <summary>si_signo.</summary>
    [FieldOffset(0)] public int Number;

    /// <summary>si_errno.</summary>
    [FieldOffset(4)] public int Error;

    /// <summary>si_code.</summary>
    [FieldOffset(8)] public int Code;

    /// <summary>si_pid; si_tid of a timer.</summary>
    [FieldOffset(16)] public int ProcessId;

    /// <summary>si_uid; si_overrun of a timer.</summary>
    [FieldOffset(20)] public int UserId;

    /// <summary>si_value; the low half is si_status of SIGCHLD.</summary>
    [FieldOffset(24)] public ulong Value;

    /// <summary>si_status of SIGCHLD.</summary>
    [FieldOffset(24)] public int Status;

    /// <summary>si_utime of SIGCHLD.</summary>
    [FieldOffset(32)] public long UserTime;

    /// <summary>si_stime of SIGCHLD.</summary>
    [FieldOffset(40)] public long SystemTime;

    /// <summary>si_addr of a fault.</summary>
    [FieldOffset(16)] public ulong Address;

    /// <summary>si_overrun of a timer.</summary>
    [FieldOffset(20)] public int Overrun;

    // Not part of what the program sees as such: fills the structure up to its length.
    [FieldOffset(120)] private readonly ulong _end;

    /// <summary>From kill, tkill or the like.</summary>
    public static SignalInfo FromProcess(int signal, int code, int processId, int userId) => new() { Number = signal, Code = code, ProcessId = processId, UserId = userId };

    /// <summary>From the kernel itself, without details.</summary>
    public static SignalInfo FromKernel(int signal) => new() { Number = signal, Code = SI_KERNEL };

    /// <summary>A fault at an address.</summary>
    public static SignalInfo FromFault(int signal, int code, ulong address) => new() { Number = signal, Code = code, Address = address };

    /// <summary>The death, stop or continuation of a child.</summary>
    public static SignalInfo FromChild(int code, int processId, int userId, int status) =>
        new() { Number = Signal.SIGCHLD, Code = code, ProcessId = processId, UserId = userId, Status = status };
}
