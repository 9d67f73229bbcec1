/* Random system calls with random arguments: `fuzz SEED COUNT THREADS`. Half are made by threads of the program itself, half by forked children.
 * For Privy alone: what it refuses (mount, reboot, ...) must not reach a kernel that would do it, so some calls are left out to be sure of that.
 * Raw system calls and no stack protector: a call may have taken the thread's FS base away. */
#define TESTLIB_NO_MAIN
#include "testlib.h"
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#define ARENA (4UL << 20)
#define MAX_THREADS 8

static unsigned char *arena, *read_only, *no_access;
static const char *const safe_paths[] = { "f1", "f2", "f3", "d1/f4", "d1", "", "no/such/file" };
static const char *const read_paths[] = { "f1", "f2", ".", "/proc/self/fd/5", "/proc/self/maps", "/proc/self/exe", "/proc/self/status", "/proc/thread-self/exe", "/dev/fd/4", "/proc/self/smaps_rollup", "" };
static int stop;
static struct worker { uint64_t random, calls; pid_t tid; pthread_t thread; uint64_t goal; } workers[MAX_THREADS];

static long raw(long n, long a, long b, long c, long d, long e, long f)
{
    long r;
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
    return r;
}

static uint64_t next(uint64_t *r) { return *r = mix(*r); }

static long outside(uint64_t *r)
{
    static const uint64_t places[] = {
        0, 1, 0x1000, 0x080000000000, 0x080000100000, 0x080000200000, 0x080000210000, 0x080004800000, 0x080008000000, 0x087800000000, 0x087800000800, 0x088000000000,
        0x0a0000000000, 0x0fffffff0000, 0x0fffffffe000, 0x300000000000, 0x555555554000, 0x7ffff7fc0000, 0x7fffffffe000, 0x7fffffffefff, 0x7ffffffff000,
        0x7fffffffffff, 0x800000000000, 0xffff800000000000, 0xffffffff80000000, 0xffffffffff600000, 0xfffffffffffff000, 0xffffffffffffffff,
    };
    uint64_t at = places[next(r) % (sizeof places / sizeof *places)];
    return (long)(next(r) % 3 ? at : at + next(r) % 0x20000 - 0x10000);
}

static long pointer(uint64_t *r)
{
    switch (next(r) % 10) {
    case 0: return 0;
    case 1: case 2: return outside(r);
    case 3: return (long)(read_only + next(r) % PAGE);
    case 4: return (long)(no_access + next(r) % PAGE);
    case 5: return (long)(arena + ARENA - next(r) % 64);        /* runs past the end */
    default: return (long)(arena + (next(r) % ARENA & ~7UL));
    }
}

static long number(uint64_t *r)
{
    switch (next(r) % 8) {
    case 0: return 0;
    case 1: return -1;
    case 2: return (long)next(r);
    case 3: return (long)(1UL << next(r) % 64);
    case 4: return (long)(next(r) & 0xffffffff);
    case 5: return (long)(next(r) % 100000);
    default: return (long)(next(r) % 32);
    }
}

static long descriptor(uint64_t *r)
{
    static const int odd[] = { -1, -100, 250, 255, 511, 1000, 1023, 1024, 65535, 1048575, 0x7fffffff };
    return next(r) % 4 ? (long)(3 + next(r) % 40) : odd[next(r) % (sizeof odd / sizeof *odd)];
}

static int one_of(long n, const short *list)
{
    for (; *list >= 0; list++)
        if (*list == n)
            return 1;
    return 0;
}

/* Calls that would end the program, replace it, multiply it, hit other processes or the machine, or block signals. */
static const short left_out[] = {
    SYS_exit, SYS_exit_group, SYS_fork, SYS_vfork, SYS_clone, SYS_clone3, SYS_execve, SYS_execveat, SYS_rt_sigreturn, SYS_rt_sigsuspend, SYS_rt_sigaction,
    SYS_kill, SYS_tkill, SYS_tgkill, SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo, SYS_pidfd_send_signal, SYS_shmctl, SYS_shmat, SYS_shmget,
    SYS_semget, SYS_semctl, SYS_semop, SYS_msgget, SYS_msgctl, SYS_msgsnd, SYS_msgrcv, SYS_settimeofday, SYS_clock_settime, SYS_adjtimex, SYS_clock_adjtime,
    SYS_reboot, SYS_mount, SYS_umount2, SYS_pivot_root, SYS_swapon, SYS_swapoff, SYS_sethostname, SYS_setdomainname, SYS_init_module, SYS_delete_module,
    SYS_kexec_load, SYS_iopl, SYS_ioperm, SYS_acct, SYS_quotactl, SYS_syslog, SYS_vhangup, SYS_setns, SYS_unshare, SYS_bpf, SYS_sync, SYS_syncfs,
    SYS_setpriority, SYS_ioprio_set, SYS_sched_setaffinity, SYS_sched_setscheduler, SYS_sched_setparam, SYS_sched_setattr, SYS_setrlimit, SYS_prlimit64,
    SYS_setuid, SYS_setreuid, SYS_setresuid, SYS_setfsuid, SYS_capset, SYS_mlock, SYS_mlock2, SYS_chroot, SYS_chdir, SYS_fchdir, SYS_mq_open, SYS_mq_unlink, -1
};
static const short takes_pid_first[] = { SYS_setpgid, SYS_getpgid, SYS_getsid, SYS_sched_getaffinity, SYS_sched_getparam, SYS_sched_getscheduler, SYS_sched_rr_get_interval, SYS_sched_getattr, SYS_pidfd_open, SYS_get_robust_list, -1 };
static const short changes_paths[] = {
    SYS_unlink, SYS_unlinkat, SYS_rename, SYS_renameat, SYS_renameat2, SYS_link, SYS_linkat, SYS_symlink, SYS_symlinkat, SYS_mkdir, SYS_mkdirat, SYS_rmdir,
    SYS_mknod, SYS_mknodat, SYS_chmod, SYS_fchmodat, SYS_chown, SYS_lchown, SYS_fchownat, SYS_truncate, SYS_utime, SYS_utimes, SYS_futimesat, SYS_utimensat,
    SYS_setxattr, SYS_lsetxattr, SYS_removexattr, SYS_lremovexattr, SYS_creat, SYS_open, SYS_openat, SYS_openat2, SYS_bind, SYS_connect, 452 /* fchmodat2 */, -1
};
static const short reads_paths[] = { SYS_stat, SYS_lstat, SYS_newfstatat, SYS_statx, SYS_statfs, SYS_access, SYS_faccessat, SYS_faccessat2, SYS_readlink, SYS_readlinkat, SYS_getxattr, SYS_lgetxattr, SYS_listxattr, SYS_llistxattr, SYS_inotify_add_watch, -1 };
static const short maps[] = { SYS_mmap, SYS_munmap, SYS_mprotect, SYS_mremap, SYS_madvise, SYS_pkey_mprotect, SYS_msync, SYS_mincore, -1 };

static void one_call(struct worker *w, int in_child)
{
    uint64_t *r = &w->random;
    long n = (long)(next(r) % 463), a[6];
    if (next(r) % 64 == 0)
        n = number(r);
    if (n == 0x50525659 || (n >= 0 && n < 4096 && one_of(n, left_out)))
        return;
    for (int i = 0; i < 6; i++)
        switch (next(r) % 4) {
        case 0: a[i] = number(r); break;
        case 1: a[i] = i == 0 ? descriptor(r) : number(r); break;
        default: a[i] = pointer(r); break;
        }
    if (n >= 0 && next(r) % 3 == 0)
        a[0] = descriptor(r);
    if (one_of(n, changes_paths))
        for (int i = 0; i < 6; i++)
            if (next(r) % 2 || (uint64_t)a[i] - (uint64_t)arena < ARENA)
                a[i] = next(r) % 2 ? (long)safe_paths[next(r) % (sizeof safe_paths / sizeof *safe_paths)] : outside(r);
    if (one_of(n, reads_paths))
        for (int i = 0; i < 2; i++)
            if (next(r) % 2)
                a[i] = (long)read_paths[next(r) % (sizeof read_paths / sizeof *read_paths)];
    if (one_of(n, takes_pid_first))
        a[0] = next(r) % 2 ? 0 : 0x7ffffff0;
    if (one_of(n, maps)) {
        /* in the arena or where nothing is, never over the program itself */
        int inside = next(r) % 3 != 0;
        a[0] = inside ? (long)(arena + next(r) % (ARENA / PAGE / 2) * PAGE) : outside(r);
        a[1] = (long)(next(r) % (inside ? ARENA / 2 : 64 * PAGE));
        if (n == SYS_mmap) {
            a[3] = next(r) % 2 ? MAP_PRIVATE | MAP_ANONYMOUS : (a[3] & 0xff) | MAP_PRIVATE;
            a[3] |= inside ? MAP_FIXED : 0;
            a[3] &= ~(MAP_GROWSDOWN | 0x40000);
            a[4] = descriptor(r);
        }
        if (n == SYS_mremap) {
            a[2] = (long)(next(r) % (ARENA / 2));
            if (a[3] & MREMAP_FIXED)
                a[4] = inside ? (long)(arena + next(r) % (ARENA / PAGE / 2) * PAGE) : outside(r);
        }
    }
    switch (n) {
    case SYS_ppoll: a[3] = 0; break;
    case SYS_pselect6: a[5] = 0; break;
    case SYS_epoll_pwait: case 441 /* epoll_pwait2 */: a[4] = 0; break;
    case SYS_brk: a[0] = outside(r); break;
    case SYS_close_range: a[0] = 50 + (a[0] & 0xff); break;
    case SYS_dup2: case SYS_dup3: if ((unsigned)a[1] < 3) a[1] = 20; break;
    case SYS_close: if ((unsigned)a[0] < 3) a[0] = 21; break;
    case SYS_sigaltstack: if (!in_child) a[0] = 0; break;
    case SYS_alarm: case SYS_setitimer: case SYS_timer_settime: case SYS_timer_create: if (a[1] > 0) a[1] = outside(r); if (a[2] > 0) a[2] = outside(r); if (n == SYS_alarm) a[0] = 0; break;
    case SYS_prctl: if ((a[0] & 0xffffffff) == PR_SET_PDEATHSIG || (a[0] & 0xffffffff) == PR_CAPBSET_DROP || (a[0] & 0xffffffff) == PR_SET_SECUREBITS) a[0] = 999; break;
    case SYS_fcntl: if ((int)a[1] == F_SETOWN || (int)a[1] == 15) a[1] = F_GETFD; break;
    case SYS_ioctl: if ((int)a[1] == 0x8901 || (int)a[1] == 0x8902 || (int)a[1] == 0x5410) a[1] = 0x541B; break;
    case SYS_set_robust_list: if (!in_child) a[1] = 0; break;
    case SYS_set_tid_address: if (!in_child) return; break;
    case SYS_wait4: case SYS_waitid: a[0] = 0x7ffffff0; break;       /* the supervisor's children are its own */
    case SYS_splice: case SYS_tee: case SYS_sendfile: case SYS_copy_file_range: a[4] = a[3] = 4096; break;
    }
    long fs = 0, gs = 0;
    raw(SYS_arch_prctl, 0x1003, (long)&fs, 0, 0, 0, 0);
    raw(SYS_arch_prctl, 0x1004, (long)&gs, 0, 0, 0, 0);
    raw(n, a[0], a[1], a[2], a[3], a[4], a[5]);
    raw(SYS_arch_prctl, 0x1002, fs, 0, 0, 0, 0);
    raw(SYS_arch_prctl, 0x1001, gs, 0, 0, 0, 0);
    uint64_t none = 0;
    raw(SYS_rt_sigprocmask, SIG_SETMASK, (long)&none, 0, 8, 0, 0);
    __atomic_add_fetch(&w->calls, 1, __ATOMIC_RELAXED);
}

static void new_arena(void)
{
    if (raw(SYS_mmap, (long)arena, ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != (long)arena)
        FAIL("no arena");
}

static void *work(void *argument)
{
    struct worker *w = argument;
    __atomic_store_n(&w->tid, (pid_t)raw(SYS_gettid, 0, 0, 0, 0, 0, 0), __ATOMIC_RELEASE);
    while (w->calls < w->goal) {
        if (w == workers && w->calls % 64 == 0)
            new_arena();
        if (next(&w->random) % 16 == 0)
            raw(SYS_getrandom, (long)(arena + next(&w->random) % ARENA / 2), 256, 0, 0, 0, 0);
        one_call(w, 0);
    }
    return NULL;
}

static void on_user(int s) { (void)s; }

/* Whatever waits is interrupted. */
static void *kick(void *argument)
{
    uint64_t seen[MAX_THREADS] = { 0 };
    (void)argument;
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
        sleep_ms(2);
        for (int i = 0; i < MAX_THREADS; i++) {
            uint64_t calls = __atomic_load_n(&workers[i].calls, __ATOMIC_RELAXED);
            if (workers[i].tid && calls == seen[i])
                raw(SYS_tgkill, getpid(), workers[i].tid, SIGUSR1, 0, 0, 0);
            seen[i] = calls;
        }
    }
    return NULL;
}

static void child(uint64_t seed, uint64_t count)
{
    struct worker w = { .random = seed };
    /* a call may return at once that is not counted: bounded all the same */
    for (uint64_t i = 0; w.calls < count && i < count * 4; i++)
        one_call(&w, 1);
    raw(SYS_exit_group, 7, 0, 0, 0, 0, 0);
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1, count = argc > 2 ? strtoull(argv[2], NULL, 10) : 1000;
    int threads = argc > 3 ? atoi(argv[3]) : 1, killed = 0, odd = 0, forks = 0;
    struct rlimit small = { 32 << 20, 32 << 20 }, no_core = { 0, 0 };
    SYS(setrlimit(RLIMIT_FSIZE, &small));
    SYS(setrlimit(RLIMIT_CORE, &no_core));
    for (int s = 1; s < 32; s++)
        if (s != SIGSEGV && s != SIGBUS && s != SIGILL && s != SIGFPE && s != SIGTERM && s != SIGCHLD && s != SIGKILL && s != SIGSTOP)
            signal(s, SIG_IGN);
    struct sigaction interrupts = { .sa_handler = on_user };
    SYS(sigaction(SIGUSR1, &interrupts, NULL));
    /* Nothing of the machine's may be open: fchmod or fchown of a device that everybody uses is among the calls. */
    SYS(syscall(SYS_close_range, 3, ~0U, 0));
    for (int fd = 0; fd < 3; fd++) {
        struct stat s;
        if (fstat(fd, &s) == 0 && !S_ISFIFO(s.st_mode))
            FAIL("descriptor %d is not a pipe: nothing but the program's own may be open here", fd);
    }
    int p[2];
    for (int i = 0; i < 3; i++)
        SYS(pipe(p));
    for (int i = 0; i < 3; i++)
        SYS(socketpair(AF_UNIX, i ? SOCK_STREAM : SOCK_DGRAM, 0, p));
    SYS(open("f1", O_RDWR | O_CREAT, 0600));
    SYS(memfd_create("memory", 0));
    SYS(mkdir("d1", 0700));
    arena = map_anonymous(ARENA);
    read_only = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    no_access = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(read_only != MAP_FAILED && no_access != MAP_FAILED);

    pthread_t kicker;
    EQUAL(0, pthread_create(&kicker, NULL, kick, NULL));
    for (int i = 0; i < threads && i < MAX_THREADS; i++) {
        workers[i].random = mix(seed * 1000 + (uint64_t)i);
        workers[i].goal = count / 2 / (uint64_t)threads;
        EQUAL(0, pthread_create(&workers[i].thread, NULL, work, &workers[i]));
    }
    uint64_t of_children = 0;
    for (uint64_t batch = 200; of_children < count / 2; of_children += batch) {
        pid_t pid = fork();
        if (pid == -1) {
            sleep_ms(1);
            continue;
        }
        if (pid == 0)
            child(mix(seed * 77777 + of_children), batch);
        forks++;
        int status = 0;
        double since = now();
        for (pid_t got; (got = waitpid(pid, &status, WNOHANG)) != pid;) {
            if (got == -1 && errno == ECHILD)
                break;
            sleep_ms(1);
            kill(pid, SIGUSR1);
            if (now() - since > 20) {
                kill(pid, SIGKILL);
                killed++;
                since = now() + 1e6;
            }
        }
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 7)
            odd++;
    }
    uint64_t all = of_children;
    for (int i = 0; i < threads && i < MAX_THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        all += workers[i].calls;
    }
    stop = 1;
    pthread_join(kicker, NULL);
    printf("seed %llu: %llu calls, %d children, %d ended otherwise, %d stuck\n", (unsigned long long)seed, (unsigned long long)all, forks, odd, killed);
    return killed != 0;
}
