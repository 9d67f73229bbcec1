namespace Privy.Hypervisor.Host;

/// <summary>Names and texts of error numbers (asm-generic/errno.h, strerror).</summary>
public static class ErrnoText
{
    private static readonly (string Name, string Text)[] s_errors = Create();

    /// <summary>"ENOENT" for 2; the number itself when it has no name.</summary>
    public static string NameOf(int error) => Find(error).Name is { } name ? name : error.ToString();

    /// <summary>"No such file or directory" for 2.</summary>
    public static string TextOf(int error) => Find(error).Text ?? "Unknown error";

    private static (string? Name, string? Text) Find(int error) => error switch
    {
        Errno.ERESTARTSYS => (nameof(Errno.ERESTARTSYS), "To be restarted if SA_RESTART is set"),
        Errno.ERESTARTNOINTR => (nameof(Errno.ERESTARTNOINTR), "To be restarted"),
        Errno.ERESTARTNOHAND => (nameof(Errno.ERESTARTNOHAND), "To be restarted if no handler"),
        _ => (uint)error < (uint)s_errors.Length ? s_errors[error] : default,
    };

    private static (string Name, string Text)[] Create()
    {
        var errors = new (string, string)[134];
        errors[1] = ("EPERM", "Operation not permitted");
        errors[2] = ("ENOENT", "No such file or directory");
        errors[3] = ("ESRCH", "No such process");
        errors[4] = ("EINTR", "Interrupted system call");
        errors[5] = ("EIO", "Input/output error");
        errors[6] = ("ENXIO", "No such device or address");
        errors[7] = ("E2BIG", "Argument list too long");
        errors[8] = ("ENOEXEC", "Exec format error");
        errors[9] = ("EBADF", "Bad file descriptor");
        errors[10] = ("ECHILD", "No child processes");
        errors[11] = ("EAGAIN", "Resource temporarily unavailable");
        errors[12] = ("ENOMEM", "Cannot allocate memory");
        errors[13] = ("EACCES", "Permission denied");
        errors[14] = ("EFAULT", "Bad address");
        errors[15] = ("ENOTBLK", "Block device required");
        errors[16] = ("EBUSY", "Device or resource busy");
        errors[17] = ("EEXIST", "File exists");
        errors[18] = ("EXDEV", "Invalid cross-device link");
        errors[19] = ("ENODEV", "No such device");
        errors[20] = ("ENOTDIR", "Not a directory");
        errors[21] = ("EISDIR", "Is a directory");
        errors[22] = ("EINVAL", "Invalid argument");
        errors[23] = ("ENFILE", "Too many open files in system");
        errors[24] = ("EMFILE", "Too many open files");
        errors[25] = ("ENOTTY", "Inappropriate ioctl for device");
        errors[26] = ("ETXTBSY", "Text file busy");
        errors[27] = ("EFBIG", "File too large");
        errors[28] = ("ENOSPC", "No space left on device");
        errors[29] = ("ESPIPE", "Illegal seek");
        errors[30] = ("EROFS", "Read-only file system");
        errors[31] = ("EMLINK", "Too many links");
        errors[32] = ("EPIPE", "Broken pipe");
        errors[33] = ("EDOM", "Numerical argument out of domain");
        errors[34] = ("ERANGE", "Numerical result out of range");
        errors[35] = ("EDEADLK", "Resource deadlock avoided");
        errors[36] = ("ENAMETOOLONG", "File name too long");
        errors[37] = ("ENOLCK", "No locks available");
        errors[38] = ("ENOSYS", "Function not implemented");
        errors[39] = ("ENOTEMPTY", "Directory not empty");
        errors[40] = ("ELOOP", "Too many levels of symbolic links");
        errors[42] = ("ENOMSG", "No message of desired type");
        errors[43] = ("EIDRM", "Identifier removed");
        errors[44] = ("ECHRNG", "Channel number out of range");
        errors[45] = ("EL2NSYNC", "Level 2 not synchronized");
        errors[46] = ("EL3HLT", "Level 3 halted");
        errors[47] = ("EL3RST", "Level 3 reset");
        errors[48] = ("ELNRNG", "Link number out of range");
        errors[49] = ("EUNATCH", "Protocol driver not attached");
        errors[50] = ("ENOCSI", "No CSI structure available");
        errors[51] = ("EL2HLT", "Level 2 halted");
        errors[52] = ("EBADE", "Invalid exchange");
        errors[53] = ("EBADR", "Invalid request descriptor");
        errors[54] = ("EXFULL", "Exchange full");
        errors[55] = ("ENOANO", "No anode");
        errors[56] = ("EBADRQC", "Invalid request code");
        errors[57] = ("EBADSLT", "Invalid slot");
        errors[59] = ("EBFONT", "Bad font file format");
        errors[60] = ("ENOSTR", "Device not a stream");
        errors[61] = ("ENODATA", "No data available");
        errors[62] = ("ETIME", "Timer expired");
        errors[63] = ("ENOSR", "Out of streams resources");
        errors[64] = ("ENONET", "Machine is not on the network");
        errors[65] = ("ENOPKG", "Package not installed");
        errors[66] = ("EREMOTE", "Object is remote");
        errors[67] = ("ENOLINK", "Link has been severed");
        errors[68] = ("EADV", "Advertise error");
        errors[69] = ("ESRMNT", "Srmount error");
        errors[70] = ("ECOMM", "Communication error on send");
        errors[71] = ("EPROTO", "Protocol error");
        errors[72] = ("EMULTIHOP", "Multihop attempted");
        errors[73] = ("EDOTDOT", "RFS specific error");
        errors[74] = ("EBADMSG", "Bad message");
        errors[75] = ("EOVERFLOW", "Value too large for defined data type");
        errors[76] = ("ENOTUNIQ", "Name not unique on network");
        errors[77] = ("EBADFD", "File descriptor in bad state");
        errors[78] = ("EREMCHG", "Remote address changed");
        errors[79] = ("ELIBACC", "Can not access a needed shared library");
        errors[80] = ("ELIBBAD", "Accessing a corrupted shared library");
        errors[81] = ("ELIBSCN", ".lib section in a.out corrupted");
        errors[82] = ("ELIBMAX", "Attempting to link in too many shared libraries");
        errors[83] = ("ELIBEXEC", "Cannot exec a shared library directly");
        errors[84] = ("EILSEQ", "Invalid or incomplete multibyte or wide character");
        errors[85] = ("ERESTART", "Interrupted system call should be restarted");
        errors[86] = ("ESTRPIPE", "Streams pipe error");
        errors[87] = ("EUSERS", "Too many users");
        errors[88] = ("ENOTSOCK", "Socket operation on non-socket");
        errors[89] = ("EDESTADDRREQ", "Destination address required");
        errors[90] = ("EMSGSIZE", "Message too long");
        errors[91] = ("EPROTOTYPE", "Protocol wrong type for socket");
        errors[92] = ("ENOPROTOOPT", "Protocol not available");
        errors[93] = ("EPROTONOSUPPORT", "Protocol not supported");
        errors[94] = ("ESOCKTNOSUPPORT", "Socket type not supported");
        errors[95] = ("EOPNOTSUPP", "Operation not supported");
        errors[96] = ("EPFNOSUPPORT", "Protocol family not supported");
        errors[97] = ("EAFNOSUPPORT", "Address family not supported by protocol");
        errors[98] = ("EADDRINUSE", "Address already in use");
        errors[99] = ("EADDRNOTAVAIL", "Cannot assign requested address");
        errors[100] = ("ENETDOWN", "Network is down");
        errors[101] = ("ENETUNREACH", "Network is unreachable");
        errors[102] = ("ENETRESET", "Network dropped connection on reset");
        errors[103] = ("ECONNABORTED", "Software caused connection abort");
        errors[104] = ("ECONNRESET", "Connection reset by peer");
        errors[105] = ("ENOBUFS", "No buffer space available");
        errors[106] = ("EISCONN", "Transport endpoint is already connected");
        errors[107] = ("ENOTCONN", "Transport endpoint is not connected");
        errors[108] = ("ESHUTDOWN", "Cannot send after transport endpoint shutdown");
        errors[109] = ("ETOOMANYREFS", "Too many references: cannot splice");
        errors[110] = ("ETIMEDOUT", "Connection timed out");
        errors[111] = ("ECONNREFUSED", "Connection refused");
        errors[112] = ("EHOSTDOWN", "Host is down");
        errors[113] = ("EHOSTUNREACH", "No route to host");
        errors[114] = ("EALREADY", "Operation already in progress");
        errors[115] = ("EINPROGRESS", "Operation now in progress");
        errors[116] = ("ESTALE", "Stale file handle");
        errors[117] = ("EUCLEAN", "Structure needs cleaning");
        errors[118] = ("ENOTNAM", "Not a XENIX named type file");
        errors[119] = ("ENAVAIL", "No XENIX semaphores available");
        errors[120] = ("EISNAM", "Is a named type file");
        errors[121] = ("EREMOTEIO", "Remote I/O error");
        errors[122] = ("EDQUOT", "Disk quota exceeded");
        errors[123] = ("ENOMEDIUM", "No medium found");
        errors[124] = ("EMEDIUMTYPE", "Wrong medium type");
        errors[125] = ("ECANCELED", "Operation canceled");
        errors[126] = ("ENOKEY", "Required key not available");
        errors[127] = ("EKEYEXPIRED", "Key has expired");
        errors[128] = ("EKEYREVOKED", "Key has been revoked");
        errors[129] = ("EKEYREJECTED", "Key was rejected by service");
        errors[130] = ("EOWNERDEAD", "Owner died");
        errors[131] = ("ENOTRECOVERABLE", "State not recoverable");
        errors[132] = ("ERFKILL", "Operation not possible due to RF-kill");
        errors[133] = ("EHWPOISON", "Memory page has hardware error");
        return errors;
    }
}
