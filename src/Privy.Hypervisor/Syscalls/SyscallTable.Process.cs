using Privy.Hypervisor.Host;
using static Privy.Hypervisor.Syscalls.SyscallNumber;

namespace Privy.Hypervisor.Syscalls;

public static partial class SyscallTable
{
    private static ArgumentDescription Clock => Value(ValueFormat.Clock);

    private static ArgumentDescription Signal => Value(ValueFormat.Signal);

    private static void DescribeTime(SyscallDescription?[] c)
    {
        Host(c, clock_gettime, Clock, Out(KernelStructSize.Timespec, MemoryFormat.Timespec));
        Host(c, clock_getres, Clock, Out(KernelStructSize.Timespec, MemoryFormat.Timespec));
        Host(c, clock_settime, Clock, TimespecIn);
        Waits(c, clock_nanosleep, Clock, Hex, TimespecIn, TimespecLeft);
        Waits(c, nanosleep, TimespecIn, TimespecLeft);
        Host(c, gettimeofday, Out(KernelStructSize.Timeval, MemoryFormat.Timeval), Out(KernelStructSize.Timezone));
        Host(c, settimeofday, In(KernelStructSize.Timeval, MemoryFormat.Timeval), In(KernelStructSize.Timezone));
        Host(c, time, Out(8, MemoryFormat.Long));
        Host(c, times, Out(KernelStructSize.Tms));
        Host(c, adjtimex, InOut(KernelStructSize.Timex));
        Host(c, clock_adjtime, Clock, InOut(KernelStructSize.Timex));
    }

    /// <summary>What a process is and may do, and where it runs.</summary>
    private static void DescribeIdentity(SyscallDescription?[] c)
    {
        Host(c, uname, Out(KernelStructSize.Utsname));
        Host(c, sysinfo, Out(KernelStructSize.Sysinfo));
        Host(c, getrlimit, Value(ValueFormat.Resource), Out(KernelStructSize.Rlimit, MemoryFormat.Limit));
        Host(c, setrlimit, Value(ValueFormat.Resource), In(KernelStructSize.Rlimit, MemoryFormat.Limit));
        Host(c, prlimit64, Int, Value(ValueFormat.Resource), In(KernelStructSize.Rlimit, MemoryFormat.Limit), Out(KernelStructSize.Rlimit, MemoryFormat.Limit));
        Host(c, getrusage, Int, Out(KernelStructSize.Rusage));
        Host(c, getpriority, Int, Int);
        Host(c, setpriority, Int, Int, Int);
        Host(c, ioprio_get, Int, Int);
        Host(c, ioprio_set, Int, Int, Int);
        Host(c, getcpu, Out(4, MemoryFormat.Int), Out(4, MemoryFormat.Int));
        Host(c, getrandom, DataOut(1), Size, Value(ValueFormat.RandomFlags));
        Host(c, personality, Hex);

        // The kernel keeps credentials per thread; that a process changes them as one is glibc's doing: it makes every thread
        // call the raw setter (SIGSETXID). Each program thread has a host thread, so passing the call through gives the same.
        Host(c, getuid);
        Host(c, getgid);
        Host(c, geteuid);
        Host(c, getegid);
        Host(c, setuid, Int);
        Host(c, setgid, Int);
        Host(c, setreuid, Int, Int);
        Host(c, setregid, Int, Int);
        Host(c, setresuid, Int, Int, Int);
        Host(c, setresgid, Int, Int, Int);
        Host(c, getresuid, Out(4, MemoryFormat.Int), Out(4, MemoryFormat.Int), Out(4, MemoryFormat.Int));
        Host(c, getresgid, Out(4, MemoryFormat.Int), Out(4, MemoryFormat.Int), Out(4, MemoryFormat.Int));
        Host(c, setfsuid, Int);
        Host(c, setfsgid, Int);
        Host(c, getgroups, Int, ElementsOut(0, 4, 4 * 65536, MemoryFormat.IntArray));
        Host(c, setgroups, Int, BufferIn(0, LengthSource.IntArgument, 4 * 65536, 4, MemoryFormat.IntArray));
        Host(c, capget, InOut(KernelStructSize.CapHeader), Out(KernelStructSize.CapData));
        Host(c, capset, InOut(KernelStructSize.CapHeader), In(KernelStructSize.CapData));

        Host(c, sched_yield);
        Host(c, sched_getaffinity, Int, Size, BytesOut(1, LengthSource.IntArgument, 8192));
        Host(c, sched_setaffinity, Int, Size, BufferIn(1, LengthSource.IntArgument, 1 << 20));
        Host(c, sched_getparam, Int, Out(KernelStructSize.SchedParam, MemoryFormat.Int));
        Host(c, sched_setparam, Int, In(KernelStructSize.SchedParam, MemoryFormat.Int));
        Host(c, sched_getscheduler, Int);
        Host(c, sched_setscheduler, Int, Int, In(KernelStructSize.SchedParam, MemoryFormat.Int));
        Host(c, sched_get_priority_max, Int);
        Host(c, sched_get_priority_min, Int);
        Host(c, sched_rr_get_interval, Int, Out(KernelStructSize.Timespec, MemoryFormat.Timespec));
        Host(c, sched_getattr, Int, new ArgumentDescription(ArgumentKind.Out) { Size = 1, Length = LengthSource.IntArgument, LengthArgument = 2, Limit = 4096 }, Int, Hex);
        // The kernel writes the size it knows when the program's is too large.
        Host(c, sched_setattr, Int, new ArgumentDescription(ArgumentKind.InOut) { Size = KernelStructSize.SchedAttr, Length = LengthSource.FirstWord, Limit = 4096 }, Hex);

        Add(c, new SyscallDescription(prctl, nameof(prctl), SyscallRoute.Host, [Value(ValueFormat.PrctlOption), Hex, Hex, Hex, Hex])
        {
            CommandArgument = 0, VariantTable = CreatePrctlOptions(),
        });
    }

    /// <summary>
    /// prctl options. Most belong to the thread and reach the host thread that carries it; what belongs to the process would change
    /// the hypervisor and every snapshot, and is answered here.
    /// </summary>
    private static Dictionary<uint, SyscallDescription> CreatePrctlOptions()
    {
        var variants = new Dictionary<uint, SyscallDescription>();
        var option = Value(ValueFormat.PrctlOption);

        void Pass(uint value, params ReadOnlySpan<ArgumentDescription> arguments) =>
            variants.Add(value, Variant(prctl, SyscallRoute.Host, [option, .. arguments]));
        void Answer(uint value, long result) =>
            variants.Add(value, new SyscallDescription(prctl, nameof(prctl), SyscallRoute.Constant, [option, Hex]) { Constant = result });

        Pass(1, Signal);                             // PR_SET_PDEATHSIG (in a snapshot: SyscallDispatcher)
        Pass(2, Out(4, MemoryFormat.Int));           // PR_GET_PDEATHSIG
        Pass(3);                                     // PR_GET_DUMPABLE
        Pass(4, Int);                                // PR_SET_DUMPABLE (in a snapshot: SyscallDispatcher)
        Pass(7);                                     // PR_GET_KEEPCAPS
        Pass(8, Int);                                // PR_SET_KEEPCAPS
        Pass(13);                                    // PR_GET_TIMING
        Pass(14, Int);                               // PR_SET_TIMING
        Pass(15, Text(16));                          // PR_SET_NAME, cut after 15 characters
        Pass(16, Out(16, MemoryFormat.Text));        // PR_GET_NAME
        Pass(21);                                    // PR_GET_SECCOMP
        Answer(22, -Errno.EINVAL);                   // PR_SET_SECCOMP: the filter would also judge the hypervisor's KVM_RUN
        Pass(23, Int);                               // PR_CAPBSET_READ
        Pass(24, Int);                               // PR_CAPBSET_DROP
        Pass(25, Out(4, MemoryFormat.Int));          // PR_GET_TSC
        Answer(26, -Errno.EINVAL);                   // PR_SET_TSC
        Pass(27);                                    // PR_GET_SECUREBITS
        Pass(28, Hex);                               // PR_SET_SECUREBITS
        Pass(29, Long);                              // PR_SET_TIMERSLACK
        Pass(30);                                    // PR_GET_TIMERSLACK
        Answer(33, -Errno.EINVAL);                   // PR_MCE_KILL
        Pass(34, Hex, Hex, Hex, Hex);                // PR_MCE_KILL_GET
        Answer(35, -Errno.EPERM);                    // PR_SET_MM
        Answer(36, -Errno.EINVAL);                   // PR_SET_CHILD_SUBREAPER: orphans would go to the hypervisor
        Answer(37, -Errno.EINVAL);                   // PR_GET_CHILD_SUBREAPER
        Pass(38, Hex, Hex, Hex, Hex);                // PR_SET_NO_NEW_PRIVS
        Pass(39, Hex, Hex, Hex, Hex);                // PR_GET_NO_NEW_PRIVS
        Answer(40, -Errno.EINVAL);                   // PR_GET_TID_ADDRESS: the host's would be meaningless
        // Redis turns huge pages off because Linux copies them whole on write. A snapshot copies 4 KB whatever the mapping, and
        // without huge pages the page tables of a snapshot would be 512 times larger: accept and keep them on.
        Answer(41, 0);                               // PR_SET_THP_DISABLE
        Answer(42, 0);                               // PR_GET_THP_DISABLE
        Pass(47, Hex, Hex, Hex, Hex);                // PR_CAP_AMBIENT
        Pass(52, Hex, Hex, Hex, Hex);                // PR_GET_SPECULATION_CTRL
        Pass(53, Hex, Hex, Hex, Hex);                // PR_SET_SPECULATION_CTRL
        Answer(57, -Errno.EINVAL);                   // PR_SET_IO_FLUSHER
        Answer(58, -Errno.EINVAL);                   // PR_GET_IO_FLUSHER
        Answer(59, -Errno.EINVAL);                   // PR_SET_SYSCALL_USER_DISPATCH
        Answer(62, -Errno.EINVAL);                   // PR_SCHED_CORE
        Answer(65, -Errno.EINVAL);                   // PR_SET_MDWE
        Answer(66, 0);                               // PR_GET_MDWE
        Answer(67, -Errno.EINVAL);                   // PR_SET_MEMORY_MERGE: would merge the hypervisor's pages
        Answer(68, 0);                               // PR_GET_MEMORY_MERGE
        Answer(0x53564d41, -Errno.EINVAL);           // PR_SET_VMA: names split the host's mappings; kernels without the feature say this
        Answer(0x59616d61, 0);                       // PR_SET_PTRACER
        return variants;
    }

    /// <summary>Calls the hypervisor carries out; the arguments are described for the trace.</summary>
    private static void DescribeHandled(SyscallDescription?[] c)
    {
        var protection = Value(ValueFormat.Protection);
        var status = Out(4, MemoryFormat.Int);
        var usage = Out(KernelStructSize.Rusage);
        var signalSet = In(8, MemoryFormat.SignalSet);

        Handled(c, mmap, Hex, Size, protection, Value(ValueFormat.MapFlags), Fd, Hex);
        Handled(c, munmap, Hex, Size);
        Handled(c, mremap, Hex, Size, Size, Hex, Hex);
        Handled(c, mprotect, Hex, Size, protection);
        Handled(c, pkey_mprotect, Hex, Size, protection, Int);
        Handled(c, madvise, Hex, Size, Value(ValueFormat.MemoryAdvice));
        Handled(c, process_madvise, Fd, Hex, Size, Value(ValueFormat.MemoryAdvice), Hex);
        Handled(c, brk, Hex);
        Handled(c, msync, Hex, Size, Hex);
        Handled(c, mincore, Hex, Size, Hex);
        Handled(c, mlock, Hex, Size);
        Handled(c, mlock2, Hex, Size, Hex);
        Handled(c, munlock, Hex, Size);
        Handled(c, mlockall, Hex);
        Handled(c, munlockall);
        Handled(c, mseal, Hex, Size, Hex);

        Handled(c, clone, Value(ValueFormat.CloneFlags), Hex, Hex, Hex, Hex);
        Handled(c, fork);
        Handled(c, vfork);
        Handled(c, execve, Path, In(8, MemoryFormat.StringArray), Hex);
        Handled(c, execveat, Fd, Path, In(8, MemoryFormat.StringArray), Hex, AtFlags);
        Handled(c, exit, Int);
        Handled(c, exit_group, Int);
        Handled(c, wait4, Int, status, Value(ValueFormat.WaitOptions), usage);
        Handled(c, waitid, Int, Int, Out(128), Value(ValueFormat.WaitOptions), usage);

        Handled(c, futex, Hex, Value(ValueFormat.FutexOperation), Int, Hex, Hex, Int);
        Handled(c, futex_waitv, Hex, Int, Hex, In(KernelStructSize.Timespec, MemoryFormat.Timespec), Clock);
        Handled(c, futex_wake, Hex, Hex, Int, Hex);
        Handled(c, futex_wait, Hex, Hex, Hex, Hex, In(KernelStructSize.Timespec, MemoryFormat.Timespec), Clock);
        Handled(c, futex_requeue, Hex, Hex, Int, Int);
        Handled(c, membarrier, Int, Hex, Int);
        Handled(c, arch_prctl, Value(ValueFormat.ArchOption), Hex);
        Handled(c, set_tid_address, Hex);
        Handled(c, gettid);
        Handled(c, getpid);
        Handled(c, getppid);
        Handled(c, setpgid, Int, Int);
        Handled(c, getpgid, Int);
        Handled(c, getpgrp);
        Handled(c, setsid);
        Handled(c, getsid, Int);

        Handled(c, kill, Int, Signal);
        Handled(c, tkill, Int, Signal);
        Handled(c, tgkill, Int, Int, Signal);
        Handled(c, rt_sigaction, Signal, In(KernelStructSize.SigAction, MemoryFormat.SignalAction), Out(KernelStructSize.SigAction, MemoryFormat.SignalAction), Size);
        Handled(c, rt_sigprocmask, Value(ValueFormat.SignalAction), signalSet, Out(8, MemoryFormat.SignalSet), Size);
        Handled(c, rt_sigreturn);
        Handled(c, rt_sigpending, Out(8, MemoryFormat.SignalSet), Size);
        Handled(c, rt_sigtimedwait, signalSet, Out(128), TimespecIn, Size);
        Handled(c, rt_sigqueueinfo, Int, Signal, Hex);
        Handled(c, rt_tgsigqueueinfo, Int, Int, Signal, Hex);
        Handled(c, rt_sigsuspend, signalSet, Size);
        Handled(c, sigaltstack, Hex, Hex);
        Handled(c, pause);
        Handled(c, signalfd, Fd, signalSet, Size);
        Handled(c, signalfd4, Fd, signalSet, Size, CreateFlags);

        Handled(c, setitimer, Int, Hex, Hex);
        Handled(c, getitimer, Int, Hex);
        Handled(c, alarm, Int);
        Handled(c, timer_create, Clock, Hex, Hex);
        Handled(c, timer_settime, Int, Hex, Hex, Hex);
        Handled(c, timer_gettime, Int, Hex);
        Handled(c, timer_getoverrun, Int);
        Handled(c, timer_delete, Int);

        Handled(c, pidfd_open, Int, Hex);
        Handled(c, pidfd_send_signal, Fd, Signal, Hex, Hex);
        Handled(c, pidfd_getfd, Fd, Int, Hex);

        Handled(c, shmget, Hex, Size, Hex);
        Handled(c, shmat, Int, Hex, Hex);
        Handled(c, shmdt, Hex);
        Handled(c, shmctl, Int, Int, Hex);
    }

    private static void DescribeConstants(SyscallDescription?[] c)
    {
        // glibc probes these and falls back in silence.
        Constant(c, clone3, -Errno.ENOSYS);
        // The kernel writes the CPU number into the program's memory at every preemption (rule 3).
        Constant(c, rseq, -Errno.ENOSYS);
        // Until the hypervisor registers its own: the list must never reach the host kernel, which would write to the program's memory when the thread ends.
        Constant(c, set_robust_list, 0);
        Constant(c, get_robust_list, -Errno.ENOSYS);

        // Programs probe these and have another way.
        Constant(c, pkey_alloc, -Errno.ENOSYS);
        Constant(c, pkey_free, -Errno.ENOSYS);
        Constant(c, landlock_create_ruleset, -Errno.ENOSYS);
        Constant(c, memfd_secret, -Errno.ENOSYS);
        Constant(c, get_mempolicy, -Errno.ENOSYS);
    }
}
