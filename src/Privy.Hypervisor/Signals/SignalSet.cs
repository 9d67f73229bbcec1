namespace Privy.Hypervisor.Signals;

/// <summary>A set of signals; bit n-1 is signal n, as in the kernel's <c>sigset_t</c>.</summary>
public readonly record struct SignalSet(ulong Bits)
{
    /// <summary>SIGKILL and SIGSTOP: never blocked, caught or ignored.</summary>
    public static SignalSet Unblockable { get; } = Of(Signal.SIGKILL, Signal.SIGSTOP);

    /// <summary>The signals a faulting instruction causes; they come before all others.</summary>
    public static SignalSet Synchronous { get; } = Of(Signal.SIGSEGV, Signal.SIGBUS, Signal.SIGILL, Signal.SIGTRAP, Signal.SIGFPE, Signal.SIGSYS);

    /// <summary>The signals that stop by default; SIGCONT discards them.</summary>
    public static SignalSet Stopping { get; } = Of(Signal.SIGSTOP, Signal.SIGTSTP, Signal.SIGTTIN, Signal.SIGTTOU);

    /// <summary>The set of the given signals.</summary>
    public static SignalSet Of(params ReadOnlySpan<int> signals)
    {
        ulong bits = 0;
        foreach (int signal in signals)
            bits |= 1UL << (signal - 1);
        return new SignalSet(bits);
    }

    /// <summary>True without any signal.</summary>
    public bool IsEmpty => Bits == 0;

    /// <summary>True if the signal is in the set.</summary>
    public bool Contains(int signal) => (Bits >> (signal - 1) & 1) != 0;

    /// <summary>The set with one more signal.</summary>
    public SignalSet With(int signal) => new(Bits | 1UL << (signal - 1));

    /// <summary>The set without a signal.</summary>
    public SignalSet Without(int signal) => new(Bits & ~(1UL << (signal - 1)));

    /// <summary>Union.</summary>
    public static SignalSet operator |(SignalSet left, SignalSet right) => new(left.Bits | right.Bits);

    /// <summary>Intersection.</summary>
    public static SignalSet operator &(SignalSet left, SignalSet right) => new(left.Bits & right.Bits);

    /// <summary>Complement.</summary>
    public static SignalSet operator ~(SignalSet set) => new(~set.Bits);
}
