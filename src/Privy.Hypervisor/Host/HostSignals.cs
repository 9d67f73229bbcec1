using System.Diagnostics;
using System.Runtime.CompilerServices;
using Iced.Intel;
using Privy.Hypervisor.Signals;
using static Iced.Intel.AssemblerRegisters;

namespace Privy.Hypervisor.Host;

/// <summary>What the host process does with a signal from outside.</summary>
public enum HostDisposition
{
    /// <summary>The kernel's default action befalls the host process, as it would the program.</summary>
    Default,

    /// <summary>The kernel discards it.</summary>
    Ignore,

    /// <summary>The program is to see it: it goes to the action given to <see cref="HostSignals.Start"/>.</summary>
    Forward,
}

/// <summary>
/// Signals that the world sends to the host process and that are meant for the program. The handler is machine code: it copies the siginfo into a
/// ring and writes to an eventfd; a managed thread takes it from there. Managed code never runs in a signal context.
/// </summary>
public static unsafe partial class HostSignals
{
    // The ring, in memory that lives as long as the process. Bounded, many producers (handlers on any thread), one consumer; each slot
    // carries the position it is ready for, so that a slot is read only when its siginfo is complete.
    private const int Slots = 256, SlotShift = 8;
    private const int HeadOffset = 0, OverflowOffset = 8, OneOffset = 16, EventOffset = 24, SlotsOffset = 256;

    // Before the slots: what the host itself does with the signals of faults, by number (0 to 11).
    private const int OwnHandlersOffset = 32;

    // The thread that takes signals along through execve (0: none), how many handlers have begun and not ended, and the disposition of the spare kick.
    private const int RedirectOffset = 176, InsideOffset = 180, SpareDispositionOffset = 184;

    // siginfo_t: si_errno, si_code, si_pid of a signal that a process has sent.
    private const int SiErrno = 4, SiCode = 8, SiProcess = 16;

    private static readonly int[] Terminal =
        [Signal.SIGHUP, Signal.SIGINT, Signal.SIGQUIT, Signal.SIGTERM, Signal.SIGCHLD, Signal.SIGCONT, Signal.SIGTSTP, Signal.SIGTTIN, Signal.SIGTTOU, Signal.SIGWINCH];

    private static readonly long[] LastDispatched = new long[Signal.Count + 1];
    private static readonly KernelSigaction[] OwnActions = new KernelSigaction[Signal.SIGSEGV + 1];

    private static readonly Lock Gate = new();
    private static byte* s_ring;
    private static ulong s_handler, s_faultHandler, s_spareHandler, s_restorer;
    private static Action<int, SignalInfo>? s_dispatch;
    private static KeptFile? s_status;
    private static ulong s_tail, s_dispatched, s_forwarded;
    private static bool s_initialized;

    /// <summary>The signals that the process was started with as ignored, as far as the runtime has left them: the program inherits them.</summary>
    public static SignalSet InheritedIgnored { get; private set; }

    /// <summary>The signals that the process was started with as blocked: the program inherits them.</summary>
    public static SignalSet InheritedMask { get; private set; }

    /// <summary>The descriptor that wakes the dispatcher; negative before <see cref="Start"/>. The program must not close it.</summary>
    public static int EventDescriptor { get; private set; } = -1;

    /// <summary>
    /// Takes the runtime's handlers for terminal and job-control signals back to the state the process was started in. To be called early, on the main
    /// thread. SIGPIPE stays ignored in the host for good: writes of the hypervisor must not kill it, and the program's own SIGPIPE is made from EPIPE.
    /// Whether SIGPIPE was ignored before cannot be known (the runtime ignores it itself); default is assumed.
    /// </summary>
    /// <param name="inherited">
    /// What a program has left that did execve in the main process (<see cref="BeginExec"/>): everything is blocked still, so that nothing that came meanwhile
    /// was lost or befell the hypervisor. What the program does not block takes effect here.
    /// </param>
    public static void Initialize((SignalSet Blocked, SignalSet Ignored)? inherited = null)
    {
        lock (Gate)
        {
            if (s_initialized)
                return;
            s_initialized = true;
            ulong mask;
            HostSyscall.RawQuick(HostCallNumber.RtSigprocmask, 0, 0, (ulong)&mask, 8);
            InheritedMask = new SignalSet(mask);

            var ignored = new SignalSet();
            for (int signal = 1; signal <= Signal.Count; signal++)
                if (signal != Signal.SIGPIPE && KernelSigaction.Get(signal).Handler == KernelSigaction.Ignore)
                    ignored = ignored.With(signal);
            InheritedIgnored = ignored;

            // The runtime leaves an inherited "ignored" alone for all of these but SIGTERM, so whatever handler is there now was put over the default.
            foreach (int signal in Terminal)
                if (!ignored.Contains(signal))
                    KernelSigaction.Set(signal, default);

            if (inherited is not { } left)
                return;
            (InheritedMask, InheritedIgnored) = left;
            DropKicks();
            // Until somebody takes them for the program (TakePending): the runtime's handler would swallow those of faults that were sent.
            mask = ((left.Blocked & ~Internal) | SignalSet.Synchronous | SignalSet.Of(SafeSyscall.SpareKickSignal)).Bits;
            HostSyscall.RawQuick(HostCallNumber.RtSigprocmask, 2, (ulong)&mask, 0, 8);
        }
    }

    /// <summary>Starts the dispatcher. Signals then arrive one after the other on its thread.</summary>
    public static void Start(Action<int, SignalInfo> dispatch)
    {
        Prepare(dispatch);
        Open();
    }

    /// <summary>Makes <see cref="SetDisposition"/> possible. What is forwarded waits until <see cref="Open"/>.</summary>
    internal static void Prepare(Action<int, SignalInfo> dispatch)
    {
        ArgumentNullException.ThrowIfNull(dispatch);
        lock (Gate)
        {
            if (s_ring != null)
                throw new InvalidOperationException("The dispatcher of host signals runs already.");
            s_dispatch = dispatch;
            s_status = new KeptFile("/proc/self/status");
            byte* ring = HostLibc.AllocatePages(SlotsOffset + (Slots << SlotShift));
            for (int slot = 0; slot < Slots; slot++)
                *(ulong*)(ring + SlotsOffset + (slot << SlotShift)) = (ulong)slot;
            *(ulong*)(ring + OneOffset) = 1;
            EventDescriptor = Kvm.OwnDescriptors.Adopt((int)HostSyscall.Checked(HostSyscall.RawQuick(HostCallNumber.Eventfd2, 0, 0x80000), "eventfd2", "EFD_CLOEXEC"));
            *(int*)(ring + EventOffset) = EventDescriptor;
            for (int signal = 1; signal < OwnActions.Length; signal++)
                if (IsFault(signal))
                {
                    OwnActions[signal] = KernelSigaction.Get(signal);
                    *(ulong*)(ring + OwnHandlersOffset + (signal * 8)) = OwnActions[signal].Handler;
                }
            s_ring = ring;
            AssembleHandler();
            // Both handlers at once: the first takes the spare kick for one of its own, whoever has sent it.
            SafeSyscall.Install();
            // Not by SetDisposition: the hypervisor needs the signal whatever the program does with it.
            KernelSigaction.Set(SafeSyscall.SpareKickSignal, new KernelSigaction
            {
                Handler = s_spareHandler,
                Flags = KernelSigaction.SaSiginfo | KernelSigaction.SaOnstack | KernelSigaction.SaRestorer,
                Restorer = s_restorer,
                Mask = ulong.MaxValue,
            });
        }
    }

    /// <summary>
    /// Starts the dispatcher's thread, which blocks nothing. To be called when all dispositions are set and <see cref="TakePending"/> has been called: a signal that
    /// the program was started with as blocked must not meet its default action, nor be overtaken.
    /// </summary>
    internal static void Open() => new Thread(() => Dispatch(s_dispatch!)) { IsBackground = true, Name = "privy-signals" }.Start();

    /// <summary>True for a signal whose host disposition may be changed: not those with which the runtime, libc and the hypervisor work themselves.</summary>
    public static bool IsConfigurable(int signal) => signal is >= 1 and <= Signal.Count
        && signal is not (Signal.SIGKILL or Signal.SIGSTOP or Signal.SIGPIPE)
        && signal is not (32 or 33 or 34 or SafeSyscall.KickSignal);

    /// <summary>The number of a disposition, as the handler of the spare kick finds it.</summary>
    private static void SetSpareDisposition(HostDisposition disposition)
    {
        if (s_ring == null)
            throw new InvalidOperationException("HostSignals.Start comes first.");
        Volatile.Write(ref *(int*)(s_ring + SpareDispositionOffset), (int)disposition);
    }

    /// <summary>
    /// True for a signal that the host process can also get for what it does itself: a fault of the runtime's code or of the hypervisor's, an <c>abort</c>. That
    /// one is never the program's; another process may send the same signal, and that one is.
    /// </summary>
    private static bool IsFault(int signal) =>
        signal is Signal.SIGSEGV or Signal.SIGFPE or Signal.SIGILL or Signal.SIGBUS or Signal.SIGTRAP or Signal.SIGABRT;

    /// <summary>Sets what the host does with a signal. False for a signal that is not <see cref="IsConfigurable"/>.</summary>
    public static bool SetDisposition(int signal, HostDisposition disposition)
    {
        if (!IsConfigurable(signal))
            return false;
        bool fault = IsFault(signal);
        // The host's own must not be ignored; the program ignores what reaches it. Nor may the runtime's handler have what others send: it expects the fault to come again.
        if (fault)
            disposition = HostDisposition.Forward;
        ulong bit = 1UL << (signal - 1);
        _ = disposition == HostDisposition.Forward ? Interlocked.Or(ref s_forwarded, bit) : Interlocked.And(ref s_forwarded, ~bit);
        if (signal == SafeSyscall.SpareKickSignal)
        {
            SetSpareDisposition(disposition);
            return true;
        }
        switch (disposition)
        {
            case HostDisposition.Default:
                KernelSigaction.Set(signal, default);
                break;
            case HostDisposition.Ignore:
                KernelSigaction.Set(signal, new KernelSigaction { Handler = KernelSigaction.Ignore });
                break;
            case HostDisposition.Forward:
                if (s_ring == null)
                    throw new InvalidOperationException("HostSignals.Start comes first.");
                KernelSigaction.Set(signal, fault ? ForFault(OwnActions[signal]) : new KernelSigaction
                {
                    Handler = s_handler,
                    Flags = KernelSigaction.SaSiginfo | KernelSigaction.SaOnstack | KernelSigaction.SaRestart | KernelSigaction.SaRestorer,
                    Restorer = s_restorer,
                    // SA_RESTART: the thread it happens to hit has nothing to do with it. Everything is blocked in the handler, so that a kick is
                    // delivered after it, where it sees the true program counter.
                    Mask = ulong.MaxValue,
                });
                break;
            default:
                throw new ArgumentOutOfRangeException(nameof(disposition));
        }
        return true;
    }

    /// <summary>
    /// Waits until every signal sent before this call has reached the dispatcher's action. A terminal signals a whole group at once: a parent
    /// that learns of its child's death by SIGINT has that SIGINT pending itself, and shells rely on it. Here the parent's copy takes the way over
    /// the dispatcher, and the news of the child must not overtake it. Gives up after 200 ms: then the signal is late for another reason.
    /// </summary>
    public static void Settle()
    {
        if (s_ring == null)
            return;
        for (int attempt = 0; attempt < 200; attempt++)
        {
            if ((SharedPending() & Volatile.Read(ref s_forwarded)) == 0 && Volatile.Read(ref s_dispatched) == Volatile.Read(ref *(ulong*)(s_ring + HeadOffset)))
                return;
            Thread.Sleep(1);
        }
    }

    /// <summary>
    /// Waits until a signal has reached the dispatcher's action that the terminal has sent to this process, too, as another of its group shows by what it did. In the moment between the
    /// kernel's handing it to a thread and the handler's first instruction <see cref="Settle"/> finds it nowhere. Gives up after 50 ms: then the other one got it from somewhere else.
    /// </summary>
    /// <param name="signal">The signal.</param>
    /// <param name="since">When the other process began, by <see cref="Stopwatch.GetTimestamp"/>.</param>
    internal static void Await(int signal, long since)
    {
        for (int attempt = 0; attempt < 50 && IsForwarded(signal) && Volatile.Read(ref LastDispatched[signal]) < since; attempt++)
            Thread.Sleep(1);
    }

    private static bool IsForwarded(int signal) => s_ring != null && (Volatile.Read(ref s_forwarded) >> (signal - 1) & 1) != 0;

    /// <summary>The signals sent to the process that no thread has taken yet (proc_pid_status(5), ShdPnd); 0 where /proc cannot be read.</summary>
    private static ulong SharedPending()
    {
        foreach (var line in s_status?.Lines() ?? [])
        {
            if (line.StartsWith("ShdPnd:", StringComparison.Ordinal))
                return ulong.Parse(line.AsSpan(7).Trim(), System.Globalization.NumberStyles.HexNumber, System.Globalization.CultureInfo.InvariantCulture);
        }

        return 0;
    }

    /// <summary>Ends the process as if by the signal: whoever waits for it sees that in its status. A core is written where the limits allow one, as natively.</summary>
    public static void DieBy(int signal)
    {
        if (signal is not (Signal.SIGKILL or Signal.SIGSTOP))
            KernelSigaction.Set(signal, default);
        ulong set = 1UL << (signal - 1);
        HostSyscall.RawQuick(HostCallNumber.RtSigprocmask, 1, (ulong)&set, 0, 8);
        HostSyscall.Raw(HostCallNumber.Kill, (ulong)Environment.ProcessId, (ulong)signal);
        // Still here as pid 1 of a container, which no signal kills by default: end with the status a shell would report.
        Thread.Sleep(100);
        HostSyscall.Raw(231, (ulong)(128 + signal));
    }

    /// <summary>
    /// The action for a signal of faults, with the stack and the mask of the one that was there before: the runtime's handler may never return, but go on in
    /// the code that catches the exception. (A kick that hits this handler is repeated: <see cref="SafeSyscall"/>.)
    /// </summary>
    private static KernelSigaction ForFault(KernelSigaction own) => own with
    {
        Handler = s_faultHandler,
        Flags = own.Flags & KernelSigaction.SaOnstack | KernelSigaction.SaSiginfo | KernelSigaction.SaRestart | KernelSigaction.SaRestorer,
        Restorer = s_restorer,
    };

    private static void AssembleHandler()
    {
        var c = new Assembler(64);
        Label handler = c.CreateLabel(), retry = c.CreateLabel(), full = c.CreateLabel(), wake = c.CreateLabel(), restorer = c.CreateLabel();
        Label faultHandler = c.CreateLabel(), own = c.CreateLabel(), byDefault = c.CreateLabel();
        Label spareHandler = c.CreateLabel(), notByThread = c.CreateLabel(), foreign = c.CreateLabel(), kick = c.CreateLabel(), redirect = c.CreateLabel(), leave = c.CreateLabel();

        // The spare kick: from a thread of this process, or without details because the queue is full (then the kernel says SI_USER, process 0). All else is the
        // program's.
        c.Label(ref spareHandler);
        c.mov(eax, __dword_ptr[rsi + SiCode]);
        c.cmp(eax, SignalInfo.SI_TKILL);
        c.jne(notByThread);
        c.cmp(__dword_ptr[rsi + SiProcess], Environment.ProcessId);
        c.je(kick);
        c.jmp(foreign);
        c.Label(ref notByThread);
        c.test(eax, eax);
        c.jne(foreign);
        c.cmp(__dword_ptr[rsi + SiProcess], 0);
        c.jne(foreign);
        c.Label(ref kick);
        c.mov(rax, (ulong)SafeSyscall.Handler);
        c.jmp(rax);
        c.Label(ref foreign);
        c.mov(r8, (ulong)s_ring);
        c.mov(eax, __dword_ptr[r8 + SpareDispositionOffset]);
        c.cmp(eax, (int)HostDisposition.Forward);
        c.je(handler);
        c.cmp(eax, (int)HostDisposition.Default);
        c.je(byDefault);
        c.ret();

        // The same for the signals of faults. What another process has sent is the program's; the rest goes to the handler that was there before, with all
        // its arguments.
        c.Label(ref faultHandler);
        c.cmp(__dword_ptr[rsi + SiCode], 0);
        c.jg(own); // si_code above 0: from the kernel.
        c.cmp(__dword_ptr[rsi + SiProcess], Environment.ProcessId);
        c.jne(handler);
        c.Label(ref own);
        c.mov(r8, (ulong)s_ring);
        c.mov(eax, edi);
        c.mov(rax, __qword_ptr[r8 + rax * 8 + OwnHandlersOffset]);
        c.cmp(rax, (int)KernelSigaction.Ignore);
        c.jbe(byDefault);
        c.jmp(rax);
        // There was none: the default, which ends the process by the same signal as soon as this handler lets it through.
        c.Label(ref byDefault);
        c.mov(r9d, edi);
        c.push(0); // struct sigaction: handler, flags, restorer, mask
        c.push(0);
        c.push(0);
        c.push(0);
        c.mov(rsi, rsp);
        c.xor(edx, edx);
        c.mov(r10d, 8);
        c.mov(eax, (int)HostCallNumber.RtSigaction);
        c.syscall();
        c.mov(edi, Environment.ProcessId);
        c.mov(esi, r9d);
        c.mov(eax, (int)HostCallNumber.Kill);
        c.syscall();
        c.add(rsp, 32);
        c.ret();

        // void handler(int signal, siginfo_t* info, ucontext_t* context)
        c.Label(ref handler);
        c.mov(edx, edi);
        c.mov(r8, (ulong)s_ring);
        // The count first: whoever has set the thread to redirect to waits for those who may not have seen it.
        c.@lock.inc(__dword_ptr[r8 + InsideOffset]);
        c.mov(eax, __dword_ptr[r8 + RedirectOffset]);
        c.test(eax, eax);
        c.jne(redirect);
        c.Label(ref retry);
        c.mov(rax, __qword_ptr[r8 + HeadOffset]);
        c.mov(ecx, eax);
        c.and(ecx, Slots - 1);
        c.shl(ecx, SlotShift);
        c.lea(r9, __[r8 + rcx + SlotsOffset]);
        c.mov(r10, __qword_ptr[r9]);
        c.cmp(r10, rax);
        c.jl(full);
        c.jne(retry);
        c.lea(r11, __[rax + 1]);
        c.@lock.cmpxchg(__qword_ptr[r8 + HeadOffset], r11);
        c.jne(retry);
        c.lea(rdi, __[r9 + 8]);
        c.mov(ecx, SignalInfo.Size / 8);
        c.rep.movsq();
        c.mov(__qword_ptr[r9], r11); // A store after a string operation is seen after all of it (Intel SDM vol. 3, 9.2.4).
        c.jmp(wake);
        c.Label(ref full); // Remembered without details.
        c.dec(edx);
        c.@lock.bts(__qword_ptr[r8 + OverflowOffset], rdx);
        c.Label(ref wake);
        c.mov(eax, (int)HostCallNumber.Write);
        c.mov(edi, __dword_ptr[r8 + EventOffset]);
        c.lea(rsi, __[r8 + OneOffset]);
        c.mov(edx, 8);
        c.syscall(); // Raw: errno of the interrupted code stays as it is.
        c.Label(ref leave);
        c.@lock.dec(__dword_ptr[r8 + InsideOffset]);
        c.ret();
        // The process is about to be replaced: the signal waits for that on the thread that does it.
        c.Label(ref redirect);
        c.movzx(ecx, __word_ptr[rsi + SiCode]);
        c.or(ecx, InTransit << 16);
        c.mov(__dword_ptr[rsi + SiErrno], ecx);
        c.mov(__dword_ptr[rsi + SiCode], SignalInfo.SI_QUEUE);
        c.mov(r10, rsi);
        c.mov(esi, eax);
        c.mov(edi, Environment.ProcessId);
        c.mov(eax, (int)HostCallNumber.RtTgsigqueueinfo);
        c.syscall();
        c.jmp(leave);
        c.Label(ref restorer);
        c.mov(eax, (int)HostCallNumber.RtSigreturn);
        c.syscall();
        AssemblerResult result = HostCode.Assemble(c);
        s_handler = result.GetLabelRIP(handler);
        s_faultHandler = result.GetLabelRIP(faultHandler);
        s_spareHandler = result.GetLabelRIP(spareHandler);
        s_restorer = result.GetLabelRIP(restorer);
    }

    private static void Dispatch(Action<int, SignalInfo> dispatch)
    {
        // This thread takes every signal, whatever mask the process was started with.
        ulong none = 0;
        HostSyscall.RawQuick(HostCallNumber.RtSigprocmask, 2, (ulong)&none, 0, 8);
        while (true)
        {
            ulong count;
            HostSyscall.Raw(HostCallNumber.Read, (ulong)EventDescriptor, (ulong)&count, 8);
            while (TryTake(out SignalInfo info))
            {
                dispatch(info.Number, info);
                Volatile.Write(ref LastDispatched[info.Number], Stopwatch.GetTimestamp());
                Volatile.Write(ref s_dispatched, s_tail);
            }
            ulong overflow = Interlocked.Exchange(ref *(ulong*)(s_ring + OverflowOffset), 0);
            for (int signal = 1; signal <= Signal.Count; signal++)
                if ((overflow >> (signal - 1) & 1) != 0)
                    dispatch(signal, SignalInfo.FromKernel(signal));
        }
    }

    private static bool TryTake(out SignalInfo info)
    {
        byte* slot = s_ring + SlotsOffset + ((s_tail & (Slots - 1)) << SlotShift);
        if (Volatile.Read(ref *(ulong*)slot) != s_tail + 1)
        {
            info = default;
            return false;
        }
        info = Unsafe.ReadUnaligned<SignalInfo>(slot + 8);
        Volatile.Write(ref *(ulong*)slot, s_tail + Slots);
        s_tail++;
        return true;
    }
}
