/* Rule 7: the clock and other pages of the hypervisor lie outside what is snapshotted: time goes on in every child. */
#include "testlib.h"
#include <sys/auxv.h>
#include <sys/time.h>

static void ticks(clockid_t clock)
{
    struct timespec a, b;
    SYS(clock_gettime(clock, &a));
    /* Processor time passes as others let it. */
    double passed = 0;
    SPIN_UNTIL((SYS(clock_gettime(clock, &b)), passed = (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) * 1e-9) >= 0.001 || passed < 0);
    if (passed < 0)
        FAIL("clock %d went back by %f s", clock, -passed);
}

static void all_clocks(void)
{
    ticks(CLOCK_MONOTONIC);
    ticks(CLOCK_REALTIME);
    ticks(CLOCK_BOOTTIME);
    ticks(CLOCK_MONOTONIC_RAW);
    ticks(CLOCK_MONOTONIC_COARSE);
    ticks(CLOCK_REALTIME_COARSE);
    ticks(CLOCK_PROCESS_CPUTIME_ID);
    ticks(CLOCK_THREAD_CPUTIME_ID);
    struct timeval v;
    SYS(gettimeofday(&v, NULL));
    long t = (long)time(NULL);
    CHECK(t - v.tv_sec >= -1 && t - v.tv_sec <= 300);
}

CASE(clocks) { all_clocks(); }
CASE(clocks_in_a_child) { IN_CHILD({ all_clocks(); }); all_clocks(); }
CASE(clocks_in_a_grandchild) { IN_CHILD({ IN_CHILD({ all_clocks(); }); }); }

/* One order over processes: parent, child, parent. */
CASE(monotonic_across_processes)
{
    volatile double *t = map_shared(PAGE);
    volatile int *turn = (int *)((char *)t + 1024);
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0) {
        for (int i = 1; i < 400; i += 2) {
            SPIN_UNTIL(*turn == i);
            double n = now();
            CHECK(n >= *t);
            *t = n;
            *turn = i + 1;
        }
        _exit(0);
    }
    for (int i = 0; i < 400; i += 2) {
        double n = now();
        CHECK(n >= *t);
        *t = n;
        *turn = i + 1;
        SPIN_UNTIL(*turn == i + 2);
    }
    expect_exit(pid, 0);
}

/* The vDSO is mapped, and fast in both: far less than a system call through a hypervisor. */
CASE(vdso)
{
    const unsigned char *image = (const unsigned char *)getauxval(AT_SYSINFO_EHDR);
    CHECK(image && memcmp(image, "\177ELF", 4) == 0);
    IN_CHILD({
        CHECK(memcmp(image, "\177ELF", 4) == 0);
        struct timespec t;
        for (int i = 0; i < 1000000; i++)
            clock_gettime(CLOCK_MONOTONIC, &t);
    });
    struct timespec a, b;
    for (int i = 0; i < 1000000; i++) {
        SYS(clock_gettime(CLOCK_MONOTONIC, &a));
        SYS(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &b) * (i % 10000 == 0));
        if (i % 10000 == 0)
            CHECK(a.tv_sec < b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec <= b.tv_nsec));
        else
            i += 98;
    }
}

CASE(sleep_in_both)
{
    volatile double *t = map_shared(PAGE);
    pid_t pid = (pid_t)SYS(fork());
    double start = now();
    sleep_ms(50);
    double slept = now() - start;
    CHECK(slept >= 0.05 && slept < 20);
    if (pid == 0) {
        *t = slept;
        _exit(0);
    }
    expect_exit(pid, 0);
    CHECK(*t >= 0.05);
}

CASE(timeouts)
{
    IN_CHILD({
        pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
        pthread_mutex_lock(&m);
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        t.tv_nsec += 50000000;
        if (t.tv_nsec >= 1000000000) {
            t.tv_sec++;
            t.tv_nsec -= 1000000000;
        }
        double start = now();
        EQUAL(ETIMEDOUT, pthread_mutex_timedlock(&m, &t));
        CHECK(now() - start > 0.03);
    });
}
