/* Page faults of many kinds of instructions. The guest's kernel may have to tell the address of a fault from the instruction: whatever it makes of it, the program goes on as natively, a snapshot keeps
 * its bytes, and a bad access is reported with its address. */
#include "testlib.h"
#include <immintrin.h>
#include <setjmp.h>

#define APART (2UL << 20) /* a page table each, so that no page is copied along with another */
#define CLOBBERS "memory", "cc"

typedef void access_t(unsigned char *p);

static void store_byte(unsigned char *p) { __asm__ volatile("movb $0x11, (%0)" : : "r"(p) : CLOBBERS); }
static void store_scaled(unsigned char *p) { __asm__ volatile("movl $0x22222222, 0x40(%0,%1,8)" : : "r"(p - 800), "r"(100L) : CLOBBERS); }
static void store_r12(unsigned char *p) { register unsigned char *r __asm__("r12") = p; __asm__ volatile("movq $0x33, (%0)" : : "r"(r) : CLOBBERS); }
static void store_r13(unsigned char *p) { register unsigned char *r __asm__("r13") = p; __asm__ volatile("movw $0x44, 0x1000-0x10(%0)" : : "r"(r) : CLOBBERS); }
static void store_far_below(unsigned char *p) { __asm__ volatile("movq $0x55, -0x12345678(%0)" : : "r"(p + 0x12345678) : CLOBBERS); }
static void add_memory(unsigned char *p) { __asm__ volatile("addq $7, 8(%0)" : : "r"(p) : CLOBBERS); }
static void exchange_add(unsigned char *p) { long v = 5; __asm__ volatile("lock xaddq %1, (%0)" : : "r"(p), "r"(v) : CLOBBERS); }
static void compare_exchange_16(unsigned char *p)
{
    __asm__ volatile("movq (%0), %%rax; movq 8(%0), %%rdx; movl $1, %%ebx; movl $2, %%ecx; lock cmpxchg16b (%0)" : : "r"(p) : "rax", "rbx", "rcx", "rdx", CLOBBERS);
}
static void shift_memory(unsigned char *p) { __asm__ volatile("shll $3, 4(%0)" : : "r"(p) : CLOBBERS); }
static void set_condition(unsigned char *p) { __asm__ volatile("cmpl $1, %%eax; setne 9(%0)" : : "r"(p), "a"(3) : CLOBBERS); }
/* The bit lies far from the operand that the instruction names. */
static void bit_far_off(unsigned char *p) { __asm__ volatile("btcq %1, (%0)" : : "r"(p - 0x8000), "r"(0x8000L * 8 + 77) : CLOBBERS); }
static void absolute(unsigned char *p)
{
    /* movabs %al, imm64: in code made here */
    unsigned char *code = mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(code != MAP_FAILED);
    code[0] = 0xb0, code[1] = 0x66; /* mov $0x66, %al */
    code[2] = 0xa2;
    memcpy(code + 3, &p, 8);
    code[11] = 0xc3;
    ((void (*)(void))code)();
    SYS(munmap(code, PAGE));
}
static void copy_string(unsigned char *p) { const char *from = "the string that is copied"; size_t n = 25; __asm__ volatile("rep movsb" : "+S"(from), "+D"(p), "+c"(n) : : CLOBBERS); }
static void copy_backward(unsigned char *p)
{
    const char *from = (const char *)"backward" + 7;
    unsigned char *to = p + 7;
    size_t n = 8;
    __asm__ volatile("std; rep movsb; cld" : "+S"(from), "+D"(to), "+c"(n) : : CLOBBERS);
}
static void store_string(unsigned char *p) { size_t n = 40; unsigned char *to = p; __asm__ volatile("rep stosq" : "+D"(to), "+c"(n) : "a"(0x7777777777777777L) : CLOBBERS); }
/* into the page and over its end */
static void string_over_pages(unsigned char *p) { size_t n = 2 * PAGE / 8; unsigned char *to = p; __asm__ volatile("rep stosq" : "+D"(to), "+c"(n) : "a"(0x8888888888888888L) : CLOBBERS); }
static void on_stack(unsigned char *p)
{
    __asm__ volatile("movq %%rsp, %%r12; movq %0, %%rsp; pushq $0x99; pushfq; popq %%rax; movq %%r12, %%rsp" : : "r"(p + 0x100) : "rax", "r12", CLOBBERS);
    p[0xf0] = 0; /* the flags: not the same natively */
    memset(p + 0xf0, 0, 8);
}
static void call_on_stack(unsigned char *p)
{
    __asm__ volatile("movq %%rsp, %%r12; leaq 1f(%%rip), %%rax; movq %0, %%rsp; call *%%rax; jmp 2f; 1: movq $0xaa, -8(%%rsp); ret; 2: movq %%r12, %%rsp" : : "r"(p + 0x200) : "rax", "r12", CLOBBERS);
    memset(p + 0x1f8, 0, 8); /* the return address */
}
static void pop_to_memory(unsigned char *p) { __asm__ volatile("movq %%rsp, %%r12; subq $256, %%rsp; pushq $0x1234; popq (%0); movq %%r12, %%rsp" : : "r"(p) : "r12", CLOBBERS); }
static void vector_unaligned(unsigned char *p) { _mm_storeu_si128((__m128i *)(p + 3), _mm_set1_epi8(0x21)); }
static void vector_over_pages(unsigned char *p) { _mm_storeu_si128((__m128i *)(p + PAGE - 5), _mm_set1_epi8(0x31)); }
static void quadword_over_pages(unsigned char *p) { __asm__ volatile("movq $-1, 0xffc(%0)" : : "r"(p) : CLOBBERS); }
static void x87(unsigned char *p) { __asm__ volatile("fldpi; fstpt 16(%0)" : : "r"(p) : CLOBBERS); }
static void save_state(unsigned char *p) { __asm__ volatile("fxsave64 (%0)" : : "r"(p) : CLOBBERS); memset(p, 7, 512); }
static void masked(unsigned char *p) { __asm__ volatile("movq %0, %%rdi; pcmpeqb %%xmm1, %%xmm1; pcmpeqb %%xmm0, %%xmm0; maskmovdqu %%xmm1, %%xmm0" : : "r"(p) : "rdi", "xmm0", "xmm1", CLOBBERS); }
static void short_address(unsigned char *p) { __asm__ volatile("movb $0x41, (%0); movb $0x42, %%fs:(%1)" : : "r"(p), "r"(p - (unsigned char *)__builtin_thread_pointer()) : CLOBBERS); }
static void many_prefixes(unsigned char *p) { __asm__ volatile(".byte 0x26,0x2e,0x36,0x3e,0x66,0x66,0x66,0xc6,0x07,0x51" : : "D"(p) : CLOBBERS); }
__attribute__((target("avx2"))) static void avx(unsigned char *p) { _mm256_storeu_si256((__m256i *)(p + 32), _mm256_set1_epi32(0x12345678)); }
__attribute__((target("avx2"))) static void avx_masked(unsigned char *p) { _mm256_maskstore_epi32((int *)p, _mm256_setr_epi32(-1, 0, -1, 0, 0, 0, 0, -1), _mm256_set1_epi32(0x3456)); }
__attribute__((target("avx512f"))) static void avx512(unsigned char *p) { __asm__ volatile("vpternlogd $0xff, %%zmm16, %%zmm16, %%zmm16; vmovdqu64 %%zmm16, 0x40(%0); vmovdqu64 %%ymm16, -0x20(%0)" : : "r"(p + 128) : "xmm16", CLOBBERS); }
__attribute__((target("avx512f"))) static void scatter(unsigned char *p)
{
    /* sixteen places, in the first page and the next */
    _mm512_i32scatter_epi32(p, _mm512_setr_epi32(0, 4, 8, 100, 1000, 2000, 3000, 4000, 4096, 4100, 5000, 6000, 7000, 7400, 7800, 8000), _mm512_set1_epi32(0x5A5A), 1);
}

static const struct { const char *name; access_t *run; const char *needs; } writers[] = {
    { "store_byte", store_byte, 0 }, { "store_scaled", store_scaled, 0 }, { "store_r12", store_r12, 0 }, { "store_r13", store_r13, 0 }, { "store_far_below", store_far_below, 0 },
    { "add_memory", add_memory, 0 }, { "exchange_add", exchange_add, 0 }, { "compare_exchange_16", compare_exchange_16, 0 }, { "shift_memory", shift_memory, 0 },
    { "set_condition", set_condition, 0 }, { "bit_far_off", bit_far_off, 0 }, { "absolute", absolute, 0 }, { "copy_string", copy_string, 0 }, { "copy_backward", copy_backward, 0 },
    { "store_string", store_string, 0 }, { "string_over_pages", string_over_pages, 0 }, { "on_stack", on_stack, 0 }, { "call_on_stack", call_on_stack, 0 }, { "pop_to_memory", pop_to_memory, 0 },
    { "vector_unaligned", vector_unaligned, 0 }, { "vector_over_pages", vector_over_pages, 0 }, { "quadword_over_pages", quadword_over_pages, 0 }, { "x87", x87, 0 }, { "save_state", save_state, 0 },
    { "masked", masked, 0 }, { "short_address", short_address, 0 }, { "many_prefixes", many_prefixes, 0 },
    { "avx", avx, "avx2" }, { "avx_masked", avx_masked, "avx2" }, { "avx512", avx512, "avx512" }, { "scatter", scatter, "avx512" },
};
#define WRITERS (sizeof writers / sizeof *writers)

static int can(const char *needs)
{
    __builtin_cpu_init();
    return !needs || (needs[3] == '2' ? __builtin_cpu_supports("avx2") : __builtin_cpu_supports("avx512f"));
}

/* In a child that holds a snapshot: until the parent has written. */
static void await_writes(int go[2])
{
    char c;
    close(go[1]);
    CHECK(read(go[0], &c, 1) == 0);
}

/* In the parent, afterwards: the child has found its bytes. */
static void end_child(int go[2], pid_t child)
{
    close(go[0]);
    close(go[1]);
    int status;
    SYS(waitpid(child, &status, 0));
    EQUAL(0, status);
}

/* What an instruction makes of a page does not depend on whether the page faults. */
CASE(writes_beside_a_snapshot)
{
    unsigned char *m = map_anonymous((WRITERS + 2) * APART);
    unsigned char *expected = map_anonymous(APART);
    unsigned char *before = map_anonymous(2 * PAGE);
    fill(before, 2 * PAGE, 9);
    for (size_t i = 1; i <= WRITERS; i++)
        memcpy(m + i * APART, before, 2 * PAGE);
    int go[2];
    SYS(pipe(go));
    pid_t child = (pid_t)SYS(fork());
    if (child == 0) {
        await_writes(go);
        for (size_t i = 1; i <= WRITERS; i++)
            if (memcmp(m + i * APART, before, 2 * PAGE) != 0)
                FAIL("the snapshot has what %s wrote", writers[i - 1].name);
        _exit(0);
    }
    for (size_t i = 1; i <= WRITERS; i++) {
        if (!can(writers[i - 1].needs))
            continue;
        writers[i - 1].run(m + i * APART);
        memcpy(expected + PAGE * 16, before, 2 * PAGE);
        writers[i - 1].run(expected + PAGE * 16);
        if (memcmp(m + i * APART, expected + PAGE * 16, 2 * PAGE) != 0)
            FAIL("%s wrote something else", writers[i - 1].name);
        if (memcmp(m + i * APART, before, 2 * PAGE) == 0)
            FAIL("%s wrote nothing", writers[i - 1].name);
    }
    end_child(go, child);
}

/* The same instruction at the same address again and again: each time the snapshot is another. */
CASE(same_instruction_many_snapshots)
{
    unsigned char *m = map_anonymous(APART);
    for (int round = 0; round < 40; round++) {
        m[0] = (unsigned char)round;
        int go[2];
        SYS(pipe(go));
        pid_t child = (pid_t)SYS(fork());
        if (child == 0) {
            await_writes(go);
            _exit(m[0] == round ? 0 : 1);
        }
        bit_far_off(m + 0x8000);
        store_byte(m);
        EQUAL(0x11, m[0]);
        end_child(go, child);
    }
}

/* Absent pages that are read: by an instruction at the end of a page of code, over two pages of code, and by instructions that gather. */
CASE(reads_of_fresh_pages)
{
    for (int at = (int)PAGE - 8; at <= (int)PAGE; at++) {
        unsigned char *code = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(code != MAP_FAILED);
        /* mov 0x10(%rdi,%rsi,4), %rax; ret */
        static const unsigned char load[] = { 0x48, 0x8b, 0x44, 0xb7, 0x10, 0xc3 };
        memcpy(code + at, load, sizeof load);
        SYS(mprotect(code, 2 * PAGE, PROT_READ | PROT_EXEC));
        unsigned char *m = map_anonymous(8 * PAGE);
        unsigned char *shared = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        CHECK(shared != MAP_FAILED);
        EQUAL(0, ((long (*)(unsigned char *, long))(code + at))(m + 3 * PAGE, 100));
        EQUAL(0, ((long (*)(unsigned char *, long))(code + at))(shared + 3 * PAGE, 100));
        SYS(munmap(m, 8 * PAGE));
        SYS(munmap(shared, 8 * PAGE));
        SYS(munmap(code, 2 * PAGE));
    }
    long sum = 0;
    unsigned char *m = map_anonymous(64 * PAGE);
    const unsigned char *from = m + 10 * PAGE - 4;
    size_t n = 2;
    __asm__ volatile("1: lodsq; addq %%rax, %0; loop 1b" : "+r"(sum), "+S"(from), "+c"(n) : : "rax", CLOBBERS);
    const unsigned char *a = m + 20 * PAGE, *b = m + 30 * PAGE;
    n = 3 * PAGE;
    __asm__ volatile("repe cmpsb" : "+S"(a), "+D"(b), "+c"(n) : : CLOBBERS);
    EQUAL(0, n);
    EQUAL(0, sum);
}

static sigjmp_buf back;
static void *volatile got_address;

static void on_fault(int s, siginfo_t *i, void *c)
{
    (void)s, (void)c;
    got_address = i->si_addr;
    siglongjmp(back, 1);
}

/* A bad access is reported with its address, whatever the instruction. */
CASE(bad_accesses)
{
    struct sigaction a = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK };
    stack_t own = { .ss_sp = map_anonymous(16 * PAGE), .ss_size = 16 * PAGE };
    SYS(sigaltstack(&own, NULL));
    SYS(sigaction(SIGSEGV, &a, NULL));
    unsigned char *m = map_anonymous(64 * PAGE) + 16 * PAGE;
    SYS(mprotect(m, 2 * PAGE, PROT_READ));
    for (size_t i = 0; i < WRITERS; i++) {
        /* those that would go on after a jump out of them with a stack or direction of their own */
        if (!can(writers[i].needs) || strstr(writers[i].name, "stack") || strcmp(writers[i].name, "copy_backward") == 0 || strcmp(writers[i].name, "absolute") == 0)
            continue;
        got_address = NULL;
        if (sigsetjmp(back, 1) == 0) {
            writers[i].run(m);
            FAIL("%s wrote", writers[i].name);
        }
        if ((unsigned char *)got_address < m || (unsigned char *)got_address >= m + 2 * PAGE)
            FAIL("%s faulted %ld bytes off", writers[i].name, (long)((unsigned char *)got_address - m));
        printf("%s %ld\n", writers[i].name, (long)((unsigned char *)got_address - m));
    }
    /* code that cannot be executed */
    if (sigsetjmp(back, 1) == 0) {
        ((void (*)(void))(m + 77))();
        FAIL("it ran");
    }
    EQUAL(77, (unsigned char *)got_address - m);
    if (sigsetjmp(back, 1) == 0) {
        ((void (*)(void))0x123456789000)();
        FAIL("it ran");
    }
    EQUAL(0x123456789000, got_address);
}

struct shared_state { unsigned char *code, *data; volatile int stop; volatile long rounds; };

static void *run_code(void *argument)
{
    struct shared_state *s = argument;
    while (!s->stop) {
        ((void (*)(unsigned char *))s->code)(s->data + (size_t)(s->rounds % 512) * PAGE);
        s->rounds++;
    }
    return NULL;
}

/* The code that faults disappears from the tables while it does: another thread takes snapshots, which renew them, and changes the code's protection. */
CASE(code_that_is_remapped)
{
    struct shared_state s = { .code = mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), .data = map_anonymous(512 * PAGE) };
    static const unsigned char increment[] = { 0xf0, 0x48, 0xff, 0x07, 0xc3 }; /* lock incq (%rdi); ret */
    memcpy(s.code, increment, sizeof increment);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, run_code, &s) == 0);
    for (int i = 0; i < 60; i++) {
        pid_t child = (pid_t)SYS(fork());
        if (child == 0) {
            uint64_t before = 0, after = 0;
            for (int p = 0; p < 512; p++)
                before += *(volatile uint64_t *)(s.data + p * PAGE);
            for (int p = 0; p < 512; p++)
                after += *(volatile uint64_t *)(s.data + p * PAGE);
            _exit(before == after ? 0 : 1);
        }
        SYS(mprotect(s.code, PAGE, PROT_READ | PROT_EXEC));
        SYS(mprotect(s.code, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC));
        int status;
        SYS(waitpid(child, &status, 0));
        EQUAL(0, status);
    }
    s.stop = 1;
    CHECK(pthread_join(thread, NULL) == 0);
    uint64_t sum = 0;
    for (int p = 0; p < 512; p++)
        sum += *(uint64_t *)(s.data + p * PAGE);
    EQUAL(s.rounds, sum);
}

