/* Processes: fork in all its forms, wait, signals between them, descriptors, exec. */
#include "testlib.h"
#include <poll.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#define REGION (16 * PAGE)
extern char **environ;

CASE(exit_codes)
{
    for (int code = 0; code < 256; code += 15) {
        pid_t pid = (pid_t)SYS(fork());
        if (pid == 0)
            _exit(code);
        expect_exit(pid, code);
    }
    EQUAL(-1, waitpid(-1, NULL, 0));
    EQUAL(ECHILD, errno);
}

/* exit() and not _exit(): handlers and buffers of the C library run in the child. */
static void at_exit(void) { printf("at exit in the child\n"); }
/* What a process had open is closed with it: a child that outlives it sees the end of its pipe. */
CASE(die_before_its_child)
{
    int p[2];
    char c;
    SYS(pipe(p));
    printf("a child is left\n");
    if (SYS(fork()) == 0) {
        SYS(close(p[1]));
        EQUAL(0, read(p[0], &c, 1));
        printf("and sees the end\n");
        fflush(stdout);
        _exit(0);
    }
    _exit(3);
}

CASE(exit_with_handlers)
{
    fflush(NULL);
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0) {
        atexit(at_exit);
        printf("left in the buffer, ");
        exit(3);
    }
    expect_exit(pid, 3);
}

/* What Linux keeps for a thread, its children inherit: also those of a later fork. */
CASE(inherited_attributes)
{
    for (int round = 0; round < 3; round++) {
        cpu_set_t set;
        CPU_ZERO(&set);
        SYS(sched_getaffinity(0, sizeof set, &set));
        int first = 0;
        while (!CPU_ISSET(first, &set))
            first++;
        CPU_ZERO(&set);
        CPU_SET(first, &set);
        if (round == 1) {
            SYS(setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + 1));
            SYS(sched_setaffinity(0, sizeof set, &set));
        }
        /* Without the right to it, the ids stay as they are, in parent and child alike. */
        if (round == 2)
            setresuid(-1, 65534, -1);
        int priority = getpriority(PRIO_PROCESS, 0);
        SYS(sched_getaffinity(0, sizeof set, &set));
        int processors = CPU_COUNT(&set);
        uid_t user = geteuid();
        pid_t pid = (pid_t)SYS(fork());
        if (pid == 0) {
            EQUAL(priority, getpriority(PRIO_PROCESS, 0));
            SYS(sched_getaffinity(0, sizeof set, &set));
            EQUAL(processors, CPU_COUNT(&set));
            EQUAL(user, geteuid());
            _exit(0);
        }
        expect_exit(pid, 0);
    }
    setresuid(-1, getuid(), -1);
}

CASE(identity)
{
    pid_t parent = getpid(), group = getpgrp(), session = getsid(0);
    int fd[2];
    SYS(pipe(fd));
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0) {
        pid_t self = getpid();
        CHECK(self != parent && self > 0);
        EQUAL(parent, getppid());
        EQUAL(group, getpgrp());
        EQUAL(session, getsid(0));
        EQUAL(self, syscall(SYS_gettid));
        EQUAL(sizeof self, write(fd[1], &self, sizeof self));
        _exit(0);
    }
    pid_t told;
    EQUAL(sizeof told, read(fd[0], &told, sizeof told));
    EQUAL(pid, told);
    expect_exit(pid, 0);
    EQUAL(parent, getpid());
}

CASE(wait_variants)
{
    int status, fd[2];
    char c;
    SYS(pipe(fd));
    pid_t first = (pid_t)SYS(fork());
    if (first == 0) {
        SYS(close(fd[1]));
        EQUAL(0, read(fd[0], &c, 1));
        _exit(11);
    }
    EQUAL(0, waitpid(first, &status, WNOHANG));
    EQUAL(0, waitpid(-1, &status, WNOHANG));
    siginfo_t info = { 0 };
    info.si_pid = 77;
    EQUAL(0, waitid(P_PID, (id_t)first, &info, WEXITED | WNOHANG));
    EQUAL(0, info.si_pid);
    close(fd[1]);
    EQUAL(0, waitid(P_PID, (id_t)first, &info, WEXITED | WNOWAIT));
    EQUAL(first, info.si_pid);
    EQUAL(CLD_EXITED, info.si_code);
    EQUAL(11, info.si_status);
    EQUAL(SIGCHLD, info.si_signo);
    EQUAL(first, wait(&status));
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 11);
    EQUAL(-1, waitpid(first, &status, 0));
    EQUAL(ECHILD, errno);

    /* any child: three end in their own order */
    int gate[3][2];
    pid_t pid[3];
    for (int i = 0; i < 3; i++) {
        SYS(pipe(gate[i]));
        pid[i] = (pid_t)SYS(fork());
        if (pid[i] == 0) {
            for (int j = 0; j <= i; j++)
                SYS(close(gate[j][1]));
            EQUAL(0, read(gate[i][0], &c, 1));
            _exit(20 + i);
        }
    }
    for (int i = 2; i >= 0; i--) {
        close(gate[i][1]);
        EQUAL(pid[i], waitpid(-1, &status, 0));
        EQUAL(20 + i, WEXITSTATUS(status));
    }

    /* a zombie waits for its parent */
    first = (pid_t)SYS(fork());
    if (first == 0)
        _exit(5);
    sleep_ms(50);
    EQUAL(0, kill(first, 0));
    struct rusage usage;
    EQUAL(first, wait4(first, &status, 0, &usage));
    EQUAL(5, WEXITSTATUS(status));
    EQUAL(-1, kill(first, 0));
    EQUAL(ESRCH, errno);
}

CASE(wait_for_group)
{
    int status;
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0) {
        SYS(setpgid(0, 0));
        EQUAL(getpid(), getpgrp());
        _exit(31);
    }
    setpgid(pid, pid);
    EQUAL(pid, waitpid(-pid, &status, 0));
    EQUAL(31, WEXITSTATUS(status));
}


CASE(killed_children)
{
    int signals[] = { SIGKILL, SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGALRM, SIGPIPE };
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        int status;
        pid_t pid = (pid_t)SYS(fork());
        if (pid == 0) {
            for (;;)
                pause();
        }
        SYS(kill(pid, signals[i]));
        EQUAL(pid, waitpid(pid, &status, 0));
        CHECK(WIFSIGNALED(status));
        EQUAL(signals[i], WTERMSIG(status));
    }
    /* one that runs without system calls */
    volatile int *flag = map_shared(PAGE);
    int status;
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0) {
        *flag = 1;
        for (;;)
            __builtin_ia32_pause();
    }
    SPIN_UNTIL(*flag);
    SYS(kill(pid, SIGKILL));
    EQUAL(pid, waitpid(pid, &status, 0));
    EQUAL(SIGKILL, WTERMSIG(status));
}

CASE(crashed_children)
{
    for (int i = 0; i < 4; i++) {
        int status;
        pid_t pid = (pid_t)SYS(fork());
        if (pid == 0) {
            struct rlimit none = { 0, 0 };
            setrlimit(RLIMIT_CORE, &none);
            switch (i) {
            case 0: *(volatile int *)8 = 1; break;
            case 1: abort(); break;
            case 2: __asm__ volatile("ud2"); break;
            default: { volatile int zero = 0; zero = 100 / zero; }
            }
            _exit(0);
        }
        EQUAL(pid, waitpid(pid, &status, 0));
        int expected[] = { SIGSEGV, SIGABRT, SIGILL, SIGFPE };
        CHECK(WIFSIGNALED(status));
        EQUAL(expected[i], WTERMSIG(status));
    }
}

CASE(stop_and_continue)
{
    int status;
    volatile int *n = map_shared(PAGE);
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0)
        for (;;)
            ++*n;
    SPIN_UNTIL(*n > 10);
    SYS(kill(pid, SIGSTOP));
    EQUAL(pid, waitpid(pid, &status, WUNTRACED));
    CHECK(WIFSTOPPED(status));
    EQUAL(SIGSTOP, WSTOPSIG(status));
    int before = *n;
    sleep_ms(50);
    EQUAL(before, *n);
    SYS(kill(pid, SIGCONT));
    EQUAL(pid, waitpid(pid, &status, WCONTINUED));
    CHECK(WIFCONTINUED(status));
    SPIN_UNTIL(*n != before);
    SYS(kill(pid, SIGKILL));
    EQUAL(pid, waitpid(pid, &status, 0));
    EQUAL(SIGKILL, WTERMSIG(status));
}

static volatile int chld_count, chld_code, chld_status;
static volatile pid_t chld_pid;
static void on_chld(int s, siginfo_t *i, void *c)
{
    (void)s;
    (void)c;
    chld_pid = i->si_pid;
    chld_code = i->si_code;
    chld_status = i->si_status;
    chld_count++;
}

CASE(sigchld)
{
    struct sigaction a = { .sa_sigaction = on_chld, .sa_flags = SA_SIGINFO };
    SYS(sigaction(SIGCHLD, &a, NULL));
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0)
        _exit(13);
    WAIT_UNTIL(chld_count == 1);
    EQUAL(pid, chld_pid);
    EQUAL(CLD_EXITED, chld_code);
    EQUAL(13, chld_status);
    expect_exit(pid, 13);

    pid = (pid_t)SYS(fork());
    if (pid == 0)
        for (;;)
            pause();
    SYS(kill(pid, SIGKILL));
    WAIT_UNTIL(chld_count == 2);
    EQUAL(pid, chld_pid);
    EQUAL(CLD_KILLED, chld_code);
    EQUAL(SIGKILL, chld_status);
    int status;
    EQUAL(pid, waitpid(pid, &status, 0));

    /* it interrupts a blocking call without SA_RESTART */
    int fd[2];
    char c;
    SYS(pipe(fd));
    pid = (pid_t)SYS(fork());
    if (pid == 0) {
        sleep_ms(50);
        _exit(0);
    }
    EQUAL(-1, read(fd[0], &c, 1));
    EQUAL(EINTR, errno);
    EQUAL(3, chld_count);
    expect_exit(pid, 0);
    signal(SIGCHLD, SIG_DFL);
}

/* With SIGCHLD ignored, children leave no zombie; wait returns ECHILD when the last one is gone. */
CASE(sigchld_ignored)
{
    signal(SIGCHLD, SIG_IGN);
    for (int i = 0; i < 3; i++) {
        pid_t pid = (pid_t)SYS(fork());
        if (pid == 0)
            _exit(1);
    }
    EQUAL(-1, wait(NULL));
    EQUAL(ECHILD, errno);
    signal(SIGCHLD, SIG_DFL);
}

CASE(signal_to_parent)
{
    sigset_t set;
    siginfo_t info;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0) {
        sigset_t pending;
        sigpending(&pending);
        CHECK(!sigismember(&pending, SIGUSR1));
        SYS(kill(getppid(), SIGUSR1));
        _exit(0);
    }
    EQUAL(SIGUSR1, sigwaitinfo(&set, &info));
    EQUAL(pid, info.si_pid);
    EQUAL(SI_USER, info.si_code);
    expect_exit(pid, 0);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

static volatile int usr1_in_child;
static void on_usr1(int s) { (void)s; usr1_in_child++; }

/* Handlers and masks are inherited; what the child changes is its own; pending signals are not inherited. */
CASE(handlers_are_inherited)
{
    struct sigaction a = { .sa_handler = on_usr1 };
    SYS(sigaction(SIGUSR1, &a, NULL));
    int fd[2], back[2];
    char c;
    SYS(pipe(fd));
    SYS(pipe(back));
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0) {
        signal(SIGUSR2, SIG_IGN);
        EQUAL(1, write(fd[1], "r", 1));
        for (int i = 1; i <= 3; i++) {
            WAIT_UNTIL(usr1_in_child == i);
            EQUAL(1, write(fd[1], "d", 1));
        }
        EQUAL(1, read(back[0], &c, 1));
        _exit(0);
    }
    EQUAL(1, read(fd[0], &c, 1));
    for (int i = 1; i <= 3; i++) {
        SYS(kill(pid, SIGUSR1));
        /* One at a time: two that are pending at once are one. */
        EQUAL(1, read(fd[0], &c, 1));
    }
    SYS(kill(pid, SIGUSR2));
    EQUAL(0, usr1_in_child);
    struct sigaction usr2;
    SYS(sigaction(SIGUSR2, NULL, &usr2));
    CHECK(usr2.sa_handler == SIG_DFL);
    EQUAL(1, write(back[1], "x", 1));
    expect_exit(pid, 0);
    signal(SIGUSR1, SIG_DFL);
}

CASE(memory_is_separate)
{
    unsigned char *m = map_anonymous(REGION);
    static int data = 1;
    int stack = 1, *heap = malloc(sizeof *heap);
    *heap = 1;
    fill(m, REGION, 1);
    IN_CHILD({
        CHECK(data == 1 && stack == 1 && *heap == 1);
        data = stack = *heap = 2;
        fill(m, REGION, 2);
        HOLDS(m, 0, REGION, 2);
        CHECK(data == 2 && stack == 2 && *heap == 2);
    });
    CHECK(data == 1 && stack == 1 && *heap == 1);
    HOLDS(m, 0, REGION, 1);
}

CASE(megabytes_64)
{
    size_t length = 64UL << 20;
    uint64_t *m = map_anonymous(length);
    for (size_t i = 0; i < length / 8; i++)
        m[i] = mix(i);
    int fd[2];
    SYS(pipe(fd));
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0) {
        for (int round = 0; round < 2; round++)
            for (size_t i = 0; i < length / 8; i++)
                if (m[i] != mix(i))
                    FAIL("word %zu", i);
        for (size_t i = 0; i < length / 8; i += 511)
            m[i] = i;
        for (size_t i = 0; i < length / 8; i++)
            if (m[i] != (i % 511 ? mix(i) : i))
                FAIL("own word %zu", i);
        _exit(0);
    }
    for (size_t i = 0; i < length / 8; i += 257)
        m[i] = ~i;
    expect_exit(pid, 0);
    for (size_t i = 0; i < length / 8; i++)
        if (m[i] != (i % 257 ? mix(i) : ~i))
            FAIL("parent's word %zu", i);
}

/* Memory that was mapped but not touched before the fork reads as zero in both, and is separate. */
CASE(untouched_memory)
{
    size_t length = 8UL << 20;
    unsigned char *m = map_anonymous(length);
    m[length / 2] = 9;
    IN_CHILD({
        for (size_t i = 0; i < length; i += PAGE)
            CHECK(m[i] == (i == length / 2 ? 9 : 0));
        memset(m, 7, length);
    });
    for (size_t i = 0; i < length; i++)
        CHECK(m[i] == (i == length / 2 ? 9 : 0));
    IN_CHILD({ sleep_ms(1); for (size_t i = 0; i < length; i += 100) CHECK(m[i] == (i == length / 2 ? 9 : 0)); });
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0) {
        sleep_ms(50);
        for (size_t i = 0; i < length; i++)
            CHECK(m[i] == (i == length / 2 ? 9 : 0));
        _exit(0);
    }
    memset(m, 5, length);
    expect_exit(pid, 0);
}

/* Each level changes its memory and forks; every level's bytes hold to the end. */
static unsigned char *nest;
static void nested(int level)
{
    if (level == 5)
        return;
    HOLDS(nest, 0, REGION, (uint64_t)(100 + level));
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0) {
        HOLDS(nest, 0, REGION, (uint64_t)(100 + level));
        fill(nest, REGION, (uint64_t)(101 + level));
        nested(level + 1);
        HOLDS(nest, 0, REGION, (uint64_t)(101 + level));
        _exit(40 + level);
    }
    fill(nest, 8 * PAGE, (uint64_t)(200 + level));
    expect_exit(pid, 40 + level);
    HOLDS(nest, 0, 8 * PAGE, (uint64_t)(200 + level));
    HOLDS(nest + 8 * PAGE, 8 * PAGE, 8 * PAGE, (uint64_t)(100 + level));
    fill(nest, 8 * PAGE, (uint64_t)(100 + level));
}

CASE(nested)
{
    nest = map_anonymous(REGION);
    fill(nest, REGION, 100);
    nested(0);
}

/* Parents end before their children; the grandchild still has its bytes, and a new parent. */
CASE(orphans)
{
    unsigned char *m = map_anonymous(REGION);
    fill(m, REGION, 300);
    int fd[2];
    char c;
    SYS(pipe(fd));
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0) {
        pid_t own = getpid();
        fill(m, REGION, 301);
        if (SYS(fork()) == 0) {
            WAIT_UNTIL(getppid() != own);
            HOLDS(m, 0, REGION, 301);
            EQUAL(1, write(fd[1], "k", 1));
            _exit(0);
        }
        fill(m, REGION, 302);
        _exit(0);
    }
    close(fd[1]);
    expect_exit(pid, 0);
    fill(m, REGION, 303);
    EQUAL(1, read(fd[0], &c, 1));
    EQUAL(0, read(fd[0], &c, 1));
    close(fd[0]);
}

CASE(tree_of_thirty)
{
    pid_t pids[30];
    unsigned char *m = map_anonymous(REGION);
    volatile int *go = map_shared(PAGE);
    for (int i = 0; i < 30; i++) {
        fill(m, PAGE, (uint64_t)i);
        pids[i] = (pid_t)SYS(fork());
        if (pids[i] == 0) {
            WAIT_UNTIL(*go);
            HOLDS(m, 0, PAGE, (uint64_t)i);
            _exit(i);
        }
    }
    *go = 1;
    for (int i = 29; i >= 0; i--)
        expect_exit(pids[i], i);
}

CASE(two_hundred_in_a_row)
{
    unsigned char *m = map_anonymous(REGION);
    for (int i = 0; i < 200; i++) {
        fill(m + (i % 16) * (int)PAGE, 64, (uint64_t)i);
        pid_t pid = (pid_t)SYS(fork());
        if (pid == 0) {
            HOLDS(m + (i % 16) * (int)PAGE, 0, 64, (uint64_t)i);
            _exit(i & 127);
        }
        expect_exit(pid, i & 127);
    }
}

static void *fork_thread(void *a)
{
    unsigned char *m = a;
    for (int i = 0; i < 10; i++)
        IN_CHILD({ HOLDS(m, 0, REGION, 400); fill(m, REGION, 401); HOLDS(m, 0, REGION, 401); });
    return NULL;
}

CASE(fork_in_a_thread)
{
    unsigned char *m = map_anonymous(REGION);
    fill(m, REGION, 400);
    pthread_t t;
    EQUAL(0, pthread_create(&t, NULL, fork_thread, m));
    EQUAL(0, pthread_join(t, NULL));
    HOLDS(m, 0, REGION, 400);
}

CASE(fork_in_four_threads_at_once)
{
    unsigned char *m = map_anonymous(REGION);
    fill(m, REGION, 400);
    pthread_t t[4];
    for (int i = 0; i < 4; i++)
        EQUAL(0, pthread_create(&t[i], NULL, fork_thread, m));
    for (int i = 0; i < 4; i++)
        EQUAL(0, pthread_join(t[i], NULL));
    HOLDS(m, 0, REGION, 400);
}

static void *add_one(void *a) { ++*(int *)a; return a; }

/* Only the forking thread exists in the child; it may make new ones. */
CASE(threads_in_a_child)
{
    IN_CHILD({
        int n = 0;
        for (int i = 0; i < 5; i++) {
            pthread_t t;
            EQUAL(0, pthread_create(&t, NULL, add_one, &n));
            void *value;
            EQUAL(0, pthread_join(t, &value));
            CHECK(value == &n);
        }
        EQUAL(5, n);
    });
}

static int prepared, in_parent, in_child_count;
static void prepare(void) { prepared++; }
static void after_parent(void) { in_parent++; }
static void after_child(void) { in_child_count++; }

CASE(atfork_handlers)
{
    EQUAL(0, pthread_atfork(prepare, after_parent, after_child));
    IN_CHILD({ EQUAL(1, prepared); EQUAL(0, in_parent); EQUAL(1, in_child_count); });
    EQUAL(1, prepared);
    EQUAL(1, in_parent);
    EQUAL(0, in_child_count);
}

CASE(pipes)
{
    int down[2], up[2];
    SYS(pipe(down));
    SYS(pipe(up));
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0) {
        close(down[1]);
        close(up[0]);
        unsigned char buffer[5000];
        for (long n; (n = SYS(read(down[0], buffer, sizeof buffer))) > 0;) {
            for (long i = 0; i < n; i++)
                buffer[i] ^= 0x5a;
            for (long done = 0; done < n;)
                done += SYS(write(up[1], buffer + done, (size_t)(n - done)));
        }
        _exit(0);
    }
    close(down[0]);
    close(up[1]);
    for (int round = 0; round < 100; round++) {
        unsigned char out[3000], in[3000];
        fill(out, sizeof out, (uint64_t)round);
        EQUAL(sizeof out, write(down[1], out, sizeof out));
        for (size_t done = 0; done < sizeof in;)
            done += (size_t)SYS(read(up[0], in + done, sizeof in - done));
        for (size_t i = 0; i < sizeof in; i++)
            EQUAL(out[i] ^ 0x5a, in[i]);
    }
    close(down[1]);
    char c;
    EQUAL(0, read(up[0], &c, 1));
    expect_exit(pid, 0);
    close(up[0]);
}

/* The reader is gone: SIGPIPE. */
CASE(broken_pipe)
{
    int fd[2], status;
    SYS(pipe(fd));
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0) {
        close(fd[0]);
        sleep_ms(30);
        EQUAL(1, write(fd[1], "x", 1));
        _exit(0);
    }
    close(fd[0]);
    close(fd[1]);
    EQUAL(pid, waitpid(pid, &status, 0));
    CHECK(WIFSIGNALED(status));
    EQUAL(SIGPIPE, WTERMSIG(status));
}

CASE(shared_file_offset)
{
    int fd = pattern_file(1000, 500);
    char b[100];
    EQUAL(100, read(fd, b, 100));
    IN_CHILD({
        EQUAL(100, lseek(fd, 0, SEEK_CUR));
        EQUAL(50, read(fd, b, 50));
        HOLDS(b, 100, 50, 500);
        SYS(lseek(fd, 700, SEEK_SET));
    });
    EQUAL(700, lseek(fd, 0, SEEK_CUR));
    int flags = (int)SYS(fcntl(fd, F_GETFL));
    IN_CHILD({ SYS(fcntl(fd, F_SETFL, flags | O_APPEND)); });
    CHECK(fcntl(fd, F_GETFL) & O_APPEND);
    close(fd);
}

/* Closing, duplicating and opening in the child is the child's affair. */
CASE(own_descriptors)
{
    int fd[2];
    char c;
    SYS(pipe(fd));
    int free_one = (int)SYS(dup(0));
    close(free_one);
    IN_CHILD({
        SYS(close(fd[0]));
        SYS(dup2(fd[1], 50));
        int opened = (int)SYS(open("/dev/null", O_RDONLY));
        EQUAL(fd[0], opened);
        SYS(fcntl(fd[1], F_SETFD, FD_CLOEXEC));
        EQUAL(1, write(50, "y", 1));
        close(0);
    });
    EQUAL(-1, fcntl(50, F_GETFD));
    EQUAL(EBADF, errno);
    EQUAL(0, fcntl(fd[1], F_GETFD));
    EQUAL(0, fcntl(0, F_GETFD) & ~FD_CLOEXEC);
    EQUAL(1, read(fd[0], &c, 1));
    EQUAL('y', c);
    EQUAL(free_one, dup(0));
    close(free_one);

    /* the other way round: what the parent closes stays open in the child */
    int gate[2];
    SYS(pipe(gate));
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0) {
        EQUAL(1, read(gate[0], &c, 1));
        EQUAL(1, write(fd[1], "z", 1));
        _exit(0);
    }
    close(fd[1]);
    EQUAL(1, write(gate[1], "g", 1));
    EQUAL(1, read(fd[0], &c, 1));
    EQUAL('z', c);
    expect_exit(pid, 0);
    EQUAL(0, read(fd[0], &c, 1));
}

/* An end of file arrives when the child that held the writing end dies, however it dies. */
CASE(descriptors_close_at_death)
{
    for (int how = 0; how < 3; how++) {
        int fd[2];
        char c;
        SYS(pipe(fd));
        pid_t pid = (pid_t)SYS(fork());
        if (pid == 0) {
            if (how == 0)
                _exit(0);
            if (how == 1)
                raise(SIGKILL);
            execl("/bin/true", "true", NULL);
            _exit(1);
        }
        close(fd[1]);
        EQUAL(0, read(fd[0], &c, 1));
        close(fd[0]);
        waitpid(pid, NULL, 0);
    }
}

CASE(own_directory_and_umask)
{
    char before[PATH_MAX], after[PATH_MAX];
    CHECK(getcwd(before, sizeof before));
    mode_t mask = umask(022);
    IN_CHILD({
        EQUAL(022, umask(077));
        SYS(mkdir("sub", 0777));
        SYS(chdir("sub"));
        char inside[PATH_MAX];
        CHECK(getcwd(inside, sizeof inside));
        CHECK(strcmp(inside + strlen(inside) - 4, "/sub") == 0);
        struct stat s;
        SYS(stat(".", &s));
        EQUAL(0700, s.st_mode & 0777);
    });
    CHECK(getcwd(after, sizeof after));
    CHECK(strcmp(before, after) == 0);
    EQUAL(022, umask(mask));
    SYS(rmdir("sub"));
}

CASE(own_limits_and_priority)
{
    struct rlimit before, after;
    SYS(getrlimit(RLIMIT_NOFILE, &before));
    IN_CHILD({
        struct rlimit r = { 64, before.rlim_max };
        SYS(setrlimit(RLIMIT_NOFILE, &r));
        SYS(getrlimit(RLIMIT_NOFILE, &r));
        EQUAL(64, r.rlim_cur);
    });
    SYS(getrlimit(RLIMIT_NOFILE, &after));
    EQUAL(before.rlim_cur, after.rlim_cur);
}

CASE(sessions_and_groups)
{
    pid_t group = getpgrp(), session = getsid(0);
    IN_CHILD({
        pid_t self = getpid();
        EQUAL(self, setsid());
        EQUAL(self, getsid(0));
        EQUAL(self, getpgrp());
        IN_CHILD({ EQUAL(self, getpgrp()); EQUAL(self, getsid(0)); });
    });
    EQUAL(group, getpgrp());
    EQUAL(session, getsid(0));
}

CASE(kill_a_group)
{
    pid_t pids[3];
    for (int i = 0; i < 3; i++) {
        pids[i] = (pid_t)SYS(fork());
        if (pids[i] == 0)
            for (;;)
                pause();
        SYS(setpgid(pids[i], pids[0]));
    }
    SYS(kill(-pids[0], SIGTERM));
    for (int i = 0; i < 3; i++) {
        int status;
        EQUAL(pids[i], waitpid(pids[i], &status, 0));
        EQUAL(SIGTERM, WTERMSIG(status));
    }
}

/* ---- exec ---- */

static int run_shell(const char *script, char *output, size_t size)
{
    int fd[2], status;
    SYS(pipe(fd));
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0) {
        dup2(fd[1], 1);
        close(fd[0]);
        close(fd[1]);
        execl("/bin/sh", "sh", "-c", script, NULL);
        _exit(126);
    }
    close(fd[1]);
    size_t n = 0;
    for (long r; (r = SYS(read(fd[0], output + n, size - 1 - n))) > 0;)
        n += (size_t)r;
    output[n] = 0;
    close(fd[0]);
    EQUAL(pid, waitpid(pid, &status, 0));
    return status;
}

CASE(exec)
{
    char out[1000];
    EQUAL(7 << 8, run_shell("echo hello; pwd >/dev/null; exit 7", out, sizeof out));
    CHECK(strcmp(out, "hello\n") == 0);
    EQUAL(SIGTERM, run_shell("kill -TERM $$", out, sizeof out));
    EQUAL(0, run_shell("echo $PPID", out, sizeof out));
    EQUAL(getpid(), atoi(out));
}

CASE(exec_keeps_the_pid)
{
    char out[100];
    int fd[2];
    SYS(pipe(fd));
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0) {
        dup2(fd[1], 1);
        execl("/bin/sh", "sh", "-c", "echo $$", NULL);
        _exit(126);
    }
    close(fd[1]);
    long n = SYS(read(fd[0], out, sizeof out - 1));
    out[n] = 0;
    EQUAL(pid, atoi(out));
    expect_exit(pid, 0);
}

CASE(exec_errors)
{
    close((int)SYS(open("not-executable", O_CREAT | O_WRONLY, 0644)));
    IN_CHILD({
        EQUAL(-1, execl("/does/not/exist", "x", NULL));
        EQUAL(ENOENT, errno);
        EQUAL(-1, execl("./not-executable", "x", NULL));
        EQUAL(EACCES, errno);
        EQUAL(-1, execl("/", "x", NULL));
        EQUAL(EACCES, errno);
        int fd = (int)SYS(open("garbage", O_CREAT | O_WRONLY, 0755));
        EQUAL(10, write(fd, "\001garbage..", 10));
        close(fd);
        EQUAL(-1, execl("./garbage", "x", NULL));
        EQUAL(ENOEXEC, errno);
    });
}

CASE(close_on_exec)
{
    int keep = (int)SYS(open("/dev/null", O_RDONLY)), close_it = (int)SYS(open("/dev/null", O_RDONLY | O_CLOEXEC));
    char script[200], out[100];
    snprintf(script, sizeof script, "[ -e /proc/self/fd/%d ] && echo kept; [ -e /proc/self/fd/%d ] || echo closed", keep, close_it);
    EQUAL(0, run_shell(script, out, sizeof out));
    CHECK(strcmp(out, "kept\nclosed\n") == 0);
    SYS(fcntl(close_it, F_GETFD));
}

/* Nothing of the hypervisor's is open in a program that was executed. */
CASE(no_foreign_descriptors)
{
    char out[2000], ours[2000];
    size_t n = 0;
    int highest = 0;
    for (int fd = 0; fd < 1024; fd++)
        if (fcntl(fd, F_GETFD) != -1 && (highest = fd) >= 0)
            n += (size_t)snprintf(ours + n, sizeof ours - n, "%d ", fd);
    EQUAL(0, run_shell("for f in /proc/self/fd/*; do n=${f##*/}; [ $n -lt 10 ] || [ -e $f ] && printf '%s ' $n; done 2>/dev/null", out, sizeof out));
    int high = 0;
    for (char *t = strtok(out, " "); t; t = strtok(NULL, " "))
        if (atoi(t) > highest + 10)     /* the shell opens some of its own */
            high++;
    EQUAL(0, high);
    printf("descriptors here: %s\n", ours);
}

CASE(exec_resets_handlers_keeps_ignored)
{
    char out[200];
    struct sigaction a = { .sa_handler = on_usr1 };
    sigaction(SIGUSR1, &a, NULL);
    signal(SIGUSR2, SIG_IGN);
    EQUAL(0, run_shell("kill -USR2 $$; echo survived", out, sizeof out));
    CHECK(strcmp(out, "survived\n") == 0);
    EQUAL(SIGUSR1, run_shell("kill -USR1 $$; echo survived", out, sizeof out));
    signal(SIGUSR1, SIG_DFL);
    signal(SIGUSR2, SIG_DFL);
}

CASE(vfork_exec)
{
    volatile int shared = 1;
    pid_t pid = vfork();
    if (pid == 0) {
        execl("/bin/sh", "sh", "-c", "exit 9", NULL);
        _exit(127);
    }
    CHECK(pid > 0);
    expect_exit(pid, 9);
    EQUAL(1, shared);
    pid = vfork();
    if (pid == 0) {
        execl("/does/not/exist", "x", NULL);
        _exit(errno == ENOENT ? 77 : 78);
    }
    expect_exit(pid, 77);
    pid = vfork();
    if (pid == 0)
        _exit(12);
    expect_exit(pid, 12);
}

/* vfork: the parent stands still until the child has executed or ended. */
CASE(vfork_waits)
{
    int fd[2];
    SYS(pipe2(fd, O_NONBLOCK));
    pid_t pid = vfork();
    if (pid == 0) {
        struct timespec t = { 0, 50000000 };
        nanosleep(&t, NULL);
        if (write(fd[1], "x", 1) != 1)
            _exit(1);
        _exit(0);
    }
    char c;
    EQUAL(1, read(fd[0], &c, 1));
    expect_exit(pid, 0);
}

CASE(posix_spawn)
{
    pid_t pid;
    char *argv[] = { "sh", "-c", "echo spawned; exit 6", NULL };
    posix_spawn_file_actions_t actions;
    int fd[2];
    SYS(pipe(fd));
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, fd[1], 1);
    posix_spawn_file_actions_addclose(&actions, fd[0]);
    EQUAL(0, posix_spawn(&pid, "/bin/sh", &actions, NULL, argv, environ));
    close(fd[1]);
    char out[100];
    EQUAL(8, read(fd[0], out, sizeof out));
    CHECK(memcmp(out, "spawned\n", 8) == 0);
    expect_exit(pid, 6);
    EQUAL(ENOENT, posix_spawn(&pid, "/does/not/exist", NULL, NULL, argv, environ));
    EQUAL(ENOENT, posix_spawnp(&pid, "no-such-program-anywhere", NULL, NULL, argv, environ));
    close((int)SYS(open("not-executable", O_CREAT | O_WRONLY, 0644)));
    EQUAL(EACCES, posix_spawn(&pid, "./not-executable", NULL, NULL, argv, environ));
    EQUAL(-1, wait(NULL));
    EQUAL(ECHILD, errno);
}

/* A signal that comes while a child is about to become another program is not lost. */
CASE(kill_right_after_spawn)
{
    char *argv[] = { "sleep", "30", NULL };
    for (int i = 0; i < 20; i++) {
        pid_t pid;
        int status;
        double start = now();
        EQUAL(0, posix_spawn(&pid, "/bin/sleep", NULL, NULL, argv, environ));
        for (volatile int n = 0; n < i * 20000; n++) {}
        SYS(kill(pid, SIGTERM));
        EQUAL(pid, waitpid(pid, &status, 0));
        CHECK(WIFSIGNALED(status));
        EQUAL(SIGTERM, WTERMSIG(status));
        CHECK(now() - start < 20);
    }
}

/* By the pid that the parent knows, another program reaches it, and nothing else. */
CASE(spawned_child_by_its_pid_from_outside)
{
    char *argv[] = { "sleep", "100", NULL }, command[100];
    const char *signals[] = { "STOP", "CONT", "TERM" };
    for (int round = 0; round < 3; round++) {
        pid_t pid;
        int status = 0;
        EQUAL(0, posix_spawn(&pid, "/bin/sleep", NULL, NULL, argv, environ));
        for (int i = 0; i < 3; i++) {
            snprintf(command, sizeof command, "kill -%s %d", signals[i], (int)pid);
            EQUAL(0, system(command));
            EQUAL(pid, waitpid(pid, &status, WUNTRACED | WCONTINUED));
            EQUAL(i == 0 ? SIGSTOP << 8 | 0x7F : i == 1 ? 0xFFFF : SIGTERM, status);
        }
    }
}

CASE(system_and_popen)
{
    EQUAL(0, system("exit 0"));
    EQUAL(5 << 8, system("exit 5"));
    FILE *f = popen("echo from popen; exit 3", "r");
    CHECK(f);
    char line[100];
    CHECK(fgets(line, sizeof line, f) && strcmp(line, "from popen\n") == 0);
    EQUAL(3 << 8, pclose(f));
    f = popen("cat >popen-out", "w");
    fputs("written through popen\n", f);
    EQUAL(0, pclose(f));
    EQUAL(0, system("grep -q 'through popen' popen-out"));
}

/* exec in the process itself, not in a child: it becomes the other program and keeps its pid. */
CASE(exec_in_place)
{
    char want[30];
    snprintf(want, sizeof want, "%d", getpid());
    if (getenv("IN_PLACE_PID")) {
        CHECK(strcmp(getenv("IN_PLACE_PID"), want) == 0);
        return;
    }
    setenv("IN_PLACE_PID", want, 1);
    execl("/proc/self/exe", "forks", "exec_in_place", NULL);
    FAIL("exec");
}

/* File locks: flock is shared with the child, record locks are not. */
CASE(locks)
{
    int fd = pattern_file(100, 600);
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 10 };
    SYS(flock(fd, LOCK_EX));
    IN_CHILD({ SYS(flock(fd, LOCK_EX | LOCK_NB)); });
    SYS(fcntl(fd, F_SETLK, &lock));
    SYS(fcntl(fd, F_SETLK, &lock));
}

CASE(parent_death_signal_and_name)
{
    IN_CHILD({
        SYS(prctl(PR_SET_NAME, "renamed"));
        char name[16];
        SYS(prctl(PR_GET_NAME, name));
        CHECK(strcmp(name, "renamed") == 0);
        SYS(prctl(PR_SET_PDEATHSIG, SIGKILL));
    });
}

static void exit_five(int signal) { (void)signal; _exit(5); }

/* Has another program look for children of this one by name, as pgrep -P does, and signal them. */
static void signal_from_outside(int number)
{
    char command[500];
    snprintf(command, sizeof command, "for s in /proc/[0-9]*/stat; do read -r pid name state parent rest < $s && [ \"$parent\" = %d ] && [ \"$name\" = '(a-child)' ] "
        "&& kill -%d $pid; done 2>/dev/null; true", (int)getpid(), number);
    SYS(system(command));
}

CASE(seen_from_outside)
{
    /* Not in the child, which may be found before it comes to it. */
    prctl(PR_SET_NAME, "a-child");
    for (int round = 0; round < 4; round++) {
        int number = round % 2 == 0 ? SIGUSR1 : SIGKILL;
        int ready[2];
        char c;
        fflush(NULL);
        SYS(pipe(ready));
        pid_t child = (pid_t)SYS(fork());
        if (child == 0) {
            signal(SIGUSR1, exit_five);
            EQUAL(1, write(ready[1], "r", 1));
            for (;;)
                pause();
        }
        int status = 0;
        pid_t ended = 0;
        EQUAL(1, read(ready[0], &c, 1));
        SYS(close(ready[0]));
        SYS(close(ready[1]));
        WAIT_UNTIL((signal_from_outside(number), ended = waitpid(child, &status, WNOHANG)) != 0);
        EQUAL(child, ended);
        if (number == SIGUSR1)
            EQUAL(5 << 8, status);
        else
            EQUAL(SIGKILL, status);
    }
}

/* ---- one and the same pid inside and outside ---- */

/* The first numbers of /proc/PID/stat behind the name: state, parent, group, session. */
static char stat_of(const char *process, long *pid, long *parent, long *group, long *session)
{
    char path[100], text[1000], state = 0;
    snprintf(path, sizeof path, "/proc/%s/stat", process);
    FILE *f = fopen(path, "r");
    CHECK(f != NULL && fgets(text, sizeof text, f) != NULL);
    fclose(f);
    *pid = atol(text);
    EQUAL(4, sscanf(strrchr(text, ')') + 2, "%c %ld %ld %ld", &state, parent, group, session));
    return state;
}

/* Says something, waits for the answer, ends. */
static pid_t child_that_waits(int ready[2], int go[2])
{
    char c;
    SYS(pipe(ready));
    SYS(pipe(go));
    fflush(NULL);
    pid_t child = (pid_t)SYS(fork());
    if (child == 0) {
        signal(SIGUSR1, exit_five);
        EQUAL(1, write(ready[1], "r", 1));
        SYS(close(go[1]));
        while (read(go[0], &c, 1) == -1 && errno == EINTR) {}
        _exit(3);
    }
    EQUAL(1, read(ready[0], &c, 1));
    return child;
}

static void shut(int ready[2], int go[2])
{
    for (int i = 0; i < 2; i++) {
        close(ready[i]);
        close(go[i]);
    }
}

CASE(one_pid_outside_and_inside)
{
    int ready[2], go[2];
    for (int round = 0; round < 3; round++) {
        pid_t child = child_that_waits(ready, go);
        char name[20];
        long pid, parent, group, session;
        snprintf(name, sizeof name, "%d", (int)child);
        /* At once, and after a while, as another program sees it and as this one does. */
        sleep_ms(round * 30);
        CHECK(stat_of(name, &pid, &parent, &group, &session) != 'Z');
        EQUAL(child, pid);
        EQUAL(getpid(), parent);
        char command[200], out[100];
        snprintf(command, sizeof command, "read -r pid name state parent rest < /proc/%d/stat; echo $pid $parent", (int)child);
        EQUAL(0, run_shell(command, out, sizeof out));
        int seen, its_parent;
        EQUAL(2, sscanf(out, "%d %d", &seen, &its_parent));
        EQUAL(child, seen);
        EQUAL(getpid(), its_parent);
        SYS(close(go[1]));
        /* Ended, and not waited for: it keeps its number. */
        WAIT_UNTIL(stat_of(name, &pid, &parent, &group, &session) == 'Z');
        EQUAL(0, kill(child, 0));
        expect_exit(child, 3);
        EQUAL(-1, kill(child, 0));
        EQUAL(ESRCH, errno);
        WAIT_UNTIL(access("/proc/self", F_OK) == 0 && (snprintf(command, sizeof command, "/proc/%d", (int)child), access(command, F_OK)) == -1);
        shut(ready, go);
    }
}

CASE(own_ids_in_proc)
{
    pid_t main_pid = getpid();
    long group = getpgrp(), session = getsid(0);
    IN_CHILD({
        long pid, parent, its_group, its_session;
        char text[4000] = { 0 }, want[40], own[20];
        (void)stat_of("self", &pid, &parent, &its_group, &its_session);
        EQUAL(getpid(), pid);
        EQUAL(main_pid, parent);
        EQUAL(group, its_group);
        EQUAL(session, its_session);
        int fd = (int)SYS(open("/proc/self/status", O_RDONLY));
        CHECK(read(fd, text, sizeof text - 1) > 0);
        snprintf(want, sizeof want, "\nPid:\t%d\n", (int)getpid());
        CHECK(strstr(text, want) != NULL);
        snprintf(want, sizeof want, "\nPPid:\t%d\n", (int)main_pid);
        CHECK(strstr(text, want) != NULL);
        /* Its own descriptors, by every name of the directory. */
        struct stat here, there;
        SYS(fstat(fd, &here));
        for (int i = 0; i < 4; i++) {
            snprintf(text, sizeof text, i == 0 ? "/proc/self/fd/%d" : i == 1 ? "/dev/fd/%d" : i == 2 ? "/proc/%2$d/fd/%1$d" : "/proc/self/task/%2$d/fd/%1$d", fd, (int)getpid());
            SYS(stat(text, &there));
            EQUAL(here.st_ino, there.st_ino);
        }
        SYS(readlink("/proc/self", own, sizeof own - 1));
        EQUAL(getpid(), atoi(own));
    });
}

static int oom_score_adj(const char *process)
{
    char path[100];
    int value;
    snprintf(path, sizeof path, "/proc/%s/oom_score_adj", process);
    FILE *f = fopen(path, "r");
    CHECK(f != NULL && fscanf(f, "%d", &value) == 1);
    fclose(f);
    return value;
}

static void set_oom_score_adj(const char *process, int value)
{
    char path[100], text[20];
    snprintf(path, sizeof path, "/proc/%s/oom_score_adj", process);
    int fd = (int)SYS(open(path, O_WRONLY));
    int length = snprintf(text, sizeof text, "%d", value);
    EQUAL(length, write(fd, text, (size_t)length));
    SYS(close(fd));
}

/* What the out-of-memory killer thinks of a child is the child's own affair, at its first instruction and later. */
CASE(oom_score_adj)
{
    int before = oom_score_adj("self"), own[2], go[2];
    for (int round = 0; round < 3; round++) {
        char c, name[20], command[200], out[100];
        SYS(pipe(own));
        SYS(pipe(go));
        fflush(NULL);
        pid_t child = (pid_t)SYS(fork());
        if (child == 0) {
            sleep_ms(round * 15);
            EQUAL(before, oom_score_adj("self"));
            set_oom_score_adj(round == 1 ? "thread-self" : "self", before + 3 + round);
            EQUAL(before + 3 + round, oom_score_adj("self"));
            EQUAL(1, write(own[1], "r", 1));
            EQUAL(1, read(go[0], &c, 1));
            EQUAL(before + 50, oom_score_adj("self"));
            _exit(0);
        }
        EQUAL(1, read(own[0], &c, 1));
        EQUAL(before, oom_score_adj("self"));
        snprintf(name, sizeof name, "%d", (int)child);
        EQUAL(before + 3 + round, oom_score_adj(name));
        snprintf(command, sizeof command, "cat /proc/%d/oom_score_adj", (int)child);
        EQUAL(0, run_shell(command, out, sizeof out));
        EQUAL(before + 3 + round, atoi(out));
        set_oom_score_adj(name, before + 50);
        EQUAL(before, oom_score_adj("self"));
        EQUAL(1, write(go[1], "g", 1));
        expect_exit(child, 0);
        shut(own, go);
    }
}

/* From another program, with the number that fork returned. */
CASE(killed_from_outside_by_number)
{
    static const struct { const char *signal; int status; } rounds[] = { { "USR1", 5 << 8 }, { "KILL", SIGKILL }, { "TERM", SIGTERM }, { "USR1", 5 << 8 } };
    for (int i = 0; i < 4; i++) {
        int ready[2], go[2], status;
        char command[100], out[100];
        pid_t child = child_that_waits(ready, go);
        sleep_ms(i * 12);
        snprintf(command, sizeof command, "kill -%s %d", rounds[i].signal, (int)child);
        EQUAL(0, run_shell(command, out, sizeof out));
        EQUAL(child, waitpid(child, &status, 0));
        EQUAL(rounds[i].status, status);
        shut(ready, go);
    }
}

/* A signal to a child of the program's own making comes once, whichever way it is named, and none is left for the host to add. */
CASE(signals_by_every_name)
{
    int ready[2], go[2], status;
    pid_t child = child_that_waits(ready, go);
    EQUAL(0, kill(child, 0));
    EQUAL(-1, kill(-child, 0));
    EQUAL(ESRCH, errno);
    EQUAL(-1, syscall(SYS_tgkill, getpid(), child, SIGUSR1));
    EQUAL(ESRCH, errno);
    SYS(syscall(SYS_tgkill, child, child, SIGUSR1));
    EQUAL(child, waitpid(child, &status, 0));
    EQUAL(5 << 8, status);
    shut(ready, go);
    child = child_that_waits(ready, go);
    SYS(syscall(SYS_tkill, child, SIGUSR1));
    EQUAL(child, waitpid(child, &status, 0));
    EQUAL(5 << 8, status);
    shut(ready, go);
    child = child_that_waits(ready, go);
    SYS(setpgid(child, child));
    EQUAL(0, kill(-child, 0));
    SYS(kill(-child, SIGUSR1));
    EQUAL(child, waitpid(child, &status, 0));
    EQUAL(5 << 8, status);
    shut(ready, go);
}

/* Calls that name a thread by its id reach the child's, not what stands for it. */
CASE(scheduling_by_pid)
{
    int ready[2], go[2];
    pid_t child = child_that_waits(ready, go);
    cpu_set_t set;
    struct sched_param parameter;
    SYS(sched_getaffinity(child, sizeof set, &set));
    CHECK(CPU_COUNT(&set) > 0);
    SYS(sched_setaffinity(child, sizeof set, &set));
    EQUAL(SCHED_OTHER, sched_getscheduler(child));
    SYS(sched_getparam(child, &parameter));
    errno = 0;
    int nice_before = getpriority(PRIO_PROCESS, 0);
    SYS(setpriority(PRIO_PROCESS, (id_t)child, nice_before + 1));
    EQUAL(nice_before + 1, getpriority(PRIO_PROCESS, (id_t)child));
    EQUAL(nice_before, getpriority(PRIO_PROCESS, 0));
    SYS(close(go[1]));
    expect_exit(child, 3);
    shut(ready, go);
    IN_CHILD({
        SYS(setpriority(PRIO_PROCESS, (id_t)getpid(), nice_before + 2));
        EQUAL(nice_before + 2, getpriority(PRIO_PROCESS, 0));
        clockid_t clock;
        struct timespec t;
        EQUAL(0, pthread_getcpuclockid(pthread_self(), &clock));
        SYS(clock_gettime(clock, &t));
        CHECK(t.tv_sec > 0 || t.tv_nsec > 0);
    });
}

/* A mutex with priority inheritance is handed on by the host's kernel, which must know who has it. */
CASE(priority_inheritance)
{
    struct shared { pthread_mutex_t mutex; volatile int turns[2]; } *shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
    EQUAL(0, pthread_mutex_init(&shared->mutex, &attributes));
    fflush(NULL);
    pid_t child = (pid_t)SYS(fork());
    int which = child == 0;
    for (int i = 0; i < 200; i++) {
        EQUAL(0, pthread_mutex_lock(&shared->mutex));
        shared->turns[which]++;
        if (i % 10 == 0)
            usleep(300);
        EQUAL(0, pthread_mutex_unlock(&shared->mutex));
    }
    if (child == 0)
        _exit(0);
    expect_exit(child, 0);
    EQUAL(200, shared->turns[0]);
    EQUAL(200, shared->turns[1]);
    SYS(munmap(shared, PAGE));
}

/* Numbers are not given anew while a child that has one is not waited for, and are all different. */
CASE(many_pids)
{
    enum { count = 40 };
    pid_t pids[count];
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < count; i++) {
            pids[i] = (pid_t)SYS(fork());
            if (pids[i] == 0)
                _exit(i);
            for (int j = 0; j < i; j++)
                CHECK(pids[i] != pids[j]);
        }
        for (int i = 0; i < count; i++)
            expect_exit(pids[i], i);
    }
}

static long resident(void)
{
    FILE *f = fopen("/proc/self/statm", "r");
    long size, pages;
    CHECK(f != NULL && fscanf(f, "%ld %ld", &size, &pages) == 2);
    fclose(f);
    return pages * 4 / 1024;
}

/* Copies made for a child are given back after its end, but for a reserve. */
CASE(memory_given_back)
{
    const size_t size = 192UL << 20;
    unsigned char *m = map_anonymous(size);
    for (size_t i = 0; i < size; i += PAGE)
        m[i] = 1;
    int p[2];
    SYS(pipe(p));
    fflush(NULL);
    long before = resident();
    pid_t child = (pid_t)SYS(fork());
    if (child == 0) {
        char c;
        SYS(close(p[1]));
        EQUAL(0, read(p[0], &c, 1));
        for (size_t i = 0; i < size; i += PAGE)
            EQUAL(1, m[i]);
        _exit(0);
    }
    SYS(close(p[0]));
    for (size_t i = 0; i < size; i += PAGE)
        m[i] = 2;
    SYS(close(p[1]));
    expect_exit(child, 0);
    for (int tries = 0; resident() > before + 64; tries++) {
        CHECK(tries < 300);
        usleep(100000);
    }
    SYS(munmap(m, size));
}

/* What the program has closed stays closed, whatever Privy does for its children meanwhile: bash closes the ends of its pipes twice. */
CASE(what_is_closed_stays_closed)
{
    int first = (int)SYS(dup(0));
    SYS(close(first));
    for (int round = 0; round < 40; round++) {
        pid_t child = (pid_t)SYS(fork());
        if (child == 0)
            _exit(0);
        for (double end = now() + 0.01; now() < end;) {
            for (int fd = first; fd < first + 3; fd++) {
                errno = 0;
                EQUAL(-1, close(fd));
                EQUAL(EBADF, errno);
            }
        }
        expect_exit(child, 0);
    }
}
