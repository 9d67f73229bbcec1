using System.Runtime.InteropServices;
using Iced.Intel;
using Privy.Hypervisor.Signals;
using Privy.Hypervisor.Syscalls;
using static Iced.Intel.AssemblerRegisters;

namespace Privy.Hypervisor.Host;

/// <summary>A system call that the new process makes before <c>execve</c>; a failure ends it with that error.</summary>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct SpawnAction(long Number, ulong A0 = 0, ulong A1 = 0, ulong A2 = 0, ulong A3 = 0, ulong A4 = 0, ulong A5 = 0)
{
    /// <summary><c>setpgid(0, group)</c>; 0 makes a group of its own.</summary>
    public static SpawnAction SetProcessGroup(int group) => new(HostCallNumber.Setpgid, 0, (ulong)group);

    /// <summary><c>setsid()</c>.</summary>
    public static SpawnAction NewSession() => new(HostCallNumber.Setsid);

    /// <summary><c>prctl(PR_SET_PDEATHSIG, signal)</c>. The parent in its sense is the spawning <em>thread</em>.</summary>
    public static SpawnAction DieWithParent(int signal) => new(HostCallNumber.Prctl, 1, (ulong)signal);
}

/// <summary>
/// Starts a native process from the calling host thread: with that thread's descriptors, working directory and umask, which a forked child of the program has
/// to itself. Between <c>clone</c> and <c>execve</c> the new process shares the memory with the runtime, so it runs a few instructions of machine code only.
/// </summary>
public static unsafe class NativeSpawn
{
    [StructLayout(LayoutKind.Sequential)]
    private struct Block
    {
        internal byte* Path;
        internal byte** Arguments;
        internal byte** Environment;
        internal SpawnAction* Actions;
        internal long ActionCount;
        internal ulong Mask;
        internal ulong Ignored;
        internal long Error;
        internal ulong AllSignals;
        internal ulong OldMask;
        internal byte* StackTop;
        internal KernelSigaction DefaultAction;
        internal KernelSigaction IgnoreAction;
        internal CloneArguments* CloneArguments;

        /// <summary>Not 0 once the new process may execute its program.</summary>
        internal int Go;

        /// <summary>Cleared by the kernel when the new process leaves this memory (CLONE_CHILD_CLEARTID).</summary>
        internal int Here;
    }

    /// <summary><c>struct clone_args</c> (linux/sched.h).</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct CloneArguments
    {
        internal ulong Flags, Pidfd, ChildTid, ParentTid, ExitSignal, Stack, StackSize, Tls;
        internal int* SetTid;
        internal ulong SetTidSize, Cgroup;
    }

    private const int OPath = 0, OArguments = 8, OEnvironment = 16, OActions = 24, OCount = 32, OMask = 40, OIgnored = 48, OError = 56,
        OAllSignals = 64, OOldMask = 72, OStack = 80, ODefault = 88, OIgnore = 120, OCloneArguments = 152, OGo = 160, OHere = 164;

    private const int CloneFlags = 0x100 | 0x200000; // CLONE_VM | CLONE_CHILD_CLEARTID
    private const int FutexWait = 0, FutexWake = 1;

    private static readonly delegate* unmanaged<Block*, long> Stub = Assemble();

    /// <summary>
    /// False without the right to choose the id of a new process, CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN, or once the kernel has refused: it has learned that with Linux 5.5.
    /// </summary>
    public static bool CanChooseId { get; private set; } = HasRightToChooseId();

    /// <summary>Whether the calling thread has the right; the kernel's own word comes with the first attempt.</summary>
    private static bool HasRightToChooseId()
    {
        const long capget = 125;
        const uint version = 0x2008_0522;
        const int administrator = 21, checkpointRestore = 40;
        // struct __user_cap_header_struct: version, process; struct __user_cap_data_struct, twice: effective, permitted, inheritable.
        var header = stackalloc uint[2];
        var data = stackalloc uint[6];
        (header[0], header[1]) = (version, 0);
        if (HostSyscall.RawQuick(capget, (ulong)header, (ulong)data) != 0)
            return true;
        var effective = data[0] | (ulong)data[3] << 32;
        return (effective & (1UL << administrator | 1UL << checkpointRestore)) != 0;
    }

    /// <summary>Starts a program. Handlers do not survive; the signals in <paramref name="ignored"/> are ignored in it, all others have their default action.</summary>
    /// <returns>The process id, or a negative error number of an action or of <c>execve</c>; then no process is left.</returns>
    public static long Spawn(ReadOnlySpan<byte> path, IReadOnlyList<byte[]> arguments, IReadOnlyList<byte[]> environment, SignalSet mask, SignalSet ignored,
        params ReadOnlySpan<SpawnAction> actions) => Spawn(path, arguments, environment, mask, ignored, 0, null, actions);

    /// <summary>Starts a program under a given process id, once that is free, where <see cref="CanChooseId"/>.</summary>
    /// <param name="path">The file.</param>
    /// <param name="arguments">Its arguments.</param>
    /// <param name="environment">Its environment.</param>
    /// <param name="mask">What it blocks.</param>
    /// <param name="ignored">What it ignores.</param>
    /// <param name="id">The id; 0: any.</param>
    /// <param name="made">Called with the id when there is the process, with all signals blocked, after the actions or before: it executes the program when this has returned.</param>
    /// <param name="actions">What it does before.</param>
    /// <returns>The process id, or a negative error number of an action or of <c>execve</c>; then no process is left.</returns>
    public static long Spawn(ReadOnlySpan<byte> path, IReadOnlyList<byte[]> arguments, IReadOnlyList<byte[]> environment, SignalSet mask, SignalSet ignored,
        int id, Action<int>? made, ReadOnlySpan<SpawnAction> actions)
    {
        ArgumentNullException.ThrowIfNull(arguments);
        ArgumentNullException.ThrowIfNull(environment);
        const int StackLength = 4096;
        using var argv = new NativeStrings(arguments);
        using var envp = new NativeStrings(environment);
        using var name = new NativeStrings([path.ToArray()]);
        byte* memory = (byte*)NativeMemory.AlignedAlloc((nuint)(StackLength + sizeof(Block) + actions.Length * sizeof(SpawnAction)), 64);
        try
        {
            // The new process pushes nothing, but must not run on this thread's stack. Signals stay blocked in it until after all handlers are gone.
            var block = (Block*)(memory + StackLength);
            var list = (SpawnAction*)(block + 1);
            actions.CopyTo(new Span<SpawnAction>(list, actions.Length));
            *block = new Block
            {
                Path = name.Array[0],
                Arguments = argv.Array,
                Environment = envp.Array,
                Actions = list,
                ActionCount = actions.Length,
                Mask = mask.Bits,
                Ignored = ignored.Bits,
                AllSignals = ulong.MaxValue,
                StackTop = (byte*)block,
                IgnoreAction = new KernelSigaction { Handler = KernelSigaction.Ignore },
                Here = 1,
            };
            var cloneArguments = new CloneArguments
            {
                Flags = CloneFlags, ExitSignal = Signal.SIGCHLD, ChildTid = (ulong)(&block->Here), Stack = (ulong)memory, StackSize = StackLength, SetTid = &id, SetTidSize = 1,
            };
            if (id > 0 && CanChooseId)
                block->CloneArguments = &cloneArguments;
            long pid;
            // EEXIST: whoever had the id has not quite gone.
            for (int attempt = 0; (pid = Stub(block)) < 0 && block->CloneArguments != null; attempt++)
            {
                const int MostAttempts = 20_000;
                if (pid == -Errno.EEXIST && attempt < MostAttempts)
                {
                    Thread.Sleep(TimeSpan.FromMicroseconds(attempt < 10 ? 0 : 100));
                    continue;
                }
                CanChooseId &= pid == -Errno.EEXIST;
                block->CloneArguments = null;
            }
            if (pid < 0)
                return pid;
            try
            {
                made?.Invoke((int)pid);
            }
            finally
            {
                Volatile.Write(ref block->Go, 1);
                HostSyscall.RawQuick(SyscallNumber.futex, (ulong)(&block->Go), FutexWake, 1);
                while (Volatile.Read(ref block->Here) != 0)
                    HostSyscall.Raw(SyscallNumber.futex, (ulong)(&block->Here), FutexWait, 1);
            }
            if (block->Error == 0)
                return pid;
            // The process that failed to become the program is nobody's child.
            while (HostSyscall.Raw(61, (ulong)pid, 0, 0, 0) == -Errno.EINTR)
            {
            }
            return block->Error;
        }
        finally
        {
            NativeMemory.AlignedFree(memory);
        }
    }

    private static delegate* unmanaged<Block*, long> Assemble()
    {
        var c = new Assembler(64);
        Label entry = c.CreateLabel(), child = c.CreateLabel(), signals = c.CreateLabel(), set = c.CreateLabel();
        Label legacy = c.CreateLabel(), cloned = c.CreateLabel();
        Label actions = c.CreateLabel(), exec = c.CreateLabel(), go = c.CreateLabel(), fail = c.CreateLabel();

        void Mask(int setOffset, int? oldOffset)
        {
            c.mov(edi, 2); // SIG_SETMASK
            c.lea(rsi, __[rbx + setOffset]);
            if (oldOffset is { } offset)
                c.lea(rdx, __[rbx + offset]);
            else
                c.xor(edx, edx);
            c.mov(r10d, 8);
            c.mov(eax, (int)HostCallNumber.RtSigprocmask);
            c.syscall();
        }

        c.Label(ref entry);
        c.push(rbx);
        c.push(r12);
        c.mov(rbx, rdi);
        Mask(OAllSignals, OOldMask);
        c.mov(rdi, __qword_ptr[rbx + OCloneArguments]);
        c.test(rdi, rdi);
        c.je(legacy);
        c.mov(esi, sizeof(CloneArguments));
        c.mov(eax, (int)HostCallNumber.Clone3);
        c.syscall();
        c.jmp(cloned);
        c.Label(ref legacy);
        c.mov(edi, CloneFlags | Signal.SIGCHLD);
        c.mov(rsi, __qword_ptr[rbx + OStack]);
        c.xor(edx, edx);
        c.lea(r10, __[rbx + OHere]);
        c.xor(r8d, r8d);
        c.mov(eax, (int)HostCallNumber.Clone);
        c.syscall();
        c.Label(ref cloned);
        c.test(rax, rax);
        c.je(child);
        c.mov(r12, rax);
        Mask(OOldMask, null);
        c.mov(rax, r12);
        c.pop(r12);
        c.pop(rbx);
        c.ret();

        c.Label(ref child);
        c.mov(r12d, 1);
        c.Label(ref signals);
        c.lea(rsi, __[rbx + ODefault]);
        c.mov(rax, __qword_ptr[rbx + OIgnored]);
        c.lea(ecx, __[r12 - 1]);
        c.bt(rax, rcx);
        c.jae(set);
        c.lea(rsi, __[rbx + OIgnore]);
        c.Label(ref set);
        c.mov(edi, r12d);
        c.xor(edx, edx);
        c.mov(r10d, 8);
        c.mov(eax, (int)HostCallNumber.RtSigaction); // EINVAL for SIGKILL and SIGSTOP
        c.syscall();
        c.inc(r12d);
        c.cmp(r12d, Signal.Count);
        c.jbe(signals);

        c.mov(r12, __qword_ptr[rbx + OActions]);
        c.Label(ref actions);
        c.sub(__qword_ptr[rbx + OCount], 1);
        c.js(exec);
        c.mov(rax, __qword_ptr[r12]);
        c.mov(rdi, __qword_ptr[r12 + 8]);
        c.mov(rsi, __qword_ptr[r12 + 16]);
        c.mov(rdx, __qword_ptr[r12 + 24]);
        c.mov(r10, __qword_ptr[r12 + 32]);
        c.mov(r8, __qword_ptr[r12 + 40]);
        c.mov(r9, __qword_ptr[r12 + 48]);
        c.syscall();
        c.test(rax, rax);
        c.js(fail);
        c.add(r12, sizeof(SpawnAction));
        c.jmp(actions);

        c.Label(ref exec);
        c.cmp(__dword_ptr[rbx + OGo], 0);
        c.jne(go);
        c.lea(rdi, __[rbx + OGo]);
        c.mov(esi, FutexWait);
        c.xor(edx, edx);
        c.xor(r10d, r10d);
        c.mov(eax, (int)SyscallNumber.futex);
        c.syscall();
        c.jmp(exec);
        c.Label(ref go);
        Mask(OMask, null);
        c.mov(rdi, __qword_ptr[rbx + OPath]);
        c.mov(rsi, __qword_ptr[rbx + OArguments]);
        c.mov(rdx, __qword_ptr[rbx + OEnvironment]);
        c.mov(eax, (int)HostCallNumber.Execve);
        c.syscall();
        c.Label(ref fail);
        c.mov(__qword_ptr[rbx + OError], rax);
        c.mov(edi, 127);
        c.mov(eax, (int)HostCallNumber.Exit);
        c.syscall();
        c.ud2();

        return (delegate* unmanaged<Block*, long>)HostCode.Assemble(c).GetLabelRIP(entry);
    }
}
