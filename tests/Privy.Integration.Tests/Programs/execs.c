/* execve in the process itself, while signals are pending, come from other threads or from outside: none is lost, none takes effect that should not. */
#include "testlib.h"

#define STEP "EXECS_STEP"
#define TAKEN "EXECS_TAKEN"

/* How often the process has replaced itself. */
static int step(void) { return getenv(STEP) ? atoi(getenv(STEP)) : 0; }

static __attribute__((noreturn)) void again(const char *name)
{
    char text[20];
    snprintf(text, sizeof text, "%d", step() + 1);
    setenv(STEP, text, 1);
    fflush(stdout);
    execl("/proc/self/exe", "execs", name, NULL);
    FAIL("exec");
}

static const char *disposition(int s)
{
    struct sigaction a;
    SYS(sigaction(s, NULL, &a));
    return a.sa_handler == SIG_IGN ? "ignored" : a.sa_handler == SIG_DFL ? "default" : "handled";
}

static void nothing(int s) { (void)s; }

/* Mask, ignored signals and what is pending for process and thread stay. */
CASE(keep_signals)
{
    /* 40 is no real-time signal of the C library's own, but may be one of the system's below. */
    const int shown[] = { SIGHUP, SIGPIPE, SIGSEGV, SIGSTKFLT, SIGTERM, SIGURG, 36, 40 };
    uint64_t mask = 0, pending = 0;
    if (step() == 0) {
        sigset_t all;
        sigfillset(&all);
        EQUAL(0, pthread_sigmask(SIG_SETMASK, &all, NULL));
        signal(SIGPIPE, SIG_IGN);
        signal(SIGSEGV, SIG_IGN);
        signal(40, SIG_IGN);
        signal(SIGTERM, nothing);
        SYS(kill(getpid(), SIGUSR1));
        SYS(kill(getpid(), SIGURG));
        EQUAL(0, pthread_kill(pthread_self(), SIGUSR2));
        EQUAL(0, pthread_kill(pthread_self(), SIGSTKFLT));
        for (int i = 1; i <= 5; i++)
            SYS(sigqueue(getpid(), 36, (union sigval){ .sival_int = i }));
        again("keep_signals");
    }
    SYS(syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &mask, 8));
    SYS(syscall(SYS_rt_sigpending, &pending, 8));
    printf("step %d: blocked %llx, pending %llx\n", step(), (unsigned long long)mask, (unsigned long long)pending);
    for (unsigned i = 0; i < sizeof shown / sizeof *shown; i++)
        printf("%d is %s\n", shown[i], disposition(shown[i]));
    /* Once more, with what is left. */
    if (step() == 1)
        again("keep_signals");
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, 36);
    for (int i = 1; i <= 5; i++) {
        siginfo_t info;
        EQUAL(36, sigtimedwait(&one, &info, &(struct timespec){ 0, 0 }));
        EQUAL(i, info.si_value.sival_int);
        EQUAL(SI_QUEUE, info.si_code);
    }
    EQUAL(-1, sigtimedwait(&one, NULL, &(struct timespec){ 0, 0 }));
}

/* An exec that fails leaves all as it was, and what was pending too. */
CASE(failed)
{
    sigset_t usr1;
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    EQUAL(0, pthread_sigmask(SIG_BLOCK, &usr1, NULL));
    signal(SIGTERM, nothing);
    signal(SIGUSR1, nothing);
    SYS(kill(getpid(), SIGUSR1));
    /* An argument longer than any kernel takes. */
    const size_t length = 256 << 10;
    char *huge = malloc(length + 1);
    memset(huge, 'x', length);
    huge[length] = 0;
    EQUAL(-1, execl("/bin/true", "true", huge, NULL));
    EQUAL(E2BIG, errno);
    printf("%s, %s\n", disposition(SIGTERM), disposition(SIGUSR1));
    sigset_t now;
    EQUAL(0, sigpending(&now));
    EQUAL(1, sigismember(&now, SIGUSR1));
    EQUAL(0, pthread_sigmask(SIG_BLOCK, NULL, &now));
    EQUAL(1, sigismember(&now, SIGUSR1));
    EQUAL(0, sigismember(&now, SIGTERM));
    EQUAL(0, kill(getpid(), SIGTERM));
    free(huge);
}

static volatile int executing;

static void *interrupt(void *argument)
{
    (void)argument;
    /* From some microseconds to some milliseconds, each order of magnitude as often. */
    double delay = 10e-6 * (double)(1 << mix((uint64_t)step()) % 11) * (1 + (double)(mix((uint64_t)step() + 1000) % 1000) / 1000);
    SPIN_UNTIL(executing);
    for (double end = now() + delay; now() < end;) {}
    syscall(SYS_tgkill, getpid(), getpid(), SIGURG);
    pause();
    return NULL;
}

/* Handled until exec, without effect by default after it: at whatever instant of the exec it comes, it must not end the process. */
CASE(interrupted)
{
    const int Times = 20;
    signal(SIGURG, nothing);
    if (step() == Times)
        return;
    pthread_t thread;
    EQUAL(0, pthread_create(&thread, NULL, interrupt, NULL));
    executing = 1;
    again("interrupted");
}

/* Somebody outside sends signal 50, as often as EXECS_COUNT says, from the first line of output on. */
CASE(die_counting)
{
    const int Times = 15;
    int count = atoi(getenv("EXECS_COUNT")), taken = getenv(TAKEN) ? atoi(getenv(TAKEN)) : 0;
    sigset_t fifty;
    sigemptyset(&fifty);
    sigaddset(&fifty, 50);
    EQUAL(0, pthread_sigmask(SIG_BLOCK, &fifty, NULL));
    if (step() == 0)
        printf("ready\n");
    double end = now() + patience();
    while (taken < count) {
        /* The last one waits for what is still to come. */
        long nanoseconds = step() == Times ? 100 * 1000000L : 0;
        if (sigtimedwait(&fifty, NULL, &(struct timespec){ 0, nanoseconds }) == 50)
            taken++;
        else if (step() == Times ? now() > end : 1)
            break;
    }
    char text[20];
    snprintf(text, sizeof text, "%d", taken);
    setenv(TAKEN, text, 1);
    if (step() < Times)
        again("die_counting");
    printf("%d of %d\n", taken, count);
}
