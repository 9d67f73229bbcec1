/* Writer threads on random pages while the process forks again and again; each child checks every byte.
 *
 * Writer w owns the pages p with p % writers == w and makes an endless, known sequence of writes: write k goes to page place(w, k). It
 * stores k at the head of the page, then every word in ascending order, then k at the tail, then k as its progress. x86 makes the stores of
 * a thread visible in order, so what a true snapshot shows of writer w with progress k is: all writes up to k done, write k + 1
 * perhaps begun (a prefix of the words), nothing later. Each page also holds the progress of the next writer as seen at the beginning of the write, which the
 * snapshot must not contradict: the cut is consistent across threads.
 */
#include "testlib.h"

#define WORDS (PAGE / 8)
enum { HEAD = 0, SEEN = 1, BODY = 2, TAIL = WORDS - 1 };

static uint64_t seed;
static int writers;
static size_t pages;
static volatile uint64_t *memory;
static volatile uint64_t *progress;       /* one cache line each */
static volatile int stop, pause_at_fork;
static pthread_rwlock_t gate = PTHREAD_RWLOCK_INITIALIZER;

static size_t place(int w, uint64_t k) { return (size_t)(mix(seed ^ ((uint64_t)w << 56) ^ k) % (pages / (size_t)writers)) * (size_t)writers + (size_t)w; }
static uint64_t word(size_t page, uint64_t k, size_t i) { return mix(seed + page * 0x10001 + (k << 20)) + i * k; }

static void *writer(void *a)
{
    int w = (int)(long)a;
    for (uint64_t k = progress[w * 8] + 1; !stop; k++) {
        if (pause_at_fork)
            pthread_rwlock_rdlock(&gate);
        size_t page = place(w, k);
        volatile uint64_t *m = memory + page * WORDS;
        uint64_t base = mix(seed + page * 0x10001 + (k << 20));
        uint64_t seen = progress[(w + 1) % writers * 8];
        m[HEAD] = k;
        m[SEEN] = seen;
        for (size_t i = BODY; i < TAIL; i++)
            m[i] = base + i * k;
        m[TAIL] = k;
        progress[w * 8] = k;
        if (pause_at_fork)
            pthread_rwlock_unlock(&gate);
    }
    return NULL;
}

/* Brings the model up to the writers' progress: `last` is the newest write of each page, 0 = none yet. */
static void follow(uint64_t *last, uint64_t *upto)
{
    for (int w = 0; w < writers; w++) {
        uint64_t k = progress[w * 8];
        for (uint64_t j = upto[w] + 1; j <= k; j++)
            last[place(w, j)] = j;
        upto[w] = k;
    }
}

/* Every page of the memory against the model. */
static void check(uint64_t *last, uint64_t *upto)
{
    follow(last, upto);
    for (size_t page = 0; page < pages; page++) {
        int w = (int)(page % (size_t)writers);
        volatile uint64_t *m = memory + page * WORDS;
        uint64_t k = upto[w], old = last[page], head = m[HEAD];
        uint64_t next = place(w, k + 1) == page ? k + 1 : 0;
        if (head == old) {
            for (size_t i = BODY; i < TAIL; i++)
                if (m[i] != (old ? word(page, old, i) : 0))
                    FAIL("page %zu word %zu: write %lu of writer %d (progress %lu) is not whole", page, i, (unsigned long)old, w, (unsigned long)k);
            EQUAL(old, m[TAIL]);
        } else if (next && head == next) {
            size_t i = BODY;
            while (i < TAIL && m[i] == word(page, next, i))
                i++;
            for (; i < TAIL; i++)
                if (m[i] != (old ? word(page, old, i) : 0))
                    FAIL("page %zu word %zu: write %lu of writer %d has begun, but this is neither it nor what was before", page, i, (unsigned long)next, w);
        } else {
            FAIL("page %zu has write %lu of writer %d, whose progress is %lu; it should have %lu", page, (unsigned long)head, w, (unsigned long)k, (unsigned long)old);
        }
        /* the cut across threads */
        uint64_t seen = m[SEEN];
        if (head == old && seen > upto[(w + 1) % writers])
            FAIL("page %zu was written after write %lu of the next writer, whose progress here is %lu", page, (unsigned long)seen, (unsigned long)upto[(w + 1) % writers]);
    }
}

static uint64_t hash_all(void)
{
    uint64_t h = 0;
    for (size_t i = 0; i < pages * WORDS; i++)
        h = (h ^ memory[i]) * 0x9e3779b97f4a7c15ULL + i;
    return h;
}

static void run(int threads, size_t megabytes, int rounds, int alive, int paused)
{
    const char *given = getenv("STRESS_SEED");
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    seed = given ? strtoull(given, NULL, 0) : (uint64_t)t.tv_nsec * 1000003 + (uint64_t)getpid();
    char note[100];
    int n = snprintf(note, sizeof note, "note: STRESS_SEED=%lu\n", (unsigned long)seed);
    if (write(2, note, (size_t)n) < 0) {}
    writers = threads;
    pages = megabytes * 256 / (size_t)threads * (size_t)threads;
    memory = map_anonymous(pages * PAGE);
    progress = map_anonymous(PAGE);
    memset((void *)memory, 0, pages * PAGE);
    stop = 0;
    pause_at_fork = paused;
    pthread_t thread[16];
    uint64_t *last = map_anonymous(pages * 8), upto[16] = { 0 };
    for (long i = 0; i < threads; i++)
        EQUAL(0, pthread_create(&thread[i], NULL, writer, (void *)i));
    pid_t child[8] = { 0 };
    for (int round = 0; round < rounds; round++) {
        pid_t *slot = &child[round % alive];
        if (*slot)
            expect_exit(*slot, 0);
        uint64_t hash = 0;
        follow(last, upto);     /* so that a child has little left to compute */
        if (paused) {
            EQUAL(0, pthread_rwlock_wrlock(&gate));
            hash = hash_all();
        }
        *slot = (pid_t)SYS(fork());
        if (*slot == 0) {
            uint64_t *own_last = last;
            uint64_t own[16];
            memcpy(own, upto, sizeof own);
            if (paused)
                CHECK(hash_all() == hash);
            check(own_last, own);
            /* nothing may move afterwards, while the parent goes on */
            uint64_t first = hash_all();
            sleep_ms(20);
            CHECK(hash_all() == first);
            check(own_last, own);
            if (paused)
                CHECK(hash == first);
            /* what the child writes is its own */
            for (size_t page = (size_t)round % 7; page < pages; page += 7)
                for (size_t i = 0; i < WORDS; i++)
                    memory[page * WORDS + i] = ~(page + i);
            sleep_ms(5);
            for (size_t page = (size_t)round % 7; page < pages; page += 7)
                for (size_t i = 0; i < WORDS; i++)
                    if (memory[page * WORDS + i] != ~(page + i))
                        FAIL("the child's own page %zu changed", page);
            _exit(0);
        }
        if (paused)
            EQUAL(0, pthread_rwlock_unlock(&gate));
    }
    for (int i = 0; i < alive; i++)
        if (child[i])
            expect_exit(child[i], 0);
    stop = 1;
    for (int i = 0; i < threads; i++)
        EQUAL(0, pthread_join(thread[i], NULL));
    check(last, upto);
    for (int w = 0; w < threads; w++)
        CHECK(progress[w * 8] > 10);
    SYS(munmap((void *)memory, pages * PAGE));
    SYS(munmap((void *)progress, PAGE));
    SYS(munmap(last, pages * 8));
}

CASE(paused) { run(2, 8, 20, 3, 1); }
CASE(concurrent) { run(2, 8, 30, 3, 0); }
CASE(four_writers) { run(4, 4, 40, 4, 0); }
CASE(one_child_at_a_time) { run(3, 4, 60, 1, 0); }
CASE(megabytes_64) { run(2, 64, 6, 2, 0); }
CASE(small_and_many) { run(2, 1, 150, 6, 0); }
