/* Signals: handlers with all their arguments, masks, stacks, restarts, timers, queues. */
#include "testlib.h"
#include <sys/epoll.h>
#include <poll.h>
#include <setjmp.h>
#include <sys/resource.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/time.h>
#include <termios.h>
#include <ucontext.h>

static volatile int count, last_signal, last_code, last_value, depth, deepest;
static volatile pid_t last_pid;
static int order[100];
static volatile int ordered;

/* Each case begins with nothing counted. */
void before_case(void) { count = depth = deepest = ordered = 0; signal(SIGUSR1, SIG_DFL); signal(SIGUSR2, SIG_DFL); }

static void record(int s, siginfo_t *i, void *c)
{
    (void)c;
    last_signal = s;
    last_code = i->si_code;
    last_pid = i->si_pid;
    last_value = i->si_value.sival_int;
    if (ordered < 100)
        order[ordered++] = s;
    count++;
}

static void plain(int s) { (void)s; count++; }

static void handle(int s, void (*f)(int, siginfo_t *, void *), int flags)
{
    struct sigaction a = { .sa_sigaction = f, .sa_flags = SA_SIGINFO | flags };
    SYS(sigaction(s, &a, NULL));
}

static void block(int how, int s)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, s);
    EQUAL(0, pthread_sigmask(how, &set, NULL));
}

CASE(siginfo)
{
    handle(SIGUSR1, record, 0);
    SYS(kill(getpid(), SIGUSR1));
    EQUAL(1, count);
    EQUAL(SIGUSR1, last_signal);
    EQUAL(SI_USER, last_code);
    EQUAL(getpid(), last_pid);
    SYS(sigqueue(getpid(), SIGUSR1, (union sigval){ .sival_int = 1234 }));
    EQUAL(2, count);
    EQUAL(SI_QUEUE, last_code);
    EQUAL(1234, last_value);
    raise(SIGUSR1);
    EQUAL(3, count);
    EQUAL(SI_TKILL, last_code);
}

CASE(dispositions)
{
    struct sigaction a = { .sa_handler = plain, .sa_flags = SA_RESTART }, b;
    sigemptyset(&a.sa_mask);
    sigaddset(&a.sa_mask, SIGUSR2);
    SYS(sigaction(SIGUSR1, &a, NULL));
    SYS(sigaction(SIGUSR1, NULL, &b));
    CHECK(b.sa_handler == plain && (b.sa_flags & SA_RESTART) && sigismember(&b.sa_mask, SIGUSR2) && !sigismember(&b.sa_mask, SIGUSR1));
    EQUAL(-1, sigaction(SIGKILL, &a, NULL));
    EQUAL(EINVAL, errno);
    signal(SIGUSR1, SIG_IGN);
    raise(SIGUSR1);
    EQUAL(0, count);
    a.sa_flags = (int)SA_RESETHAND;
    SYS(sigaction(SIGUSR1, &a, NULL));
    raise(SIGUSR1);
    EQUAL(1, count);
    SYS(sigaction(SIGUSR1, NULL, &b));
    CHECK(b.sa_handler == SIG_DFL);
}

static void nesting(int s, siginfo_t *i, void *c)
{
    (void)i;
    (void)c;
    depth++;
    if (depth > deepest)
        deepest = depth;
    if (s == SIGUSR1)
        raise(SIGUSR2);
    else if (s == SIGUSR2)
        raise(SIGHUP);
    depth--;
    count++;
}

CASE(nested)
{
    handle(SIGUSR1, nesting, 0);
    handle(SIGUSR2, nesting, 0);
    handle(SIGHUP, nesting, 0);
    raise(SIGUSR1);
    EQUAL(3, count);
    EQUAL(3, deepest);
    EQUAL(0, depth);
}

static void again(int s, siginfo_t *i, void *c)
{
    (void)i;
    (void)c;
    depth++;
    if (depth > deepest)
        deepest = depth;
    if (count++ < 3)
        raise(s);
    depth--;
}

/* The signal itself is blocked in its handler, unless SA_NODEFER. */
CASE(deferred)
{
    handle(SIGUSR1, again, 0);
    raise(SIGUSR1);
    EQUAL(4, count);
    EQUAL(1, deepest);
    count = deepest = 0;
    handle(SIGUSR1, again, SA_NODEFER);
    raise(SIGUSR1);
    EQUAL(4, count);
    EQUAL(4, deepest);
}

CASE(blocked_and_pending)
{
    handle(SIGUSR1, record, 0);
    handle(SIGUSR2, record, 0);
    block(SIG_BLOCK, SIGUSR1);
    raise(SIGUSR1);
    raise(SIGUSR1);
    EQUAL(0, count);
    sigset_t set;
    sigpending(&set);
    CHECK(sigismember(&set, SIGUSR1) && !sigismember(&set, SIGUSR2));
    block(SIG_UNBLOCK, SIGUSR1);
    EQUAL(1, count);        /* ordinary signals do not queue */
    sigpending(&set);
    CHECK(!sigismember(&set, SIGUSR1));
}

CASE(real_time_queue)
{
    int rt = SIGRTMIN + 3;
    handle(rt, record, 0);
    handle(rt + 1, record, 0);
    block(SIG_BLOCK, rt);
    block(SIG_BLOCK, rt + 1);
    SYS(sigqueue(getpid(), rt + 1, (union sigval){ .sival_int = 50 }));
    for (int i = 0; i < 5; i++)
        SYS(sigqueue(getpid(), rt, (union sigval){ .sival_int = i }));
    sigset_t set;
    siginfo_t info;
    sigemptyset(&set);
    sigaddset(&set, rt);
    for (int i = 0; i < 3; i++) {
        EQUAL(rt, sigwaitinfo(&set, &info));
        EQUAL(i, info.si_value.sival_int);
    }
    block(SIG_UNBLOCK, rt);
    EQUAL(2, count);
    EQUAL(4, last_value);
    block(SIG_UNBLOCK, rt + 1);
    EQUAL(3, count);
    EQUAL(50, last_value);
}

/* Inside a handler the mask is old | sa_mask | the signal; afterwards it is the old one. */
static sigset_t inside;
static void get_mask(int s) { (void)s; pthread_sigmask(SIG_BLOCK, NULL, &inside); }

CASE(mask_in_handler)
{
    struct sigaction a = { .sa_handler = get_mask };
    sigaddset(&a.sa_mask, SIGUSR2);
    SYS(sigaction(SIGUSR1, &a, NULL));
    block(SIG_BLOCK, SIGHUP);
    raise(SIGUSR1);
    CHECK(sigismember(&inside, SIGUSR1) && sigismember(&inside, SIGUSR2) && sigismember(&inside, SIGHUP) && !sigismember(&inside, SIGTERM));
    sigset_t after;
    pthread_sigmask(SIG_BLOCK, NULL, &after);
    CHECK(!sigismember(&after, SIGUSR1) && !sigismember(&after, SIGUSR2) && sigismember(&after, SIGHUP));
    block(SIG_UNBLOCK, SIGHUP);
}

/* A handler may change what the program continues with: mask and registers of the saved context. */
static void change_context(int s, siginfo_t *i, void *c)
{
    (void)s;
    (void)i;
    ucontext_t *u = c;
    u->uc_mcontext.gregs[REG_RIP] += 2;        /* over the ud2 */
    u->uc_mcontext.gregs[REG_RBX] = 0x1234567890abcdef;
    sigaddset(&u->uc_sigmask, SIGWINCH);
    count++;
}

CASE(changed_context)
{
    handle(SIGILL, change_context, 0);
    unsigned long rbx = 1;
    __asm__ volatile("ud2" : "+b"(rbx));
    EQUAL(1, count);
    CHECK(rbx == 0x1234567890abcdef);
    sigset_t mask;
    pthread_sigmask(SIG_BLOCK, NULL, &mask);
    CHECK(sigismember(&mask, SIGWINCH));
    signal(SIGILL, SIG_DFL);
}

/* All general registers and the flags survive an asynchronous signal: a loop whose result depends on each. */
CASE(registers_survive)
{
    struct sigaction a = { .sa_handler = plain };
    SYS(sigaction(SIGALRM, &a, NULL));
    struct itimerval t = { { 0, 500 }, { 0, 500 } }, off = { { 0, 0 }, { 0, 0 } };
    SYS(setitimer(ITIMER_REAL, &t, NULL));
    double until = now() + 20;
    int rounds = 0;
    while (count < 50 && now() < until) {
        unsigned long r[6] = { 0 }, n = 100000;
        __asm__ volatile(
            "xor %%r8, %%r8\n mov $1, %%r9\n mov $2, %%r10\n mov $3, %%r11\n mov $4, %%r12\n mov $5, %%r13\n"
            "1: add %%r9, %%r8\n adc %%r10, %%r8\n add %%r11, %%r8\n sub %%r12, %%r8\n add %%r13, %%r8\n dec %0\n jnz 1b\n"
            "mov %%r8, (%1)\n mov %%r9, 8(%1)\n mov %%r10, 16(%1)\n mov %%r11, 24(%1)\n mov %%r12, 32(%1)\n mov %%r13, 40(%1)\n"
            : "+r"(n) : "r"(r) : "r8", "r9", "r10", "r11", "r12", "r13", "memory", "cc");
        EQUAL(100000L * 7, r[0]);
        CHECK(r[1] == 1 && r[2] == 2 && r[3] == 3 && r[4] == 4 && r[5] == 5);
        rounds++;
    }
    SYS(setitimer(ITIMER_REAL, &off, NULL));
    CHECK(count >= 50);
}

/* The red zone below the stack pointer belongs to the interrupted function. */
CASE(red_zone)
{
    struct sigaction a = { .sa_handler = plain };
    SYS(sigaction(SIGALRM, &a, NULL));
    struct itimerval t = { { 0, 0 }, { 0, 20000 } };
    for (int i = 0; i < 5; i++) {
        count = 0;
        SYS(setitimer(ITIMER_REAL, &t, NULL));
        unsigned long bad = 0;
        __asm__ volatile(
            "lea -4096(%%rsp), %%rsp\n"
            "mov $0x1122334455667788, %%rax\n mov %%rax, -8(%%rsp)\n mov %%rax, -64(%%rsp)\n mov %%rax, -128(%%rsp)\n"
            "1: pause\n cmpl $0, (%1)\n je 1b\n"
            "cmp %%rax, -8(%%rsp)\n jne 2f\n cmp %%rax, -64(%%rsp)\n jne 2f\n cmp %%rax, -128(%%rsp)\n je 3f\n"
            "2: inc %0\n3: lea 4096(%%rsp), %%rsp\n" : "+r"(bad) : "r"(&count) : "rax", "memory", "cc");
        EQUAL(0, bad);
    }
}

static stack_t alternate;
static sigjmp_buf jump;
static void *volatile handler_frame, *volatile bad_address;

static void overflowed(int s, siginfo_t *i, void *c)
{
    (void)c;
    char here;
    handler_frame = &here;
    bad_address = i->si_addr;
    last_signal = s;
    siglongjmp(jump, 1);
}

__attribute__((noinline)) static int recurse(volatile char *before)
{
    volatile char frame[4000];
    frame[0] = before ? before[0] : 1;
    if (frame[0] == 2)
        return 0;       /* never: for the compiler, which refuses endless recursion */
    return recurse(frame) + frame[0];
}

static void overflow(void)
{
    alternate.ss_size = 65536;
    alternate.ss_sp = malloc(alternate.ss_size);
    alternate.ss_flags = 0;
    SYS(sigaltstack(&alternate, NULL));
    handle(SIGSEGV, overflowed, SA_ONSTACK);
    for (int i = 0; i < 2; i++) {
        last_signal = 0;
        if (sigsetjmp(jump, 1) == 0)
            recurse(NULL);
        EQUAL(SIGSEGV, last_signal);
        CHECK((char *)handler_frame >= (char *)alternate.ss_sp && (char *)handler_frame < (char *)alternate.ss_sp + alternate.ss_size);
    }
    signal(SIGSEGV, SIG_DFL);
}

CASE(stack_overflow_on_alternate_stack)
{
    struct rlimit r;
    SYS(getrlimit(RLIMIT_STACK, &r));
    overflow();
}

static void *overflow_thread(void *a) { (void)a; overflow(); return NULL; }

CASE(stack_overflow_in_a_thread)
{
    pthread_t t;
    EQUAL(0, pthread_create(&t, NULL, overflow_thread, NULL));
    EQUAL(0, pthread_join(t, NULL));
}

CASE(alternate_stack_rules)
{
    stack_t s, old;
    s.ss_sp = malloc(65536);
    s.ss_size = 65536;
    s.ss_flags = 0;
    SYS(sigaltstack(&s, NULL));
    SYS(sigaltstack(NULL, &old));
    CHECK(old.ss_sp == s.ss_sp && old.ss_size == 65536 && old.ss_flags == 0);
    s.ss_size = 100;
    EQUAL(-1, sigaltstack(&s, NULL));
    EQUAL(ENOMEM, errno);
    s.ss_flags = SS_DISABLE;
    SYS(sigaltstack(&s, NULL));
    SYS(sigaltstack(NULL, &old));
    CHECK(old.ss_flags & SS_DISABLE);
}

static void jump_out(int s) { (void)s; count++; siglongjmp(jump, count); }

CASE(siglongjmp)
{
    struct sigaction a = { .sa_handler = jump_out };
    SYS(sigaction(SIGUSR1, &a, NULL));
    for (volatile int i = 1; i <= 100; i++) {
        int r = sigsetjmp(jump, 1);
        if (r == 0)
            raise(SIGUSR1);
        EQUAL(i, r ? r : -1);
    }
}

static int pipe_fd[2];
static pthread_t main_thread;
static void *signal_then_write(void *a)
{
    (void)a;
    sleep_ms(60);
    pthread_kill(main_thread, SIGUSR1);
    sleep_ms(60);
    EQUAL(1, write(pipe_fd[1], "x", 1));
    return NULL;
}

CASE(restart)
{
    for (int restart = 1; restart >= 0; restart--) {
        struct sigaction a = { .sa_handler = plain, .sa_flags = restart ? SA_RESTART : 0 };
        SYS(sigaction(SIGUSR1, &a, NULL));
        SYS(pipe(pipe_fd));
        main_thread = pthread_self();
        pthread_t t;
        EQUAL(0, pthread_create(&t, NULL, signal_then_write, NULL));
        char c;
        long r = read(pipe_fd[0], &c, 1);
        if (restart) {
            EQUAL(1, r);
        } else {
            EQUAL(-1, r);
            EQUAL(EINTR, errno);
        }
        EQUAL(0, pthread_join(t, NULL));
    }
    EQUAL(2, count);
}

static void *signal_later(void *a) { (void)a; sleep_ms(60); pthread_kill(main_thread, SIGUSR1); return NULL; }

/* These are interrupted whatever SA_RESTART says. */
CASE(never_restarted)
{
    struct sigaction a = { .sa_handler = plain, .sa_flags = SA_RESTART };
    SYS(sigaction(SIGUSR1, &a, NULL));
    main_thread = pthread_self();
    for (int i = 0; i < 5; i++) {
        pthread_t t;
        EQUAL(0, pthread_create(&t, NULL, signal_later, NULL));
        long r;
        struct timespec s = { 30, 0 };
        sigset_t none;
        sigemptyset(&none);
        switch (i) {
        case 0: r = poll(NULL, 0, 30000); break;
        case 1: r = nanosleep(&s, &s); CHECK(s.tv_sec >= 20); break;
        case 2: r = pause(); break;
        case 3: r = sigsuspend(&none); break;
        default: r = select(0, NULL, NULL, NULL, &(struct timeval){ 30, 0 });
        }
        EQUAL(-1, r);
        EQUAL(EINTR, errno);
        EQUAL(i + 1, count);
        EQUAL(0, pthread_join(t, NULL));
    }
}

/* An ignored signal does not interrupt. */
CASE(ignored_signal_does_not_interrupt)
{
    signal(SIGUSR1, SIG_IGN);
    SYS(pipe(pipe_fd));
    main_thread = pthread_self();
    pthread_t t;
    EQUAL(0, pthread_create(&t, NULL, signal_then_write, NULL));
    char c;
    EQUAL(1, read(pipe_fd[0], &c, 1));
    EQUAL(0, pthread_join(t, NULL));
}

CASE(timers)
{
    struct sigaction a = { .sa_handler = plain };
    SYS(sigaction(SIGALRM, &a, NULL));
    struct itimerval t = { { 0, 10000 }, { 0, 10000 } }, off = { { 0, 0 }, { 0, 0 } };
    double start = now();
    SYS(setitimer(ITIMER_REAL, &t, NULL));
    WAIT_UNTIL(count >= 5);
    CHECK(now() - start >= 0.045);
    SYS(setitimer(ITIMER_REAL, &off, NULL));
    int n = count;
    sleep_ms(40);
    EQUAL(n, count);
    EQUAL(0, alarm(100));
    CHECK(alarm(0) >= 99);
    count = 0;
    alarm(1);
    EQUAL(-1, pause());
    EQUAL(1, count);
}

/* A timer reaches a program that makes no system calls. */
CASE(timer_in_a_loop)
{
    struct sigaction a = { .sa_handler = plain };
    SYS(sigaction(SIGALRM, &a, NULL));
    struct itimerval t = { { 0, 0 }, { 0, 30000 } };
    SYS(setitimer(ITIMER_REAL, &t, NULL));
    for (volatile long i = 0; !count; i++)
        __builtin_ia32_pause();
    EQUAL(1, count);
}

CASE(posix_timer)
{
    handle(SIGRTMIN + 1, record, 0);
    struct sigevent e = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 1, .sigev_value.sival_int = 88 };
    timer_t timer;
    SYS(timer_create(CLOCK_MONOTONIC, &e, &timer));
    struct itimerspec t = { { 0, 0 }, { 0, 20000000 } };
    SYS(timer_settime(timer, 0, &t, NULL));
    WAIT_UNTIL(count == 1);
    EQUAL(88, last_value);
    EQUAL(SI_TIMER, last_code);
    SYS(timer_delete(timer));
}

CASE(cpu_timer)
{
    struct sigaction a = { .sa_handler = plain };
    SYS(sigaction(SIGVTALRM, &a, NULL));
    struct itimerval t = { { 0, 0 }, { 0, 30000 } };
    SYS(setitimer(ITIMER_VIRTUAL, &t, NULL));
    double until = now() + 30;
    while (!count && now() < until) {}
    EQUAL(1, count);
}

CASE(sigwaitinfo)
{
    sigset_t set;
    siginfo_t info;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2);
    block(SIG_BLOCK, SIGUSR1);
    block(SIG_BLOCK, SIGUSR2);
    SYS(kill(getpid(), SIGUSR2));
    EQUAL(SIGUSR2, sigwaitinfo(&set, &info));
    EQUAL(getpid(), info.si_pid);
    struct timespec t = { 0, 30000000 };
    EQUAL(-1, sigtimedwait(&set, &info, &t));
    EQUAL(EAGAIN, errno);
    main_thread = pthread_self();
    pthread_t thread;
    EQUAL(0, pthread_create(&thread, NULL, signal_later, NULL));
    EQUAL(SIGUSR1, sigwaitinfo(&set, &info));
    EQUAL(SI_USER, info.si_code);       /* the C library makes this of SI_TKILL */
    EQUAL(0, pthread_join(thread, NULL));
    block(SIG_UNBLOCK, SIGUSR1);
    block(SIG_UNBLOCK, SIGUSR2);
}

static volatile pid_t tids[3], handled_by;
static volatile int quit;
static void note_thread(int s) { (void)s; handled_by = (pid_t)syscall(SYS_gettid); count++; }
static void *wait_for_signal(void *a)
{
    tids[(long)a] = (pid_t)syscall(SYS_gettid);
    if ((long)a == 0)
        while (!quit) {}
    else
        while (!quit)
            usleep(1000);
    return NULL;
}

CASE(tgkill)
{
    struct sigaction a = { .sa_handler = note_thread };
    SYS(sigaction(SIGUSR1, &a, NULL));
    pthread_t t[3];
    for (long i = 0; i < 3; i++) {
        EQUAL(0, pthread_create(&t[i], NULL, wait_for_signal, (void *)i));
        WAIT_UNTIL(tids[i]);
    }
    for (int i = 0; i < 30; i++) {
        int before = count;
        SYS(syscall(SYS_tgkill, getpid(), tids[i % 3], SIGUSR1));
        WAIT_UNTIL(count == before + 1);
        EQUAL(tids[i % 3], handled_by);
    }
    quit = 1;
    for (int i = 0; i < 3; i++)
        EQUAL(0, pthread_join(t[i], NULL));
    /* A thread that has been joined may still be on its last instructions in the kernel, and can be sent signals until then. */
    WAIT_UNTIL(syscall(SYS_tgkill, getpid(), tids[0], SIGUSR1) == -1);
    EQUAL(ESRCH, errno);
}

/* A signal for the process goes to a thread that does not block it. */
CASE(delivered_to_an_unblocked_thread)
{
    struct sigaction a = { .sa_handler = note_thread };
    SYS(sigaction(SIGUSR1, &a, NULL));
    pthread_t t;
    quit = 0;
    /* Another case's thread may have been there. */
    tids[1] = 0;
    EQUAL(0, pthread_create(&t, NULL, wait_for_signal, (void *)1L));
    WAIT_UNTIL(tids[1]);
    block(SIG_BLOCK, SIGUSR1);
    for (int i = 0; i < 10; i++) {
        SYS(kill(getpid(), SIGUSR1));
        WAIT_UNTIL(count == i + 1);
        EQUAL(tids[1], handled_by);
    }
    quit = 1;
    EQUAL(0, pthread_join(t, NULL));
    block(SIG_UNBLOCK, SIGUSR1);
}

/* Many signals while system calls run: none is lost, no call gives a wrong result. */
static void *shower(void *a)
{
    for (int i = 0; i < 2000 && !quit; i++) {
        pthread_kill(main_thread, SIGUSR1);
        if (i % 10 == 0)
            sleep_ms(1);
    }
    return a;
}

CASE(shower)
{
    struct sigaction a = { .sa_handler = plain, .sa_flags = SA_RESTART };
    SYS(sigaction(SIGUSR1, &a, NULL));
    main_thread = pthread_self();
    quit = 0;
    pthread_t t;
    SYS(pipe(pipe_fd));
    EQUAL(0, pthread_create(&t, NULL, shower, NULL));
    WAIT_UNTIL(count > 0);
    for (int i = 0; i < 3000; i++) {
        unsigned char out[200], in[200];
        fill(out, sizeof out, (uint64_t)i);
        EQUAL(sizeof out, write(pipe_fd[1], out, sizeof out));
        EQUAL(sizeof in, read(pipe_fd[0], in, sizeof in));
        HOLDS(in, 0, sizeof in, (uint64_t)i);
    }
    quit = 1;
    EQUAL(0, pthread_join(t, NULL));
    CHECK(count > 0);
}

/* Handlers that fork, and forks under a shower of signals. */
static void fork_in_handler(int s)
{
    (void)s;
    pid_t pid = fork();
    if (pid == 0)
        _exit(21);
    expect_exit(pid, 21);
    count++;
}

CASE(fork_in_a_handler)
{
    struct sigaction a = { .sa_handler = fork_in_handler };
    SYS(sigaction(SIGUSR1, &a, NULL));
    for (int i = 0; i < 5; i++)
        raise(SIGUSR1);
    EQUAL(5, count);
}

CASE(fork_under_signals)
{
    struct sigaction a = { .sa_handler = plain, .sa_flags = SA_RESTART };
    SYS(sigaction(SIGALRM, &a, NULL));
    struct itimerval t = { { 0, 1000 }, { 0, 1000 } }, off = { { 0, 0 }, { 0, 0 } };
    SYS(setitimer(ITIMER_REAL, &t, NULL));
    for (int i = 0; i < 40; i++) {
        pid_t pid = (pid_t)SYS(fork());
        if (pid == 0)
            _exit(i);
        expect_exit(pid, i);
    }
    SYS(setitimer(ITIMER_REAL, &off, NULL));
}

/* Timers are not inherited. */
CASE(timers_are_not_inherited)
{
    alarm(50);
    IN_CHILD({ EQUAL(0, alarm(0)); });
    CHECK(alarm(0) > 0);
}

CASE(default_actions)
{
    int fatal[] = { SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGPIPE, SIGALRM, SIGTERM, SIGVTALRM, SIGPROF, SIGXCPU, SIGSYS, SIGTRAP, SIGBUS, SIGFPE, SIGIO };
    int harmless[] = { SIGCHLD, SIGURG, SIGWINCH, SIGCONT };
    struct rlimit none = { 0, 0 };
    setrlimit(RLIMIT_CORE, &none);
    for (size_t i = 0; i < sizeof fatal / sizeof *fatal; i++) {
        pid_t pid = (pid_t)SYS(fork());
        int status;
        if (pid == 0) {
            signal(fatal[i], SIG_DFL);
            raise(fatal[i]);
            _exit(0);
        }
        EQUAL(pid, waitpid(pid, &status, 0));
        CHECK(WIFSIGNALED(status));
        EQUAL(fatal[i], WTERMSIG(status));
    }
    for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++)
        raise(harmless[i]);
}

/* ---- signalfd ---- */

static struct signalfd_siginfo read_signal(int fd)
{
    struct signalfd_siginfo info[2];
    EQUAL(sizeof info[0], read(fd, info, sizeof info));
    return info[0];
}

static int is_readable(int fd, int timeout)
{
    struct pollfd p = { fd, POLLIN, 0 };
    return (int)SYS(poll(&p, 1, timeout));
}

static void *kills_after_a_while(void *unused)
{
    (void)unused;
    sleep_ms(50);
    kill(getpid(), SIGUSR2);
    return NULL;
}

CASE(signalfd)
{
    sigset_t set, old;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGRTMIN + 2);
    SYS(sigprocmask(SIG_BLOCK, &set, &old));
    int fd = (int)SYS(signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
    EQUAL(FD_CLOEXEC, fcntl(fd, F_GETFD));
    struct signalfd_siginfo info;
    EQUAL(-1, read(fd, &info, sizeof info));
    EQUAL(EAGAIN, errno);
    EQUAL(-1, read(fd, &info, sizeof info - 1));
    EQUAL(EINVAL, errno);
    EQUAL(0, is_readable(fd, 0));

    /* From kill: who sent it. */
    kill(getpid(), SIGUSR1);
    EQUAL(1, is_readable(fd, 40000));
    info = read_signal(fd);
    EQUAL(SIGUSR1, info.ssi_signo);
    EQUAL(SI_USER, info.ssi_code);
    EQUAL(getpid(), info.ssi_pid);
    EQUAL(getuid(), info.ssi_uid);
    EQUAL(0, is_readable(fd, 0));
    sigset_t pending;
    SYS(sigpending(&pending));
    EQUAL(0, sigismember(&pending, SIGUSR1));

    /* Queued signals with their values, in order, several at once, by a copy of the descriptor. */
    for (int i = 0; i < 3; i++)
        SYS(sigqueue(getpid(), SIGRTMIN + 2, (union sigval){ .sival_int = 70 + i }));
    struct signalfd_siginfo many[5];
    int copy = (int)SYS(dup(fd));
    EQUAL(3 * sizeof info, read(copy, many, sizeof many));
    for (int i = 0; i < 3; i++)
        EQUAL(70 + i, many[i].ssi_int);
    close(copy);

    /* A child's end, by epoll. */
    int epoll = (int)SYS(epoll_create1(0));
    struct epoll_event event = { .events = EPOLLIN, .data.u32 = 5 };
    SYS(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
    fflush(NULL);
    pid_t child = (pid_t)SYS(fork());
    if (child == 0)
        _exit(9);
    event.data.u32 = 0;
    EQUAL(1, epoll_wait(epoll, &event, 1, 40000));
    EQUAL(5, event.data.u32);
    info = read_signal(fd);
    EQUAL(SIGCHLD, info.ssi_signo);
    EQUAL(CLD_EXITED, info.ssi_code);
    EQUAL(child, info.ssi_pid);
    EQUAL(9, info.ssi_status);
    expect_exit(child, 9);
    close(epoll);

    /* Another mask; a blocking read that another thread's signal ends. */
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    SYS(sigprocmask(SIG_BLOCK, &set, NULL));
    EQUAL(fd, signalfd(fd, &set, 0));
    SYS(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK));
    pthread_t thread;
    pthread_create(&thread, NULL, kills_after_a_while, NULL);
    EQUAL(SIGUSR2, read_signal(fd).ssi_signo);
    pthread_join(thread, NULL);
    EQUAL(-1, signalfd(0, &set, 0));
    EQUAL(EINVAL, errno);

    /* A child reads its own signals. */
    IN_CHILD({ kill(getpid(), SIGUSR2); EQUAL(SIGUSR2, read_signal(fd).ssi_signo); });
    SYS(fcntl(fd, F_SETFL, O_NONBLOCK));
    EQUAL(-1, read(fd, &info, sizeof info));
    close(fd);

    /* Other reads are as ever, also of a pipe that has the number now. */
    int ends[2];
    SYS(pipe(ends));
    EQUAL(2, write(ends[1], "ab", 2));
    char text[10];
    EQUAL(2, read(ends[0], text, sizeof text));
    close(ends[0]);
    close(ends[1]);
    SYS(sigprocmask(SIG_SETMASK, &old, NULL));
}

/* ---- stopping and going on ---- */

/* By another program, which knows nothing but the pid. */
static void outside(const char *command, pid_t pid)
{
    char text[200];
    snprintf(text, sizeof text, "p=%d; %s", (int)pid, command);
    EQUAL(0, system(text));
}

/* The state of the process as another program sees it. */
static int is_outside(char state, pid_t pid)
{
    char text[200];
    snprintf(text, sizeof text, "grep -q '^State:.%c' /proc/%d/status", state, (int)pid);
    return system(text) == 0;
}

static void expect_stop(pid_t pid)
{
    int status = 0;
    EQUAL(pid, waitpid(pid, &status, WUNTRACED));
    CHECK(WIFSTOPPED(status));
    EQUAL(SIGSTOP, WSTOPSIG(status));
}

static void expect_continuation(pid_t pid)
{
    int status = 0;
    EQUAL(pid, waitpid(pid, &status, WCONTINUED | WUNTRACED));
    CHECK(WIFCONTINUED(status));
}

static void expect_killed(pid_t pid)
{
    int status = 0;
    EQUAL(pid, waitpid(pid, &status, WCONTINUED | WUNTRACED));
    CHECK(WIFSIGNALED(status));
    EQUAL(SIGKILL, WTERMSIG(status));
}

static void *counts(void *n)
{
    for (;;)
        ++*(volatile int *)n;
    return NULL;
}

static pid_t counting_child(volatile int *n)
{
    *n = 0;
    fflush(NULL);
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0)
        counts((void *)n);
    SPIN_UNTIL(*n > 10);
    return pid;
}

static void expect_no_count(volatile int *n)
{
    int before = *n;
    sleep_ms(50);
    EQUAL(before, *n);
}

static void expect_count(volatile int *n)
{
    int before = *n;
    SPIN_UNTIL(*n != before);
}

CASE(stopped_from_outside)
{
    volatile int *n = map_shared(PAGE);
    for (int round = 0; round < 8; round++) {
        pid_t pid = counting_child(n);
        /* At some time in its life: at once, or when it has lived for a while. */
        sleep_ms(round * 7);
        for (int i = 0; i < 2; i++) {
            if (round & 1)
                SYS(kill(pid, SIGSTOP));
            else
                outside("kill -STOP $p", pid);
            expect_stop(pid);
            expect_no_count(n);
            WAIT_UNTIL(is_outside('T', pid));
            if (round & 2)
                SYS(kill(pid, SIGCONT));
            else
                outside("kill -CONT $p", pid);
            expect_continuation(pid);
            expect_count(n);
            WAIT_UNTIL(!is_outside('T', pid));
        }
        outside("kill -STOP $p", pid);
        expect_stop(pid);
        if (round & 4)
            SYS(kill(pid, SIGKILL));
        else
            outside("kill -KILL $p", pid);
        expect_killed(pid);
    }
    SYS(munmap((void *)n, PAGE));
}

CASE(stops_of_threads)
{
    volatile int *n = map_shared(PAGE);
    fflush(NULL);
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0) {
        pthread_t t;
        EQUAL(0, pthread_create(&t, NULL, counts, (void *)(n + 1)));
        EQUAL(0, pthread_create(&t, NULL, counts, (void *)(n + 2)));
        counts((void *)n);
    }
    for (int i = 0; i < 3; i++)
        SPIN_UNTIL(n[i] > 10);
    outside("kill -STOP $p", pid);
    expect_stop(pid);
    /* The threads stop one after the other, and the last one's stop is the process's. */
    sleep_ms(100);
    for (int i = 0; i < 3; i++)
        expect_no_count(n + i);
    outside("kill -CONT $p", pid);
    expect_continuation(pid);
    for (int i = 0; i < 3; i++)
        expect_count(n + i);
    SYS(kill(pid, SIGKILL));
    expect_killed(pid);
    SYS(munmap((void *)n, PAGE));
}

static volatile int continued;
static void on_continue(int s) { (void)s; continued++; }

CASE(stops_itself)
{
    fflush(NULL);
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0) {
        signal(SIGCONT, on_continue);
        for (int i = 1; i <= 4; i++) {
            raise(SIGSTOP);
            EQUAL(i, continued);
        }
        _exit(7);
    }
    for (int i = 0; i < 4; i++) {
        expect_stop(pid);
        if (i & 1)
            SYS(kill(pid, SIGCONT));
        else
            outside("kill -CONT $p", pid);
    }
    expect_exit(pid, 7);
}

/* The end comes right after the continuation, of which nobody wants to hear, and is what is told. */
CASE(ends_when_continued)
{
    for (int i = 0; i < 100; i++) {
        fflush(NULL);
        pid_t pid = (pid_t)SYS(fork());
        if (pid == 0) {
            raise(SIGSTOP);
            _exit(i);
        }
        expect_stop(pid);
        SYS(kill(pid, SIGCONT));
        expect_exit(pid, i);
    }
}

/* The news of it that the parent gets. */
CASE(stops_are_told)
{
    volatile int *n = map_shared(PAGE);
    handle(SIGCHLD, record, 0);
    pid_t pid = counting_child(n);
    SYS(kill(pid, SIGSTOP));
    WAIT_UNTIL(count == 1);
    EQUAL(CLD_STOPPED, last_code);
    EQUAL(pid, last_pid);
    EQUAL(SIGSTOP, last_value);
    expect_stop(pid);
    SYS(kill(pid, SIGCONT));
    WAIT_UNTIL(count == 2);
    EQUAL(CLD_CONTINUED, last_code);
    EQUAL(SIGCONT, last_value);
    expect_continuation(pid);
    handle(SIGCHLD, record, SA_NOCLDSTOP);
    SYS(kill(pid, SIGSTOP));
    expect_stop(pid);
    SYS(kill(pid, SIGKILL));
    WAIT_UNTIL(count == 3);
    EQUAL(CLD_KILLED, last_code);
    EQUAL(SIGKILL, last_value);
    expect_killed(pid);
    signal(SIGCHLD, SIG_DFL);
    SYS(munmap((void *)n, PAGE));
}

/* One that is stopped and continued at once runs in the end, whoever was quicker. */
CASE(stop_and_continue_race)
{
    volatile int *n = map_shared(PAGE);
    pid_t pid = counting_child(n);
    for (int i = 0; i < 300; i++) {
        SYS(kill(pid, SIGSTOP));
        if (i % 3 == 0)
            expect_stop(pid);
        for (volatile int pause = 0; pause < i * 50; pause++) {}
        SYS(kill(pid, SIGCONT));
        expect_count(n);
    }
    for (int i = 0; i < 4; i++) {
        outside("for i in 1 2 3 4 5 6 7 8; do kill -STOP $p; kill -CONT $p; done", pid);
        WAIT_UNTIL(!is_outside('T', pid));
        sleep_ms(20);
        expect_count(n);
        outside("for i in 1 2 3 4 5 6 7 8; do kill -CONT $p; kill -STOP $p; done", pid);
        WAIT_UNTIL(is_outside('T', pid));
        sleep_ms(50);
        expect_no_count(n);
        SYS(kill(pid, SIGCONT));
        expect_count(n);
    }
    SYS(kill(pid, SIGSTOP));
    SYS(kill(pid, SIGKILL));
    int status;
    do
        EQUAL(pid, waitpid(pid, &status, WUNTRACED | WCONTINUED));
    while (!WIFSIGNALED(status));
    EQUAL(SIGKILL, WTERMSIG(status));
    SYS(munmap((void *)n, PAGE));
}

/* What Linux keeps for a process can be set while it is stopped. */
CASE(settings_of_a_stopped_child)
{
    for (int round = 0; round < 2; round++) {
        fflush(NULL);
        pid_t pid = (pid_t)SYS(fork());
        if (pid == 0) {
            raise(SIGSTOP);
            _exit(0);
        }
        expect_stop(pid);
        if (round == 1)
            sleep_ms(100);
        char path[100], text[20] = "";
        snprintf(path, sizeof path, "/proc/%d/oom_score_adj", (int)pid);
        int fd = (int)SYS(open(path, O_RDWR));
        EQUAL(4, write(fd, "777\n", 4));
        SYS(lseek(fd, 0, SEEK_SET));
        EQUAL(4, read(fd, text, sizeof text));
        EQUAL(777, atoi(text));
        SYS(close(fd));
        WAIT_UNTIL(is_outside('T', pid));
        SYS(kill(pid, SIGCONT));
        expect_exit(pid, 0);
    }
}

static volatile int keys_wanted, keys_pressed;
static volatile pid_t shell;

static void like_a_shell(int s)
{
    count++;
    /* In a child it is as if there had been no handler. */
    if (getpid() != shell) {
        signal(s, SIG_DFL);
        raise(s);
    }
}

static void child_was_left_out(int s)
{
    (void)s;
    FAIL("the terminal's signal has not reached the child (round %d, %d keys, parent has %d)", keys_wanted, keys_pressed, count);
}

static void *presses_keys(void *terminal)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    for (int i = 1; keys_wanted >= 0; i++) {
        while (keys_wanted >= 0 && keys_wanted < i)
            __builtin_ia32_pause();
        if (keys_wanted < 0)
            break;
        for (double end = now() + (double)(mix((uint64_t)i) % 1500) * 1e-6; now() < end;) {}
        EQUAL(1, write((int)(long)terminal, "\3", 1));
        keys_pressed = i;
    }
    return NULL;
}

/* Ctrl-C at any moment of a fork reaches parent and child, or the parent before it has a child; and the parent knows of it when it hears of the child's end. */
CASE(interrupted_while_forking)
{
    if (getsid(0) != getpid() && setsid() == -1)
        FAIL("run it so that it does not lead its process group");
    int terminal = (int)SYS(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
    SYS(grantpt(terminal));
    SYS(unlockpt(terminal));
    signal(SIGHUP, SIG_IGN);
    int user = (int)SYS(open(ptsname(terminal), O_RDWR | O_CLOEXEC));
    struct termios mode;
    SYS(tcgetattr(user, &mode));
    mode.c_lflag &= ~(tcflag_t)ECHO;
    SYS(tcsetattr(user, TCSANOW, &mode));
    EQUAL(getpgrp(), tcgetpgrp(user));

    shell = getpid();
    struct sigaction handled = { .sa_handler = like_a_shell, .sa_flags = SA_RESTART };
    SYS(sigaction(SIGINT, &handled, NULL));
    signal(SIGALRM, child_was_left_out);
    pthread_t presser;
    keys_wanted = keys_pressed = 0;
    EQUAL(0, pthread_create(&presser, NULL, presses_keys, (void *)(long)terminal));
    for (int i = 1; i <= 300; i++) {
        count = 0;
        alarm((unsigned)patience());
        keys_wanted = i;
        for (double end = now() + (double)(mix((uint64_t)i + 1000000) % 500) * 1e-6; now() < end;) {}
        pid_t pid = (pid_t)SYS(fork());
        if (pid == 0) {
            if (count)
                _exit(7);
            for (;;)
                pause();
        }
        int status;
        EQUAL(pid, waitpid(pid, &status, 0));
        if (WIFSIGNALED(status) ? WTERMSIG(status) != SIGINT : WEXITSTATUS(status) != 7)
            FAIL("round %d: status %x", i, status);
        if (count != 1)
            FAIL("round %d: %d of 1 signals before the news of the child (%x)", i, count, status);
    }
    alarm(0);
    keys_wanted = -1;
    EQUAL(0, pthread_join(presser, NULL));
    SYS(ioctl(user, TIOCNOTTY));
    SYS(close(user));
    SYS(close(terminal));
    signal(SIGINT, SIG_DFL);
    signal(SIGALRM, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
}
