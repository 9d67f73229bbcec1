/* Vector and floating-point state survives system calls, faults, signals and fork. */
#include "testlib.h"
#include <fenv.h>
#include <immintrin.h>
#include <sys/time.h>

static volatile int handled;
__attribute__((target("avx"))) static void clobber(int s)
{
    (void)s;
    __m256 x = _mm256_set1_ps((float)handled * 3.5f);
    for (int i = 0; i < 50; i++)
        x = _mm256_add_ps(x, _mm256_mul_ps(x, x));
    volatile float sink[8];
    _mm256_storeu_ps((float *)sink, x);
    __asm__ volatile("vzeroall" ::: "memory");
    fesetround(FE_UPWARD);
    handled++;
}

/* All 16 registers are loaded, then a loop without a call waits for the condition, then they are stored. */
__attribute__((target("avx"))) static void across(void (*event)(void), volatile int *condition)
{
    unsigned char in[512] __attribute__((aligned(64))), out[512] __attribute__((aligned(64)));
    fill(in, sizeof in, 77);
    memset(out, 0, sizeof out);
    if (event)
        event();
    __asm__ volatile(
        "vmovaps 0(%0), %%ymm0\n vmovaps 32(%0), %%ymm1\n vmovaps 64(%0), %%ymm2\n vmovaps 96(%0), %%ymm3\n"
        "vmovaps 128(%0), %%ymm4\n vmovaps 160(%0), %%ymm5\n vmovaps 192(%0), %%ymm6\n vmovaps 224(%0), %%ymm7\n"
        "vmovaps 256(%0), %%ymm8\n vmovaps 288(%0), %%ymm9\n vmovaps 320(%0), %%ymm10\n vmovaps 352(%0), %%ymm11\n"
        "vmovaps 384(%0), %%ymm12\n vmovaps 416(%0), %%ymm13\n vmovaps 448(%0), %%ymm14\n vmovaps 480(%0), %%ymm15\n"
        "1: pause\n cmpl $0, (%2)\n je 1b\n"
        "vmovaps %%ymm0, 0(%1)\n vmovaps %%ymm1, 32(%1)\n vmovaps %%ymm2, 64(%1)\n vmovaps %%ymm3, 96(%1)\n"
        "vmovaps %%ymm4, 128(%1)\n vmovaps %%ymm5, 160(%1)\n vmovaps %%ymm6, 192(%1)\n vmovaps %%ymm7, 224(%1)\n"
        "vmovaps %%ymm8, 256(%1)\n vmovaps %%ymm9, 288(%1)\n vmovaps %%ymm10, 320(%1)\n vmovaps %%ymm11, 352(%1)\n"
        "vmovaps %%ymm12, 384(%1)\n vmovaps %%ymm13, 416(%1)\n vmovaps %%ymm14, 448(%1)\n vmovaps %%ymm15, 480(%1)\n"
        : : "r"(in), "r"(out), "r"(condition)
        : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
    HOLDS(out, 0, sizeof out, 77);
}

static int have_avx(void) { __builtin_cpu_init(); return __builtin_cpu_supports("avx"); }

static void arm_timer(void)
{
    struct itimerval t = { { 0, 0 }, { 0, 20000 } };
    SYS(setitimer(ITIMER_REAL, &t, NULL));
}

CASE(ymm_across_a_signal)
{
    if (!have_avx())
        return;
    struct sigaction a = { .sa_handler = clobber };
    SYS(sigaction(SIGALRM, &a, NULL));
    for (int i = 0; i < 5; i++) {
        handled = 0;
        across(arm_timer, &handled);
        EQUAL(FE_TONEAREST, fegetround());
    }
}

/* fork() itself is a call and clobbers registers by convention, so this one is made by hand: all 16 registers loaded, `syscall`, stored. */
__attribute__((target("avx"))) static long raw_call(long number, unsigned char *in, unsigned char *out)
{
    long result;
    __asm__ volatile(
        "vmovaps 0(%2), %%ymm0\n vmovaps 32(%2), %%ymm1\n vmovaps 64(%2), %%ymm2\n vmovaps 96(%2), %%ymm3\n"
        "vmovaps 128(%2), %%ymm4\n vmovaps 160(%2), %%ymm5\n vmovaps 192(%2), %%ymm6\n vmovaps 224(%2), %%ymm7\n"
        "vmovaps 256(%2), %%ymm8\n vmovaps 288(%2), %%ymm9\n vmovaps 320(%2), %%ymm10\n vmovaps 352(%2), %%ymm11\n"
        "vmovaps 384(%2), %%ymm12\n vmovaps 416(%2), %%ymm13\n vmovaps 448(%2), %%ymm14\n vmovaps 480(%2), %%ymm15\n"
        "syscall\n"
        "vmovaps %%ymm0, 0(%3)\n vmovaps %%ymm1, 32(%3)\n vmovaps %%ymm2, 64(%3)\n vmovaps %%ymm3, 96(%3)\n"
        "vmovaps %%ymm4, 128(%3)\n vmovaps %%ymm5, 160(%3)\n vmovaps %%ymm6, 192(%3)\n vmovaps %%ymm7, 224(%3)\n"
        "vmovaps %%ymm8, 256(%3)\n vmovaps %%ymm9, 288(%3)\n vmovaps %%ymm10, 320(%3)\n vmovaps %%ymm11, 352(%3)\n"
        "vmovaps %%ymm12, 384(%3)\n vmovaps %%ymm13, 416(%3)\n vmovaps %%ymm14, 448(%3)\n vmovaps %%ymm15, 480(%3)\n"
        : "=a"(result) : "a"(number), "r"(in), "r"(out), "D"(0), "S"(0), "d"(0)
        : "memory", "cc", "rcx", "r11", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
    return result;
}

static unsigned char in_state[512] __attribute__((aligned(64))), out_state[512] __attribute__((aligned(64)));

CASE(ymm_across_fork)
{
    if (!have_avx())
        return;
    fill(in_state, sizeof in_state, 78);
    fesetround(FE_DOWNWARD);
    fflush(NULL);
    pid_t pid = (pid_t)raw_call(SYS_fork, in_state, out_state);
    EQUAL(FE_DOWNWARD, fegetround());
    HOLDS(out_state, 0, sizeof out_state, 78);
    if (pid == 0) {
        volatile double x = 1.0, y = 10.0;
        CHECK(x / y < 0.1);
        syscall(SYS_exit_group, 0);
    }
    expect_exit(pid, 0);
    fesetround(FE_TONEAREST);
}

CASE(ymm_across_system_calls)
{
    if (!have_avx())
        return;
    fill(in_state, sizeof in_state, 79);
    for (int i = 0; i < 200; i++) {
        memset(out_state, 0, sizeof out_state);
        raw_call(i % 2 ? SYS_getppid : SYS_sched_yield, in_state, out_state);
        HOLDS(out_state, 0, sizeof out_state, 79);
    }
}

/* Faults: registers loaded, then a first touch and a copy on write under a snapshot. */
__attribute__((target("avx"))) static void touch(volatile unsigned char *p)
{
    unsigned char in[64] __attribute__((aligned(32))), out[64] __attribute__((aligned(32)));
    fill(in, sizeof in, 80);
    __asm__ volatile("vmovaps (%0), %%ymm6\n vmovaps 32(%0), %%ymm15\n movb $5, (%2)\n vmovaps %%ymm6, (%1)\n vmovaps %%ymm15, 32(%1)\n"
        : : "r"(in), "r"(out), "r"(p) : "memory", "xmm6", "xmm15");
    HOLDS(out, 0, sizeof out, 80);
}

CASE(ymm_across_faults)
{
    if (!have_avx())
        return;
    unsigned char *m = map_anonymous(64 * PAGE);
    for (int i = 0; i < 64; i++)
        touch(m + i * (int)PAGE);
    volatile int *go = map_shared(PAGE);
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0) {
        for (int i = 0; i < 32; i++)
            touch(m + i * (int)PAGE);
        WAIT_UNTIL(*go);
        _exit(0);
    }
    for (int i = 0; i < 64; i++)
        touch(m + i * (int)PAGE);
    *go = 1;
    expect_exit(pid, 0);
}

/* Two threads with different values, on two processors or one. */
static volatile int both;
static void *spin_with(void *a)
{
    double x = (double)(long)a, sum = 0;
    __atomic_fetch_add(&both, 1, __ATOMIC_SEQ_CST);
    SPIN_UNTIL(both == 2);
    for (long i = 0; i < 3000000; i++) {
        sum += x * 0.5;
        if (i % 300000 == 0)
            sched_yield();
    }
    CHECK(sum == x * 0.5 * 3000000);
    return NULL;
}

CASE(two_threads)
{
    pthread_t t[2];
    both = 0;
    for (long i = 0; i < 2; i++)
        EQUAL(0, pthread_create(&t[i], NULL, spin_with, (void *)(i + 3)));
    for (int i = 0; i < 2; i++)
        EQUAL(0, pthread_join(t[i], NULL));
}

/* What the processor says about itself inside and outside must be usable: run what CPUID promises. */
__attribute__((target("avx512f"))) static int sum512(const int *v) { return _mm512_reduce_add_epi32(_mm512_loadu_si512(v)); }
__attribute__((target("avx2"))) static int sum256(const int *v)
{
    __m256i x = _mm256_add_epi32(_mm256_loadu_si256((const __m256i *)v), _mm256_loadu_si256((const __m256i *)(v + 8)));
    int part[8], sum = 0;
    _mm256_storeu_si256((__m256i *)part, x);
    for (int i = 0; i < 8; i++)
        sum += part[i];
    return sum;
}

CASE(promised_extensions_work)
{
    int v[16], want = 0;
    for (int i = 0; i < 16; i++)
        want += v[i] = i * i;
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2"))
        EQUAL(want, sum256(v));
    if (__builtin_cpu_supports("avx512f"))
        EQUAL(want, sum512(v));
}
