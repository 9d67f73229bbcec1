/* What every test program shares: named cases, checks, byte patterns and watched snapshots.
 *
 * A program is run as `program [case...]`; without a name it runs all its cases in order of definition, but for those whose names begin with die_. Output is the same on
 * every run (no pids, no addresses, no times), so that a native run and a run under Privy can be compared byte for byte.
 */
#ifndef TESTLIB_H
#define TESTLIB_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL

static inline __attribute__((noreturn, format(printf, 3, 4))) void fail_at(const char *file, int line, const char *format, ...)
{
    int saved = errno;
    char text[1000];
    int n = snprintf(text, sizeof text, "FAILED %s:%d: ", file, line);
    va_list arguments;
    va_start(arguments, format);
    n += vsnprintf(text + n, sizeof text - (size_t)n, format, arguments);
    va_end(arguments);
    if (n > (int)sizeof text - 100)
        n = (int)sizeof text - 100;
    n += snprintf(text + n, sizeof text - (size_t)n, " (errno %d %s)\n", saved, strerror(saved));
    if (write(2, text, (size_t)n) < 0) {}
    _exit(1);
}

#define FAIL(...) fail_at(__FILE__, __LINE__, __VA_ARGS__)
#define CHECK(condition) do { if (!(condition)) FAIL("%s", #condition); } while (0)
#define EQUAL(expected, actual) do { long long e_ = (long long)(expected), a_ = (long long)(actual); \
    if (e_ != a_) FAIL("%s is %lld (0x%llx), not %lld (0x%llx)", #actual, a_, a_, e_, e_); } while (0)
/* The value of a system call that must succeed. */
#define SYS(call) ({ long r_ = (long)(call); if (r_ == -1) FAIL("%s", #call); r_; })

static inline double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static inline void sleep_ms(int ms)
{
    struct timespec t = { ms / 1000, (ms % 1000) * 1000000L };
    while (nanosleep(&t, &t) == -1 && errno == EINTR) {}
}

/* How long to wait for what must come, in seconds: long runs on a busy machine say more. */
static inline double patience(void)
{
    const char *text = getenv("TESTLIB_PATIENCE");
    return text ? atof(text) : 40;
}

/* Spins without a system call, so that no crossing into the hypervisor refreshes what the processor has cached. */
#define SPIN_UNTIL(condition) do { double deadline_ = now() + patience(); while (!(condition)) { __builtin_ia32_pause(); \
    if (now() > deadline_) FAIL("timed out: %s", #condition); } } while (0)
#define WAIT_UNTIL(condition) do { double deadline_ = now() + patience(); while (!(condition)) { sleep_ms(1); \
    if (now() > deadline_) FAIL("timed out: %s", #condition); } } while (0)

/* ---- byte patterns ---- */

static inline uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15ULL;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

static inline unsigned char pattern(uint64_t seed, size_t i)
{
    return (unsigned char)(mix(seed * 0x100000001b3ULL + i / 8) >> (i % 8 * 8));
}

static inline void fill(void *memory, size_t length, uint64_t seed)
{
    for (size_t i = 0; i < length; i++)
        ((volatile unsigned char *)memory)[i] = pattern(seed, i);
}

/* Offset of the first byte that is not the pattern, or -1. `from` is where `memory` lies in the pattern. */
static inline long mismatch(const void *memory, size_t from, size_t length, uint64_t seed)
{
    for (size_t i = 0; i < length; i++)
        if (((volatile const unsigned char *)memory)[i] != pattern(seed, from + i))
            return (long)i;
    return -1;
}

#define HOLDS(memory, from, length, seed) do { long at_ = mismatch(memory, from, length, seed); \
    if (at_ >= 0) FAIL("byte %ld of %s is %02x, not %02x", at_, #memory, ((const unsigned char *)(memory))[at_], pattern(seed, (from) + (size_t)at_)); } while (0)

/* With this defined the "private" memory is shared: what a snapshot sees then changes under it, and the programs must notice. */
#ifdef TESTLIB_BROKEN_SNAPSHOTS
#define TESTLIB_PRIVATE MAP_SHARED
#else
#define TESTLIB_PRIVATE MAP_PRIVATE
#endif

static inline void *map_anonymous(size_t length)
{
    void *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, TESTLIB_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        FAIL("mmap of %zu bytes", length);
    return memory;
}

static inline void *map_shared(size_t length)
{
    void *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        FAIL("mmap of %zu shared bytes", length);
    return memory;
}

/* An unlinked file with `length` bytes of the pattern. */
static inline int pattern_file(size_t length, uint64_t seed)
{
    char name[] = "./tmpXXXXXX";
    int fd = (int)SYS(mkstemp(name));
    SYS(unlink(name));
    unsigned char *bytes = malloc(length + 1);
    fill(bytes, length, seed);
    for (size_t done = 0; done < length;)
        done += (size_t)SYS(write(fd, bytes + done, length - done));
    free(bytes);
    SYS(lseek(fd, 0, SEEK_SET));
    return fd;
}

/* ---- children ---- */

static inline void expect_exit(pid_t pid, int code)
{
    int status = -1;
    pid_t got;
    do
        got = waitpid(pid, &status, 0);
    while (got == -1 && errno == EINTR);
    if (got != pid)
        FAIL("waitpid(%s) returned %s", "child", got == -1 ? "an error" : "another pid");
    if (WIFSIGNALED(status))
        FAIL("the child died of signal %d", WTERMSIG(status));
    if (!WIFEXITED(status) || WEXITSTATUS(status) != code)
        FAIL("the child's status is 0x%x, not exit code %d", status, code);
}

#define IN_CHILD(...) do { fflush(NULL); pid_t pid_ = (pid_t)SYS(fork()); if (pid_ == 0) { __VA_ARGS__; _exit(0); } expect_exit(pid_, 0); } while (0)

/* ---- a region that two snapshots watch ----
 * One child reads the whole region at once (so that its translations are cached), then spins on shared memory and reads it again after the
 * parent's change. The other one sleeps in a read() from a pipe and first touches the region after the change.
 */
struct watch {
    unsigned char *base;
    size_t length;
    uint64_t seed;
    volatile int *flags;      /* [0] spinner is ready, [1] go */
    int go[2];
    pid_t spinner, sleeper;
};

static inline void watch_begin(struct watch *w, void *base, size_t length, uint64_t seed)
{
    *w = (struct watch){ .base = base, .length = length, .seed = seed, .flags = map_shared(PAGE) };
    fflush(NULL);
    SYS(pipe(w->go));
    w->spinner = (pid_t)SYS(fork());
    if (w->spinner == 0) {
        HOLDS(w->base, 0, w->length, w->seed);
        w->flags[0] = 1;
        SPIN_UNTIL(w->flags[1]);
        HOLDS(w->base, 0, w->length, w->seed);
        _exit(42);
    }
    w->sleeper = (pid_t)SYS(fork());
    if (w->sleeper == 0) {
        char c;
        SYS(close(w->go[1]));
        EQUAL(1, read(w->go[0], &c, 1));
        HOLDS(w->base, 0, w->length, w->seed);
        _exit(43);
    }
    SPIN_UNTIL(w->flags[0]);
}

static inline void watch_end(struct watch *w)
{
    w->flags[1] = 1;
    EQUAL(1, write(w->go[1], "g", 1));
    expect_exit(w->spinner, 42);
    expect_exit(w->sleeper, 43);
    SYS(close(w->go[0]));
    SYS(close(w->go[1]));
    SYS(munmap((void *)w->flags, PAGE));
}

/* ---- cases ---- */

struct test_case { const char *name; void (*run)(void); struct test_case *next; };
static struct test_case *first_case;
static struct test_case **last_case __attribute__((unused)) = &first_case;

#define CASE(name) static void case_##name(void); \
    __attribute__((constructor)) static void add_##name(void) { static struct test_case c = { #name, case_##name, NULL }; *last_case = &c; last_case = &c.next; } \
    static void case_##name(void)

#ifndef TESTLIB_NO_MAIN
/* A program may define this to begin each case alike. */
__attribute__((weak)) void before_case(void);

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc < 2) {
        for (struct test_case *c = first_case; c; c = c->next) {
            /* They end the process on purpose. */
            if (strncmp(c->name, "die_", 4) == 0)
                continue;
            if (before_case)
                before_case();
            c->run();
            printf("OK %s\n", c->name);
        }
        return 0;
    }
    for (int i = 1; i < argc; i++) {
        struct test_case *c = first_case;
        while (c && strcmp(c->name, argv[i]) != 0)
            c = c->next;
        if (!c) {
            fprintf(stderr, "no case %s\n", argv[i]);
            return 2;
        }
        if (before_case)
            before_case();
        c->run();
        printf("OK %s\n", c->name);
    }
    return 0;
}
#endif
#endif
