/* Faults on purpose. Cases whose name begins with die_ end the process by the signal; the others look at what a handler is told. */
#include "testlib.h"
#include <setjmp.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <ucontext.h>

static sigjmp_buf back;
static volatile int got_signal, got_code, got_write;
static void *volatile got_address;

static void on_fault(int s, siginfo_t *i, void *c)
{
    got_signal = s;
    got_code = i->si_code;
    got_address = i->si_addr;
    got_write = (int)(((ucontext_t *)c)->uc_mcontext.gregs[REG_ERR] >> 1 & 1);
    siglongjmp(back, 1);
}

static void catch(int s)
{
    struct sigaction a = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
    SYS(sigaction(s, &a, NULL));
}

#define EXPECT(signal, code, address, action) do { got_signal = got_code = 0; got_address = NULL; catch(signal); \
    if (sigsetjmp(back, 1) == 0) { action; FAIL("no fault: %s", #action); } \
    EQUAL(signal, got_signal); EQUAL(code, got_code); if ((void *)(address) != got_address) FAIL("si_addr is %p, not %p", got_address, (void *)(address)); } while (0)

static volatile char sink;
static void rd(const volatile void *p) { sink = *(const volatile char *)p; }
static void wr(volatile void *p) { *(volatile char *)p = 1; }

CASE(unmapped)
{
    EXPECT(SIGSEGV, SEGV_MAPERR, NULL, wr(NULL));
    EQUAL(1, got_write);
    EXPECT(SIGSEGV, SEGV_MAPERR, 0x10, rd((void *)0x10));
    EQUAL(0, got_write);
    EXPECT(SIGSEGV, SEGV_MAPERR, 0x123456789000, rd((void *)0x123456789000));
    unsigned char *m = map_anonymous(3 * PAGE);
    m[PAGE] = 1;
    SYS(munmap(m + PAGE, PAGE));
    EXPECT(SIGSEGV, SEGV_MAPERR, m + PAGE + 77, rd(m + PAGE + 77));
    EXPECT(SIGSEGV, SEGV_MAPERR, m + PAGE + 78, wr(m + PAGE + 78));
    /* eight bytes over the edge: the address is that of the first missing byte */
    m[PAGE - 1] = 1;
    EXPECT(SIGSEGV, SEGV_MAPERR, m + PAGE, *(volatile uint64_t *)(m + PAGE - 4));
}

CASE(protected)
{
    unsigned char *m = map_anonymous(3 * PAGE);
    memset(m, 1, 3 * PAGE);
    SYS(mprotect(m + PAGE, PAGE, PROT_READ));
    rd(m + PAGE);
    EXPECT(SIGSEGV, SEGV_ACCERR, m + PAGE + 5, wr(m + PAGE + 5));
    SYS(mprotect(m + PAGE, PAGE, PROT_NONE));
    EXPECT(SIGSEGV, SEGV_ACCERR, m + PAGE + 6, rd(m + PAGE + 6));
    SYS(mprotect(m + PAGE, PAGE, PROT_READ | PROT_WRITE));
    wr(m + PAGE);
    EQUAL(1, m[2 * PAGE - 1]);
    /* never touched before */
    unsigned char *n = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(SIGSEGV, SEGV_ACCERR, n, rd(n));
    EXPECT(SIGSEGV, SEGV_ACCERR, (char *)"a literal" + 1, wr((char *)"a literal" + 1));
}

CASE(not_executable)
{
    unsigned char *m = map_anonymous(PAGE);
    m[0] = 0xc3;
    EXPECT(SIGSEGV, SEGV_ACCERR, m, ((void (*)(void))m)());
    SYS(mprotect(m, PAGE, PROT_READ | PROT_EXEC));
    ((void (*)(void))m)();
    EXPECT(SIGSEGV, SEGV_MAPERR, 0x5000, ((void (*)(void))0x5000)());
}

CASE(not_canonical)
{
    got_signal = 0;
    catch(SIGSEGV);
    if (sigsetjmp(back, 1) == 0) {
        rd((void *)0x8000000000000000);
        FAIL("no fault");
    }
    EQUAL(SIGSEGV, got_signal);
    EQUAL(SI_KERNEL, got_code);
    CHECK(got_address == NULL);
    got_signal = 0;
    if (sigsetjmp(back, 1) == 0) {
        rd((void *)0xffffffff80000000);     /* the kernel's half */
        FAIL("no fault");
    }
    EQUAL(SIGSEGV, got_signal);
}

CASE(arithmetic)
{
    volatile int zero = 0, sum = 100;
    catch(SIGFPE);
    got_signal = 0;
    if (sigsetjmp(back, 1) == 0) {
        sum /= zero;
        FAIL("no fault");
    }
    EQUAL(SIGFPE, got_signal);
    EQUAL(FPE_INTDIV, got_code);
}

CASE(illegal_instruction)
{
    catch(SIGILL);
    got_signal = 0;
    if (sigsetjmp(back, 1) == 0) {
        __asm__ volatile("ud2");
        FAIL("no fault");
    }
    EQUAL(SIGILL, got_signal);
    EQUAL(ILL_ILLOPN, got_code);
}

/* Instructions only a kernel may use: SIGSEGV with SI_KERNEL. */
CASE(privileged_instructions)
{
    for (volatile int i = 0; i < 3; i++) {
        catch(SIGSEGV);
        got_signal = 0;
        if (sigsetjmp(back, 1) == 0) {
            if (i == 0)
                __asm__ volatile("hlt");
            else if (i == 1)
                __asm__ volatile("cli");
            else
                __asm__ volatile("mov %%cr3, %%rax" ::: "rax");
            FAIL("privileged instruction %d ran", i);
        }
        EQUAL(SIGSEGV, got_signal);
        EQUAL(SI_KERNEL, got_code);
    }
}

CASE(breakpoint)
{
    catch(SIGTRAP);
    got_signal = 0;
    if (sigsetjmp(back, 1) == 0) {
        __asm__ volatile("int3");
        FAIL("no trap");
    }
    EQUAL(SIGTRAP, got_signal);
}

/* The file is shorter than its mapping. */
CASE(truncated_file)
{
    int fd = pattern_file(4 * PAGE, 900);
    for (int i = 0; i < 2; i++) {
        SYS(ftruncate(fd, 4 * PAGE));
        unsigned char *m = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, i ? MAP_SHARED : MAP_PRIVATE, fd, 0);
        CHECK(m != MAP_FAILED);
        rd(m);
        rd(m + 3 * PAGE);
        SYS(ftruncate(fd, 2 * PAGE));
        rd(m + PAGE);
        EXPECT(SIGBUS, BUS_ADRERR, m + 3 * PAGE + 9, rd(m + 3 * PAGE + 9));
        EXPECT(SIGBUS, BUS_ADRERR, m + 2 * PAGE, rd(m + 2 * PAGE));
        SYS(munmap(m, 4 * PAGE));
    }
    unsigned char *n = mmap(NULL, 8 * PAGE, PROT_READ, MAP_SHARED, fd, 0);
    EXPECT(SIGBUS, BUS_ADRERR, n + 5 * PAGE, rd(n + 5 * PAGE));
    EQUAL(pattern(900, 5), n[5]);
}

static int private_file(unsigned char **m, size_t pages, uint64_t seed)
{
    int fd = pattern_file(pages * PAGE, seed);
    *m = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    CHECK(*m != MAP_FAILED);
    return fd;
}

CASE(truncated_file_written)
{
    unsigned char *m;
    int fd = private_file(&m, 6, 901);
    SYS(ftruncate(fd, 2 * PAGE));
    EXPECT(SIGBUS, BUS_ADRERR, m + 3 * PAGE + 9, wr(m + 3 * PAGE + 9));
    m[PAGE] = 77;
    EQUAL(77, m[PAGE]);
    /* and when the file has grown again, the page is there, empty */
    SYS(ftruncate(fd, 4 * PAGE));
    EQUAL(0, m[3 * PAGE + 9]);
    m[3 * PAGE + 9] = 5;
    EQUAL(5, m[3 * PAGE + 9]);
}

/* What a system call is given there it does not take. */
static void calls_refuse(unsigned char *m)
{
    int p[2], e = open("/dev/zero", O_RDONLY);
    SYS(pipe(p));
    EQUAL(-1, write(p[1], m, 10));
    EQUAL(EFAULT, errno);
    EQUAL(-1, read(e, m + 20, 10));
    EQUAL(EFAULT, errno);
    EQUAL(-1, open((char *)m, O_RDONLY));
    EQUAL(EFAULT, errno);
    EQUAL(-1, nanosleep((struct timespec *)m, NULL));
    EQUAL(EFAULT, errno);
    EQUAL(-1, writev(p[1], (struct iovec *)m, 1));
    EQUAL(EFAULT, errno);
    EQUAL(-1, pipe((int *)(m + 40)));
    EQUAL(EFAULT, errno);
    EQUAL(-1, syscall(SYS_sysinfo, m));
    EQUAL(EFAULT, errno);
    EQUAL(-1, syscall(SYS_rt_sigprocmask, SIG_BLOCK, m, NULL, 8));
    EQUAL(EFAULT, errno);
    SYS(close(p[0]));
    SYS(close(p[1]));
    SYS(close(e));
}

CASE(truncated_file_in_calls)
{
    unsigned char *m;
    int fd = private_file(&m, 4, 902);
    SYS(ftruncate(fd, PAGE));
    calls_refuse(m + 2 * PAGE);
    int other;
    unsigned char *n;
    other = private_file(&n, 4, 902);
    IN_CHILD({ SYS(ftruncate(other, PAGE)); calls_refuse(n + 2 * PAGE); });
    IN_CHILD({
        unsigned char *s = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, other, 0);
        CHECK(s != MAP_FAILED);
        calls_refuse(s + 2 * PAGE);
        EXPECT(SIGBUS, BUS_ADRERR, s + 3 * PAGE, rd(s + 3 * PAGE));
    });
}

static void both_refuse(unsigned char *m)
{
    EXPECT(SIGBUS, BUS_ADRERR, m + 9, wr(m + 9));
    EQUAL(1, got_write);
    EXPECT(SIGBUS, BUS_ADRERR, m + PAGE + 9, rd(m + PAGE + 9));
    calls_refuse(m + 2 * PAGE);
}

/* The copy that a write makes while a snapshot reads the page is the guest kernel's, which must survive it. */
CASE(truncated_file_under_a_snapshot)
{
    unsigned char *m;
    int go[2], done[2];
    char c;
    int fd = private_file(&m, 10, 903);
    unsigned char *beside = map_anonymous(PAGE);
    fill(beside, PAGE, 904);
    SYS(pipe(go));
    SYS(pipe(done));
    fflush(NULL);
    pid_t child = (pid_t)SYS(fork());
    if (child == 0) {
        SYS(close(go[1]));
        EQUAL(1, read(go[0], &c, 1));
        HOLDS(m, 0, PAGE, 903);
        HOLDS(beside, 0, PAGE, 904);
        both_refuse(m + 6 * PAGE);
        m[0] = 1;
        EQUAL(1, write(done[1], "d", 1));
        EQUAL(0, read(go[0], &c, 1));
        /* the parent has given the addresses up, and uses some for something else */
        both_refuse(m + 2 * PAGE);
        both_refuse(m + 6 * PAGE);
        _exit(0);
    }
    SYS(ftruncate(fd, 2 * PAGE));
    both_refuse(m + 2 * PAGE);
    m[0] = 2;
    fill(beside, PAGE, 905);
    EQUAL(1, write(go[1], "g", 1));
    EQUAL(1, read(done[0], &c, 1));
    both_refuse(m + 6 * PAGE);
    EQUAL(2, m[0]);
    SYS(madvise(m + 2 * PAGE, 2 * PAGE, MADV_DONTNEED));
    CHECK(mmap(m + 6 * PAGE, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == m + 6 * PAGE);
    EQUAL(0, m[6 * PAGE]);
    fill(m + 6 * PAGE, 3 * PAGE, 906);
    SYS(close(go[1]));
    expect_exit(child, 0);
    HOLDS(m, 6 * PAGE, 0, 906);
    HOLDS(m + 6 * PAGE, 0, 3 * PAGE, 906);
}

CASE(truncated_file_in_a_childs_child)
{
    unsigned char *m;
    int fd = private_file(&m, 10, 907);
    IN_CHILD({
        SYS(ftruncate(fd, 2 * PAGE));
        both_refuse(m + 2 * PAGE);
        IN_CHILD({ both_refuse(m + 3 * PAGE); HOLDS(m, 0, 2 * PAGE, 907); });
    });
}

/* A handler that repairs the fault and returns: the instruction runs again. */
static unsigned char *lazy;
static volatile int repaired;
static void repair(int s, siginfo_t *i, void *c)
{
    (void)s;
    (void)c;
    unsigned char *page = (unsigned char *)((uintptr_t)i->si_addr / PAGE * PAGE);
    CHECK(page >= lazy && page < lazy + 100 * PAGE);
    SYS(mprotect(page, PAGE, PROT_READ | PROT_WRITE));
    page[5] = 5;
    repaired++;
}

CASE(repaired_by_the_handler)
{
    lazy = mmap(NULL, 100 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct sigaction a = { .sa_sigaction = repair, .sa_flags = SA_SIGINFO };
    SYS(sigaction(SIGSEGV, &a, NULL));
    for (int i = 0; i < 100; i++)
        EQUAL(i % 2 ? 5 : 0, lazy[(size_t)i * PAGE + (i % 2 ? 5 : 6)]);
    EQUAL(100, repaired);
    signal(SIGSEGV, SIG_DFL);
}

/* The same under snapshots: write-protected by the program is not write-protected for the snapshot. */
CASE(write_barrier_under_fork)
{
    lazy = map_anonymous(100 * PAGE);
    fill(lazy, 100 * PAGE, 910);
    struct watch w;
    watch_begin(&w, lazy, 100 * PAGE, 910);
    SYS(mprotect(lazy, 100 * PAGE, PROT_READ));
    struct sigaction a = { .sa_sigaction = repair, .sa_flags = SA_SIGINFO };
    SYS(sigaction(SIGSEGV, &a, NULL));
    repaired = 0;
    for (size_t i = 0; i < 100; i++) {
        CHECK(lazy[i * PAGE + 1] == pattern(910, i * PAGE + 1));
        lazy[i * PAGE] = (unsigned char)i;
    }
    EQUAL(100, repaired);
    watch_end(&w);
    signal(SIGSEGV, SIG_DFL);
}

static void *fault_in_thread(void *a) { (void)a; EXPECT(SIGSEGV, SEGV_MAPERR, 0x30, wr((void *)0x30)); return NULL; }

CASE(in_a_thread)
{
    pthread_t t;
    EQUAL(0, pthread_create(&t, NULL, fault_in_thread, NULL));
    EQUAL(0, pthread_join(t, NULL));
}

CASE(in_a_child) { IN_CHILD({ EXPECT(SIGSEGV, SEGV_MAPERR, 0x40, wr((void *)0x40)); }); }

static void no_core(void) { struct rlimit r = { 0, 0 }; setrlimit(RLIMIT_CORE, &r); }

CASE(die_null_write) { no_core(); printf("about to die\n"); wr((void *)8); }
CASE(die_abort) { no_core(); printf("about to die\n"); abort(); }
CASE(die_illegal) { no_core(); printf("about to die\n"); __asm__ volatile("ud2"); }
CASE(die_divide) { no_core(); printf("about to die\n"); volatile int z = 0; z = 100 / z; }
CASE(die_kill) { printf("about to die\n"); kill(getpid(), SIGKILL); pause(); }
CASE(die_term) { printf("about to die\n"); raise(SIGTERM); pause(); }
CASE(die_stack) { no_core(); printf("about to die\n"); char here; volatile char *p = &here; for (;;) { p -= 1000; *p = 1; } }
static void *die_thread(void *a) { wr(a); return NULL; }
CASE(die_in_thread) { no_core(); printf("about to die\n"); pthread_t t; pthread_create(&t, NULL, die_thread, (void *)16); pthread_join(t, NULL); }
CASE(die_blocked) { no_core(); printf("about to die\n"); sigset_t s; sigfillset(&s); sigprocmask(SIG_BLOCK, &s, NULL); signal(SIGSEGV, SIG_IGN); wr((void *)8); }
CASE(die_exit_77) { printf("about to die\n"); exit(77); }
