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

/* Calls back for each line of a list of mappings. */
static void each_mapping(const char *path, void (*visit)(unsigned long from, unsigned long to, const char *rights, const char *name))
{
    FILE *f = fopen(path, "r");
    CHECK(f);
    char line[500];
    while (fgets(line, sizeof line, f)) {
        unsigned long from, to;
        char rights[5], name[200] = "";
        if (sscanf(line, "%lx-%lx %4s %*x %*x:%*x %*u %199s", &from, &to, rights, name) >= 3)
            visit(from, to, rights, name);
    }
    fclose(f);
}

static int heaps, stacks, touched;
static volatile unsigned char sink;

static void touch(unsigned long from, unsigned long to, const char *rights, const char *name)
{
    heaps += strcmp(name, "[heap]") == 0;
    stacks += strcmp(name, "[stack]") == 0;
    if (name[0] == '[' || rights[0] != 'r')
        return;
    /* Private file mappings may reach beyond the end of the file; their first page does not. */
    unsigned long end = strchr(name, '/') ? from + 1 : to;
    for (unsigned long at = from; at < end; at += PAGE) {
        volatile unsigned char *byte = (unsigned char *)at;
        unsigned char value = *byte;
        if (rights[1] == 'w')
            *byte = value;
        sink = value;
    }
    touched++;
}

static void *list_of_a_thread(void *unused)
{
    (void)unused;
    char path[100];
    snprintf(path, sizeof path, "/proc/self/task/%ld/maps", syscall(SYS_gettid));
    each_mapping(path, touch);
    each_mapping("/proc/thread-self/maps", touch);
    return NULL;
}

CASE(all_of_proc_self_maps_can_be_touched)
{
    /* As a memory test at a crash does it: everything in the list is the program's own, with these rights. */
    void *small = malloc(100);
    pthread_t thread;
    SYS(pthread_create(&thread, NULL, list_of_a_thread, NULL) ? -1 : 0);
    pthread_join(thread, NULL);
    char path[100];
    snprintf(path, sizeof path, "/proc/%d/maps", (int)getpid());
    heaps = stacks = 0;
    each_mapping(path, touch);
    EQUAL(1, heaps);
    EQUAL(1, stacks);
    CHECK(touched > 10);
    each_mapping("/proc/self/smaps", touch);
    IN_CHILD({ heaps = 0; each_mapping("/proc/self/maps", touch); EQUAL(1, heaps); });
    free(small);
}

static unsigned long looked_for;
static char rights_found[5];

static void look(unsigned long from, unsigned long to, const char *rights, const char *name)
{
    (void)name;
    if (from <= looked_for && looked_for < to)
        memcpy(rights_found, rights, 5);
}

static void expect_rights(void *at, const char *rights)
{
    looked_for = (unsigned long)at;
    strcpy(rights_found, "none");
    each_mapping("/proc/self/maps", look);
    if (strcmp(rights, rights_found) != 0)
        FAIL("rights are %s, not %s", rights_found, rights);
}

CASE(proc_self_maps_follows_changes)
{
    unsigned char *m = map_anonymous(8 * PAGE);
    expect_rights(m, "rw-p");
    SYS(mprotect(m + PAGE, PAGE, PROT_READ));
    SYS(mprotect(m + 2 * PAGE, PAGE, PROT_NONE));
    SYS(mprotect(m + 3 * PAGE, PAGE, PROT_READ | PROT_EXEC));
    expect_rights(m, "rw-p");
    expect_rights(m + PAGE, "r--p");
    expect_rights(m + 2 * PAGE, "---p");
    expect_rights(m + 3 * PAGE, "r-xp");
    IN_CHILD({
        expect_rights(m + PAGE, "r--p");
        SYS(mprotect(m + PAGE, PAGE, PROT_READ | PROT_WRITE));
        expect_rights(m + PAGE, "rw-p");
        SYS(munmap(m, 8 * PAGE));
        expect_rights(m, "none");
        expect_rights(map_anonymous(PAGE), "rw-p");
    });
    expect_rights(m + PAGE, "r--p");
    SYS(munmap(m, 8 * PAGE));
    expect_rights(m, "none");
    unsigned char *s = map_shared(PAGE);
    expect_rights(s, "rw-s");
    int fd = pattern_file(3 * PAGE, 5);
    unsigned char *f = mmap(NULL, 2 * PAGE, PROT_READ, MAP_PRIVATE, fd, PAGE);
    CHECK(f != MAP_FAILED);
    expect_rights(f, "r--p");
    /* The same refusals as any file there. */
    EQUAL(-1, open("/proc/self/maps", O_RDONLY | O_DIRECTORY));
    EQUAL(ENOTDIR, errno);
    EQUAL(-1, open("/proc/self/task/1/maps", O_RDONLY));
    EQUAL(ENOENT, errno);
    /* The lowest free descriptor, as any open. */
    int lowest = dup(0);
    close(lowest);
    int maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    EQUAL(lowest, maps);
    EQUAL(FD_CLOEXEC, fcntl(maps, F_GETFD));
    EQUAL(-1, write(maps, "x", 1));
    EQUAL(EBADF, errno);
    close(maps);
}

static long sum_of(const char *path, const char *field)
{
    FILE *f = fopen(path, "r");
    CHECK(f);
    char line[500];
    long sum = 0, value;
    size_t length = strlen(field);
    while (fgets(line, sizeof line, f))
        if (strncmp(line, field, length) == 0 && line[length] == ':' && sscanf(line + length + 1, "%ld kB", &value) == 1)
            sum += value;
    fclose(f);
    return sum;
}

CASE(proc_self_smaps)
{
    const long pages = 3000, kilobytes = pages * (PAGE / 1024);
    long before = sum_of("/proc/self/smaps", "Private_Dirty");
    unsigned char *m = map_anonymous(pages * PAGE);
    fill(m, pages * PAGE, 3);
    CHECK(sum_of("/proc/self/smaps", "Private_Dirty") >= before + kilobytes);
    CHECK(sum_of("/proc/self/smaps_rollup", "Private_Dirty") >= before + kilobytes);
    CHECK(sum_of("/proc/self/smaps", "Size") >= kilobytes);
    /* A child's own pages are those that it or its parent has written since the fork: what Redis reports as copy on write. */
    int ready[2], written[2];
    SYS(pipe(ready));
    SYS(pipe(written));
    fflush(NULL);
    pid_t child = (pid_t)SYS(fork());
    if (child == 0) {
        char c;
        long at_first = sum_of("/proc/self/smaps", "Private_Dirty");
        CHECK(at_first < kilobytes / 2);
        for (long i = 0; i < 500; i++)
            m[i * PAGE] ^= 1;
        long own = sum_of("/proc/self/smaps", "Private_Dirty") - at_first;
        if (own < 2000 || own > 3500)
            FAIL("%ld kB after 500 pages", own);
        EQUAL(1, write(ready[1], "r", 1));
        EQUAL(1, read(written[0], &c, 1));
        own = sum_of("/proc/self/smaps", "Private_Dirty") - at_first;
        if (own < 6000 || own > 7500)
            FAIL("%ld kB after 500 own pages and 1000 of the parent's", own);
        _exit(0);
    }
    char c;
    EQUAL(1, read(ready[0], &c, 1));
    for (long i = 1000; i < 2000; i++)
        m[i * PAGE] ^= 1;
    EQUAL(1, write(written[1], "w", 1));
    expect_exit(child, 0);
    SYS(munmap(m, pages * PAGE));
}
