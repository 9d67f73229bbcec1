using Privy.Hypervisor.Signals;

namespace Privy.Hypervisor.Host;

/// <summary>The host process as a whole.</summary>
public static unsafe class HostProcess
{
    /// <summary>
    /// Replaces the whole process, all its threads, by a native program: what <c>execve</c> in the main program is. Its descriptors must be close-on-exec where
    /// the program shall not have them.
    /// </summary>
    /// <param name="path">File to run.</param>
    /// <param name="arguments">Its arguments, from argv[0].</param>
    /// <param name="environment">Its environment.</param>
    /// <param name="mask">Signal mask it starts with; null: the calling thread's.</param>
    /// <param name="ignored">Signals it starts with as ignored; all others have their default action.</param>
    /// <returns>Only on failure: the negative error number; dispositions and mask are as before.</returns>
    public static long Exec(ReadOnlySpan<byte> path, IReadOnlyList<byte[]> arguments, IReadOnlyList<byte[]> environment, SignalSet? mask, SignalSet ignored)
    {
        ArgumentNullException.ThrowIfNull(arguments);
        ArgumentNullException.ThrowIfNull(environment);
        using var argv = new NativeStrings(arguments);
        using var envp = new NativeStrings(environment);
        using var name = new NativeStrings([path.ToArray()]);

        // execve resets handlers by itself; what is ignored stays so. Only what differs is changed, so that no handler is missing before it succeeds.
        Span<bool> changed = stackalloc bool[Signal.Count + 1];
        var old = new KernelSigaction[Signal.Count + 1];
        for (int signal = 1; signal <= Signal.Count; signal++)
        {
            if (signal is Signal.SIGKILL or Signal.SIGSTOP)
                continue;
            old[signal] = KernelSigaction.Get(signal);
            bool want = ignored.Contains(signal), have = old[signal].Handler == KernelSigaction.Ignore;
            // A signal the runtime needs until the end cannot be handed on as ignored.
            if (want == have || (want && signal is Signal.SIGSEGV or Signal.SIGFPE or Signal.SIGILL or Signal.SIGBUS or Signal.SIGTRAP or 34))
                continue;
            changed[signal] = true;
            KernelSigaction.Set(signal, want ? new KernelSigaction { Handler = KernelSigaction.Ignore } : default);
        }
        ulong set = mask.GetValueOrDefault().Bits, oldMask;
        HostSyscall.RawQuick(HostCallNumber.RtSigprocmask, 2, mask is null ? 0 : (ulong)&set, (ulong)&oldMask, 8);
        long result = HostSyscall.Raw(HostCallNumber.Execve, (ulong)name.Array[0], (ulong)argv.Array, (ulong)envp.Array);
        HostSyscall.RawQuick(HostCallNumber.RtSigprocmask, 2, (ulong)&oldMask, 0, 8);
        for (int signal = 1; signal <= Signal.Count; signal++)
            if (changed[signal])
                KernelSigaction.Set(signal, old[signal]);
        return result;
    }
}
