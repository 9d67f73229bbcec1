/* Memory without fork: mmap, munmap, mprotect, mremap, brk, the stack, huge regions. */
#include "testlib.h"
#include <sys/resource.h>

CASE(brk_grows_and_shrinks)
{
    unsigned char *start = sbrk(0);
    for (int i = 1; i <= 5; i++) {
        unsigned char *m = sbrk(20 << 20);
        CHECK(m != (void *)-1);
        for (size_t j = 0; j < 20 << 20; j += PAGE) {
            CHECK(m[j] == 0);
            m[j] = (unsigned char)i;
        }
    }
    for (size_t j = 0; j < 100 << 20; j += PAGE)
        EQUAL(j / (20 << 20) + 1, start[j]);
    EQUAL(0, brk(start));
    CHECK(sbrk(0) == start);
}

CASE(hints_and_fixed)
{
    unsigned char *m = map_anonymous(10 * PAGE);
    SYS(munmap(m + 4 * PAGE, 2 * PAGE));
    void *hinted = mmap(m + 4 * PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(hinted == m + 4 * PAGE);
    CHECK(mmap(m, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == MAP_FAILED);
    EQUAL(EEXIST, errno);
    CHECK(mmap(m + 5 * PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == m + 5 * PAGE);
    void *taken = mmap(m, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(taken != MAP_FAILED && taken != m);
    CHECK(mmap(m, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == m);
    CHECK(mmap(m + 1, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED);
    EQUAL(EINVAL, errno);
    CHECK(mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
    EQUAL(EINVAL, errno);
    CHECK(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, 999, 0) == MAP_FAILED);
    EQUAL(EBADF, errno);
    EQUAL(-1, munmap(m + 1, PAGE));
    EQUAL(EINVAL, errno);
    EQUAL(0, munmap(m, 10 * PAGE));
    EQUAL(0, munmap(m, 10 * PAGE));
    EQUAL(-1, mprotect(m, PAGE, PROT_READ));
    EQUAL(ENOMEM, errno);
}

CASE(sparse_reservation)
{
    size_t length = 64UL << 30;
    unsigned char *m = mmap(NULL, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(m != MAP_FAILED);
    for (size_t i = 0; i < 64; i++) {
        unsigned char *p = m + (i << 30) + i * PAGE;
        SYS(mprotect(p, 3 * PAGE, PROT_READ | PROT_WRITE));
        fill(p, 3 * PAGE, i);
    }
    for (size_t i = 0; i < 64; i++)
        HOLDS(m + (i << 30) + i * PAGE, 0, 3 * PAGE, i);
    SYS(munmap(m, length));
}

CASE(many_mappings)
{
    unsigned char *m[2000];
    for (int i = 0; i < 2000; i++) {
        m[i] = mmap(NULL, PAGE * (1 + (size_t)i % 3), i % 2 ? PROT_READ | PROT_WRITE : PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(m[i] != MAP_FAILED);
        if (i % 2)
            fill(m[i], 64, (uint64_t)i);
    }
    for (int i = 0; i < 2000; i++) {
        if (i % 2)
            HOLDS(m[i], 0, 64, (uint64_t)i);
        else
            CHECK(m[i][0] == 0);
        SYS(munmap(m[i], PAGE * (1 + (size_t)i % 3)));
    }
}

CASE(large_region)
{
    size_t length = 256UL << 20;
    uint64_t *m = map_anonymous(length);
    for (size_t i = 0; i < length / 8; i += 64)
        m[i] = mix(i);
    for (size_t i = 0; i < length / 8; i += 64)
        if (m[i] != mix(i))
            FAIL("word %zu", i);
    unsigned char *bytes = (unsigned char *)m;
    for (size_t i = 0; i < length; i += 2 << 20)
        SYS(madvise(bytes + i, 1 << 20, MADV_DONTNEED));
    for (size_t i = 0; i < length / 8; i += 64)
        if (m[i] != ((i * 8 >> 20) % 2 ? mix(i) : 0))
            FAIL("word %zu after MADV_DONTNEED", i);
    SYS(munmap(m, length));
}

/* mremap carries the bytes along, whatever it does with the address. */
CASE(mremap_chain)
{
    size_t pages = 4;
    unsigned char *m = map_anonymous(pages * PAGE);
    fill(m, pages * PAGE, 10);
    for (int i = 0; i < 10; i++) {
        m = mremap(m, pages * PAGE, 2 * pages * PAGE, MREMAP_MAYMOVE);
        CHECK(m != MAP_FAILED);
        HOLDS(m, 0, 4 * PAGE, 10);
        for (size_t j = 0; j < pages; j++) {
            CHECK(m[(pages + j) * PAGE] == 0);
            m[(pages + j) * PAGE] = 1;
        }
        pages *= 2;
    }
    m = mremap(m, pages * PAGE, 3 * PAGE, 0);
    CHECK(m != MAP_FAILED);
    HOLDS(m, 0, 3 * PAGE, 10);
    CHECK(mremap(m, PAGE, 0, MREMAP_MAYMOVE) == MAP_FAILED);
    EQUAL(EINVAL, errno);
}

CASE(realloc_to_100_megabytes)
{
    unsigned char *m = NULL;
    for (size_t size = 1000; size < 100 << 20; size = size * 3 / 2) {
        m = realloc(m, size);
        CHECK(m);
        if (size == 1000)
            fill(m, 1000, 11);
        m[size - 1] = 7;
        HOLDS(m, 0, 999, 11);
    }
    free(m);
}

CASE(random_protections)
{
    enum { N = 128 };
    unsigned char *m = map_anonymous(N * PAGE);
    int protection[N];
    for (int i = 0; i < N; i++)
        protection[i] = PROT_READ | PROT_WRITE;
    for (uint64_t step = 0; step < 500; step++) {
        uint64_t r = mix(step + 99);
        size_t first = r % N, n = 1 + (r >> 8) % 20;
        if (first + n > N)
            n = N - first;
        int p[] = { PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_EXEC };
        SYS(mprotect(m + first * PAGE, n * PAGE, p[(r >> 16) % 4]));
        for (size_t i = 0; i < n; i++)
            protection[first + i] = p[(r >> 16) % 4];
        /* the kernel's view: a write() from the page and a read() into it succeed or give EFAULT */
        size_t page = (r >> 24) % N;
        int fd[2];
        SYS(pipe(fd));
        EQUAL(protection[page] & PROT_READ ? 1 : -1, write(fd[1], m + page * PAGE, 1));
        if (!(protection[page] & PROT_READ))
            EQUAL(1, write(fd[1], "x", 1));
        EQUAL(protection[page] & PROT_WRITE ? 1 : -1, read(fd[0], m + page * PAGE, 1));
        close(fd[0]);
        close(fd[1]);
        if (protection[page] & PROT_WRITE)
            m[page * PAGE + 1]++;
    }
}

CASE(code_written_at_run_time)
{
    unsigned char *m = mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(m != MAP_FAILED);
    for (int i = 0; i < 100; i++) {
        unsigned char code[] = { 0xb8, (unsigned char)i, 0, 0, 0, 0xc3 };
        memcpy(m, code, sizeof code);
        EQUAL(i, ((int (*)(void))m)());
    }
}

static __attribute__((noinline)) int use_stack(int n) { volatile char a[10000]; a[0] = (char)n; a[9999] = (char)n; return n ? use_stack(n - 1) + (a[0] == a[9999]) : 0; }

CASE(deep_stack) { EQUAL(600, use_stack(600)); }

CASE(locked_and_advised)
{
    unsigned char *m = map_anonymous(64 * PAGE);
    fill(m, 64 * PAGE, 12);
    int advice[] = { MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL, MADV_WILLNEED, MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_DONTFORK, MADV_DOFORK, MADV_DONTDUMP, MADV_DODUMP };
    for (size_t i = 0; i < sizeof advice / sizeof *advice; i++)
        SYS(madvise(m, 64 * PAGE, advice[i]));
    EQUAL(-1, madvise(m, PAGE, 12345));
    EQUAL(EINVAL, errno);
    if (mlock(m, 4 * PAGE) == 0)
        SYS(munlock(m, 4 * PAGE));
    SYS(msync(m, PAGE, MS_ASYNC));
    HOLDS(m, 0, 64 * PAGE, 12);
}

CASE(proc_self_maps)
{
    /* What the program maps shows up in its own /proc/self/maps with its protection, when it is looked up there. */
    unsigned char *m = map_anonymous(PAGE);
    FILE *f = fopen("/proc/self/maps", "r");
    CHECK(f);
    char line[500];
    int found = 0;
    while (fgets(line, sizeof line, f)) {
        unsigned long from, to;
        char rights[5];
        CHECK(sscanf(line, "%lx-%lx %4s", &from, &to, rights) == 3);
        if (from <= (unsigned long)m && (unsigned long)m < to) {
            found = 1;
            CHECK(rights[0] == 'r' && rights[1] == 'w');
        }
    }
    fclose(f);
    CHECK(found);
}
