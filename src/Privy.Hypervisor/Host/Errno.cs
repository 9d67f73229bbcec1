namespace Privy.Hypervisor.Host;

/// <summary>Error numbers of the Linux x86-64 ABI (asm-generic/errno.h), positive.</summary>
public static class Errno
{
    public const int EPERM = 1;
    public const int ENOENT = 2;
    public const int ESRCH = 3;
    public const int EINTR = 4;
    public const int EIO = 5;
    public const int E2BIG = 7;
    public const int ENOEXEC = 8;
    public const int EBADF = 9;
    public const int ECHILD = 10;
    public const int EAGAIN = 11;
    public const int ENOMEM = 12;
    public const int EACCES = 13;
    public const int EFAULT = 14;
    public const int EBUSY = 16;
    public const int EEXIST = 17;
    public const int ENODEV = 19;
    public const int ENOTDIR = 20;
    public const int EISDIR = 21;
    public const int EINVAL = 22;
    public const int EMFILE = 24;
    public const int ENOTTY = 25;
    public const int EPIPE = 32;
    public const int ERANGE = 34;
    public const int EDEADLK = 35;
    public const int ENAMETOOLONG = 36;
    public const int ENOSYS = 38;
    public const int ELOOP = 40;
    public const int ENOTSOCK = 88;
    public const int EMSGSIZE = 90;
    public const int ENOPROTOOPT = 92;
    public const int ENOTSUP = 95;
    public const int ENOBUFS = 105;
    public const int ETIMEDOUT = 110;

    /// <summary>Not an error a program ever sees: the call was interrupted by a signal and is restarted unless a handler without SA_RESTART runs.</summary>
    public const int ERESTARTSYS = 512;

    /// <summary>
    /// Not an error a program ever sees: the call was not begun because a signal was pending. It is always made again after the
    /// signal has been delivered, just as when the signal had come one instruction earlier.
    /// </summary>
    public const int ERESTARTNOINTR = 513;

    /// <summary>As <see cref="ERESTARTSYS"/>, but EINTR whenever any handler runs.</summary>
    public const int ERESTARTNOHAND = 514;
}
