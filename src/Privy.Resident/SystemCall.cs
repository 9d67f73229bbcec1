namespace Privy.Resident;

/// <summary>Numbers and flags of Linux on x86-64, as far as the engine needs them.</summary>
internal static class SystemCall
{
    internal const long Read = 0;
    internal const long Poll = 7;
    internal const long Mmap = 9;
    internal const long RtSigprocmask = 14;
    internal const long Ioctl = 16;
    internal const long Madvise = 28;
    internal const long Futex = 202;

    internal const long FutexWait = 128;
    internal const long FutexWake = 129;
    internal const long MapPrivate = 0x2;
    internal const long MapFixed = 0x10;
    internal const long MapAnonymous = 0x20;
    internal const long MapNoReserve = 0x4000;
    internal const long PopulateWrite = 23;
    internal const long UffdioWriteProtect = 0xc018aa06;
}
