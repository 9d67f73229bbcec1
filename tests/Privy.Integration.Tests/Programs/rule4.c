/* Rule 4: the program takes memory away that a snapshot can still read. The snapshot keeps the old bytes; the program sees what
 * it would see without one. */
#include "testlib.h"
#include <setjmp.h>

#define PAGES 64UL
#define REGION (PAGES * PAGE)
static struct watch w;
static unsigned char *region;

static void begin(uint64_t seed)
{
    region = map_anonymous(REGION);
    fill(region, REGION, seed);
    watch_begin(&w, region, REGION, seed);
}

static void zeroes(const unsigned char *m, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (m[i] != 0)
            FAIL("byte %zu is %02x, not zero", i, m[i]);
}

static unsigned char *map_at(void *address, size_t length)
{
    void *m = mmap(address, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (m != address)
        FAIL("MAP_FIXED");
    return m;
}


static void *fault_address;

static sigjmp_buf fault_buffer;
static void on_fault(int s, siginfo_t *i, void *c) { (void)s; (void)c; fault_address = i->si_addr; siglongjmp(fault_buffer, 1); }

static int faults(volatile unsigned char *p, int write)
{
    struct sigaction a = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO }, old;
    SYS(sigaction(SIGSEGV, &a, &old));
    int faulted = 0;
    if (sigsetjmp(fault_buffer, 1) == 0) {
        if (write)
            *p = 1;
        else
            (void)*p;
    } else {
        faulted = 1;
        CHECK(fault_address == (void *)p);
    }
    SYS(sigaction(SIGSEGV, &old, NULL));
    return faulted;
}

CASE(munmap)
{
    begin(4000);
    SYS(munmap(region, REGION));
    CHECK(faults(region, 0));
    CHECK(faults(region + REGION - 1, 1));
    watch_end(&w);
}

CASE(munmap_part)
{
    begin(4001);
    SYS(munmap(region + 10 * PAGE, 20 * PAGE));
    CHECK(faults(region + 10 * PAGE, 0));
    CHECK(faults(region + 30 * PAGE - 1, 0));
    HOLDS(region, 0, 10 * PAGE, 4001);
    HOLDS(region + 30 * PAGE, 30 * PAGE, REGION - 30 * PAGE, 4001);
    fill(region, 10 * PAGE, 1);
    fill(region + 30 * PAGE, REGION - 30 * PAGE, 1);
    watch_end(&w);
}

CASE(munmap_and_reuse)
{
    begin(4002);
    for (int round = 0; round < 50; round++) {
        SYS(munmap(region, REGION));
        map_at(region, REGION);
        zeroes(region, REGION);
        fill(region, REGION, (uint64_t)round);
    }
    watch_end(&w);
}

/* Freed addresses are handed out again by the kernel's or the hypervisor's own choice. */
CASE(munmap_and_map_elsewhere)
{
    begin(4003);
    SYS(munmap(region, REGION));
    unsigned char *m[40];
    for (int i = 0; i < 40; i++) {
        m[i] = map_anonymous(REGION / 4);
        zeroes(m[i], REGION / 4);
        fill(m[i], REGION / 4, (uint64_t)(100 + i));
    }
    for (int i = 0; i < 40; i++)
        HOLDS(m[i], 0, REGION / 4, (uint64_t)(100 + i));
    watch_end(&w);
    for (int i = 0; i < 40; i++) {
        HOLDS(m[i], 0, REGION / 4, (uint64_t)(100 + i));
        SYS(munmap(m[i], REGION / 4));
    }
}

CASE(map_fixed_over)
{
    begin(4004);
    map_at(region + 5 * PAGE, 50 * PAGE);
    zeroes(region + 5 * PAGE, 50 * PAGE);
    fill(region + 5 * PAGE, 50 * PAGE, 2);
    HOLDS(region, 0, 5 * PAGE, 4004);
    HOLDS(region + 5 * PAGE, 0, 50 * PAGE, 2);
    watch_end(&w);
}

CASE(map_file_over)
{
    begin(4005);
    int fd = pattern_file(20 * PAGE, 4006);
    CHECK(mmap(region + PAGE, 20 * PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0) == region + PAGE);
    HOLDS(region + PAGE, 0, 20 * PAGE, 4006);
    CHECK(mmap(region + 30 * PAGE, 20 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == region + 30 * PAGE);
    fill(region + 30 * PAGE, 20 * PAGE, 4007);
    HOLDS(region + PAGE, 0, 20 * PAGE, 4007);
    HOLDS(region, 0, PAGE, 4005);
    watch_end(&w);
    close(fd);
}

CASE(mremap_grow)
{
    begin(4010);
    unsigned char *m = mremap(region, REGION, 2 * REGION, MREMAP_MAYMOVE);
    CHECK(m != MAP_FAILED);
    HOLDS(m, 0, REGION, 4010);
    zeroes(m + REGION, REGION);
    fill(m, 2 * REGION, 3);
    watch_end(&w);
    HOLDS(m, 0, 2 * REGION, 3);
    SYS(munmap(m, 2 * REGION));
}

CASE(mremap_grow_in_place)
{
    unsigned char *both = map_anonymous(2 * REGION);
    SYS(munmap(both + REGION, REGION));
    region = both;
    fill(region, REGION, 4011);
    watch_begin(&w, region, REGION, 4011);
    void *m = mremap(region, REGION, 2 * REGION, 0);
    if (m != MAP_FAILED) {
        CHECK(m == region);
        HOLDS(region, 0, REGION, 4011);
        zeroes(region + REGION, REGION);
        fill(region, 2 * REGION, 3);
        HOLDS(region, 0, 2 * REGION, 3);
    } else {
        EQUAL(ENOMEM, errno);
    }
    watch_end(&w);
}

CASE(mremap_move)
{
    begin(4012);
    unsigned char *target = map_anonymous(REGION);
    fill(target, REGION, 9);
    struct watch over;
    watch_begin(&over, target, REGION, 9);
    CHECK(mremap(region, REGION, REGION, MREMAP_MAYMOVE | MREMAP_FIXED, target) == target);
    CHECK(faults(region + 7, 0));
    HOLDS(target, 0, REGION, 4012);
    fill(target, REGION, 4);
    watch_end(&over);
    watch_end(&w);
    HOLDS(target, 0, REGION, 4);
}

CASE(mremap_move_twice_and_back)
{
    begin(4013);
    unsigned char *other = map_anonymous(REGION);
    CHECK(mremap(region, REGION, REGION, MREMAP_MAYMOVE | MREMAP_FIXED, other) == other);
    map_at(region, REGION);
    fill(region, REGION, 5);
    other[0] ^= 1;
    other[0] ^= 1;
    SYS(munmap(region, REGION));
    CHECK(mremap(other, REGION, REGION, MREMAP_MAYMOVE | MREMAP_FIXED, region) == region);
    HOLDS(region, 0, REGION, 4013);
    fill(region, REGION, 6);
    watch_end(&w);
}

CASE(mremap_shrink)
{
    begin(4014);
    CHECK(mremap(region, REGION, 10 * PAGE, 0) == region);
    CHECK(faults(region + 10 * PAGE, 0));
    HOLDS(region, 0, 10 * PAGE, 4014);
    fill(region, 10 * PAGE, 7);
    watch_end(&w);
}

CASE(mremap_shrink_and_grow)
{
    begin(4015);
    CHECK(mremap(region, REGION, PAGE, 0) == region);
    unsigned char *m = mremap(region, PAGE, REGION, MREMAP_MAYMOVE);
    CHECK(m != MAP_FAILED);
    HOLDS(m, 0, PAGE, 4015);
    zeroes(m + PAGE, REGION - PAGE);
    fill(m, REGION, 8);
    watch_end(&w);
}

CASE(dontneed)
{
    begin(4020);
    SYS(madvise(region, REGION, MADV_DONTNEED));
    zeroes(region, REGION);
    fill(region, REGION, 10);
    watch_end(&w);
    HOLDS(region, 0, REGION, 10);
}

CASE(dontneed_part)
{
    begin(4021);
    for (size_t i = 0; i < PAGES; i += 3)
        SYS(madvise(region + i * PAGE, PAGE, MADV_DONTNEED));
    for (size_t i = 0; i < PAGES; i++)
        if (i % 3 == 0)
            zeroes(region + i * PAGE, PAGE);
        else
            HOLDS(region + i * PAGE, i * PAGE, PAGE, 4021);
    watch_end(&w);
}

CASE(dontneed_of_a_file)
{
    int fd = pattern_file(REGION, 4022);
    region = mmap(NULL, REGION, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    CHECK(region != MAP_FAILED);
    fill(region, REGION, 4023);
    watch_begin(&w, region, REGION, 4023);
    SYS(madvise(region, REGION, MADV_DONTNEED));
    HOLDS(region, 0, REGION, 4022);
    watch_end(&w);
    close(fd);
}

/* After MADV_FREE each page has its old bytes or zeroes, until it is written. */
/* The page next to a written one has no memory behind it: nothing may look there but the program. */
CASE(file_ends_beside_a_written_page)
{
    int fd = pattern_file(8 * PAGE, 900);
    unsigned char *m = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    CHECK(m != MAP_FAILED);
    SYS(ftruncate(fd, 3 * PAGE));
    int p[2];
    SYS(pipe(p));
    fflush(NULL);
    pid_t child = (pid_t)SYS(fork());
    if (child == 0) {
        char c;
        SYS(close(p[1]));
        EQUAL(0, read(p[0], &c, 1));
        CHECK(m[PAGE] != 0xEE && m[2 * PAGE] != 0xEE);
        _exit(0);
    }
    SYS(close(p[0]));
    m[PAGE] = m[2 * PAGE] = 0xEE;
    SYS(close(p[1]));
    expect_exit(child, 0);
    SYS(munmap(m, 8 * PAGE));
    SYS(close(fd));
}

CASE(free)
{
    begin(4024);
    SYS(madvise(region, REGION, MADV_FREE));
    for (size_t i = 0; i < PAGES; i++)
        if (mismatch(region + i * PAGE, i * PAGE, PAGE, 4024) >= 0)
            zeroes(region + i * PAGE, PAGE);
    fill(region, REGION, 11);
    HOLDS(region, 0, REGION, 11);
    watch_end(&w);
    HOLDS(region, 0, REGION, 11);
}

CASE(protect)
{
    begin(4025);
    SYS(mprotect(region, REGION, PROT_NONE));
    CHECK(faults(region, 0));
    SYS(mprotect(region, 30 * PAGE, PROT_READ));
    HOLDS(region, 0, 30 * PAGE, 4025);
    CHECK(faults(region + 5 * PAGE, 1));
    SYS(mprotect(region, REGION, PROT_READ | PROT_WRITE));
    HOLDS(region, 0, REGION, 4025);
    fill(region, REGION, 12);
    watch_end(&w);
}

CASE(brk)
{
    unsigned char *start = sbrk(0);
    start = (unsigned char *)(((uintptr_t)start + PAGE - 1) / PAGE * PAGE);
    EQUAL(0, brk(start + REGION));
    region = start;
    fill(region, REGION, 4030);
    watch_begin(&w, region, REGION, 4030);
    EQUAL(0, brk(start + 4 * PAGE));
    CHECK(faults(region + 4 * PAGE, 0));
    EQUAL(0, brk(start + REGION));
    zeroes(region + 4 * PAGE, REGION - 4 * PAGE);
    HOLDS(region, 0, 4 * PAGE, 4030);
    fill(region, REGION, 13);
    EQUAL(0, brk(start));
    watch_end(&w);
}

/* Half a 2 MB page goes away, and large regions as a whole. */
CASE(huge)
{
    size_t length = 16UL << 20;
    unsigned char *m = map_anonymous(length);
    madvise(m, length, MADV_HUGEPAGE);
    fill(m, length, 4040);
    watch_begin(&w, m, length, 4040);
    SYS(madvise(m + (1UL << 20), 3UL << 20, MADV_DONTNEED));
    SYS(munmap(m + (5UL << 20) + PAGE, 2UL << 20));
    map_at(m + (8UL << 20) + 3 * PAGE, 5 * PAGE);
    zeroes(m + (1UL << 20), 3UL << 20);
    HOLDS(m, 0, 1UL << 20, 4040);
    HOLDS(m + (4UL << 20), 4UL << 20, 1UL << 20, 4040);
    fill(m + (10UL << 20), 2UL << 20, 14);
    SYS(munmap(m + (12UL << 20), 4UL << 20));
    watch_end(&w);
    HOLDS(m + (10UL << 20), 0, 2UL << 20, 14);
}

/* Random changes against a model: each page of the region is unmapped, zero, or a pattern. Three snapshots from different times watch. */
static int models[4][PAGES];       /* -1 unmapped, 0 zero, else seed */
static struct { volatile int *flags; pid_t pid; } watcher[4];

static void check_model(const int *model)
{
    for (size_t i = 0; i < PAGES; i++)
        if (model[i] == 0)
            zeroes(region + i * PAGE, PAGE);
        else if (model[i] > 0)
            HOLDS(region + i * PAGE, 0, PAGE, (uint64_t)model[i]);
}

CASE(random_changes)
{
    region = map_anonymous(REGION);
    uint64_t seed = 4050;
    int model[PAGES] = { 0 };
    for (int round = 0; round < 24; round++) {
        int slot = round % 3;
        if (watcher[slot].pid) {
            watcher[slot].flags[1] = 1;
            expect_exit(watcher[slot].pid, 0);
            SYS(munmap((void *)watcher[slot].flags, PAGE));
        }
        memcpy(models[slot], model, sizeof model);
        watcher[slot].flags = map_shared(PAGE);
        watcher[slot].pid = (pid_t)SYS(fork());
        if (watcher[slot].pid == 0) {
            check_model(models[slot]);
            watcher[slot].flags[0] = 1;
            WAIT_UNTIL(watcher[slot].flags[1]);
            check_model(models[slot]);
            _exit(0);
        }
        if (round % 2)
            SPIN_UNTIL(watcher[slot].flags[0]);
        for (int step = 0; step < 40; step++) {
            uint64_t r = mix(seed++);
            size_t first = r % PAGES, count = 1 + (r >> 8) % 8;
            if (first + count > PAGES)
                count = PAGES - first;
            unsigned char *at = region + first * PAGE;
            switch ((r >> 16) % 5) {
            case 0:
                SYS(munmap(at, count * PAGE));
                for (size_t i = 0; i < count; i++)
                    model[first + i] = -1;
                break;
            case 1:
                map_at(at, count * PAGE);
                for (size_t i = 0; i < count; i++)
                    model[first + i] = 0;
                break;
            case 2:
                for (size_t i = 0; i < count; i++)
                    if (model[first + i] >= 0) {
                        SYS(madvise(at + i * PAGE, PAGE, MADV_DONTNEED));
                        model[first + i] = 0;
                    }
                break;
            case 3: {
                int moved[8], ok = 1;
                for (size_t i = 0; i < count; i++)
                    ok &= model[first + i] >= 0;
                size_t target = (r >> 32) % (PAGES - count + 1);
                if (!ok || (target < first + count && first < target + count))
                    break;
                /* one mapping at a time, since a source range of several mappings is refused */
                for (size_t i = 0; i < count; i++) {
                    moved[i] = model[first + i];
                    CHECK(mremap(at + i * PAGE, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, region + (target + i) * PAGE) != MAP_FAILED);
                }
                for (size_t i = 0; i < count; i++) {
                    model[first + i] = -1;
                    model[target + i] = moved[i];
                }
                break;
            }
            default:
                for (size_t i = 0; i < count; i++)
                    if (model[first + i] >= 0) {
                        model[first + i] = (int)(1 + (r >> 40) % 100000 + i);
                        fill(at + i * PAGE, PAGE, (uint64_t)model[first + i]);
                    }
            }
        }
        check_model(model);
    }
    for (int slot = 0; slot < 3; slot++) {
        watcher[slot].flags[1] = 1;
        expect_exit(watcher[slot].pid, 0);
    }
}
