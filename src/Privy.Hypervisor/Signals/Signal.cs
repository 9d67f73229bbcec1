namespace Privy.Hypervisor.Signals;

/// <summary>What a signal does without a handler.</summary>
public enum DefaultAction
{
    /// <summary>The process ends.</summary>
    Terminate,

    /// <summary>The process ends, with a core where the limits allow one.</summary>
    Core,

    /// <summary>Nothing.</summary>
    Ignore,

    /// <summary>The process stops.</summary>
    Stop,

    /// <summary>The process goes on if it was stopped; otherwise nothing.</summary>
    Continue,
}

/// <summary>Signal numbers of x86-64 and what is known of each (signal(7)).</summary>
public static class Signal
{
    public const int SIGHUP = 1, SIGINT = 2, SIGQUIT = 3, SIGILL = 4, SIGTRAP = 5, SIGABRT = 6, SIGBUS = 7, SIGFPE = 8, SIGKILL = 9, SIGUSR1 = 10,
        SIGSEGV = 11, SIGUSR2 = 12, SIGPIPE = 13, SIGALRM = 14, SIGTERM = 15, SIGSTKFLT = 16, SIGCHLD = 17, SIGCONT = 18, SIGSTOP = 19, SIGTSTP = 20,
        SIGTTIN = 21, SIGTTOU = 22, SIGURG = 23, SIGXCPU = 24, SIGXFSZ = 25, SIGVTALRM = 26, SIGPROF = 27, SIGWINCH = 28, SIGIO = 29, SIGPWR = 30, SIGSYS = 31;

    /// <summary>The kernel's first real-time signal; libc's SIGRTMIN is 34.</summary>
    public const int FirstRealTime = 32;

    /// <summary>Signals are 1 to this.</summary>
    public const int Count = 64;

    private static readonly string[] Names =
    [
        "0", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP",
        "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];

    /// <summary>True for a number that is a signal.</summary>
    public static bool IsValid(int signal) => signal is >= 1 and <= Count;

    /// <summary>Name as in signal.h.</summary>
    public static string Name(int signal) => signal switch
    {
        >= 1 and < FirstRealTime => "SIG" + Names[signal],
        >= FirstRealTime and <= Count => $"SIG{signal}",
        _ => $"signal {signal}",
    };

    /// <summary>What happens without a handler.</summary>
    public static DefaultAction Default(int signal) => signal switch
    {
        SIGQUIT or SIGILL or SIGTRAP or SIGABRT or SIGBUS or SIGFPE or SIGSEGV or SIGXCPU or SIGXFSZ or SIGSYS => DefaultAction.Core,
        SIGCHLD or SIGURG or SIGWINCH => DefaultAction.Ignore,
        SIGCONT => DefaultAction.Continue,
        SIGSTOP or SIGTSTP or SIGTTIN or SIGTTOU => DefaultAction.Stop,
        _ => DefaultAction.Terminate,
    };
}
