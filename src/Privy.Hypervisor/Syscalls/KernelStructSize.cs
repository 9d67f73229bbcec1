namespace Privy.Hypervisor.Syscalls;

/// <summary>Sizes of the structs system calls exchange, x86-64. A test compares them with the C headers.</summary>
internal static class KernelStructSize
{
    public const int Stat = 144;
    public const int Statfs = 120;
    public const int Statx = 256;
    public const int Timespec = 16;
    public const int Timeval = 16;
    public const int Timezone = 8;
    public const int Itimerspec = 32;
    public const int Timex = 208;
    public const int Tms = 32;
    public const int Utimbuf = 16;
    public const int Rusage = 144;
    public const int Rlimit = 16;
    public const int Sysinfo = 112;
    public const int Utsname = 390;
    public const int Iovec = 16;
    public const int Msghdr = 56;
    public const int Mmsghdr = 64;
    public const int Cmsghdr = 16;
    public const int SockaddrStorage = 128;
    public const int EpollEvent = 12;
    public const int Pollfd = 8;
    public const int Flock = 32;
    public const int FOwnerEx = 8;
    public const int OpenHow = 24;
    public const int CapHeader = 8;
    public const int CapData = 24;
    public const int SchedParam = 4;
    public const int SchedAttr = 48;
    public const int SigAction = 32;
    public const int MqAttr = 64;
    public const int CachestatRange = 16;
    public const int Cachestat = 40;

    // asm/termbits.h (the kernel's struct termios, not glibc's larger one)
    public const int Termios = 36;
    public const int Termios2 = 44;
    public const int Termio = 18;
    public const int Winsize = 8;
    public const int SerialStruct = 72;
    public const int Ifreq = 40;
    public const int Ifconf = 16;
    public const int Arpreq = 68;
}
