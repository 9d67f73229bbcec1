/* Threads: creation and end, mutexes, conditions, barriers, thread-local storage, semaphores, cancellation. */
#include "testlib.h"
#include <semaphore.h>
#include <setjmp.h>

static __thread long tls = 7;
static __thread char big_tls[5000];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static volatile long counter;

static void *return_argument(void *a) { return (void *)((long)a * 2 + tls); }

CASE(create_and_join_1000)
{
    for (long i = 0; i < 1000; i++) {
        pthread_t t;
        void *value;
        EQUAL(0, pthread_create(&t, NULL, return_argument, (void *)i));
        EQUAL(0, pthread_join(t, &value));
        EQUAL(i * 2 + 7, (long)value);
    }
}

CASE(sixty_at_once)
{
    pthread_t t[60];
    for (long i = 0; i < 60; i++)
        EQUAL(0, pthread_create(&t[i], NULL, return_argument, (void *)i));
    for (long i = 0; i < 60; i++) {
        void *value;
        EQUAL(0, pthread_join(t[i], &value));
        EQUAL(i * 2 + 7, (long)value);
    }
}

static void *detached(void *a) { __atomic_fetch_add((long *)a, 1, __ATOMIC_SEQ_CST); return NULL; }

CASE(detached_200)
{
    long n = 0;
    pthread_attr_t a;
    pthread_attr_init(&a);
    pthread_attr_setdetachstate(&a, PTHREAD_CREATE_DETACHED);
    for (int i = 0; i < 200; i++) {
        pthread_t t;
        EQUAL(0, pthread_create(&t, &a, detached, &n));
    }
    WAIT_UNTIL(__atomic_load_n(&n, __ATOMIC_SEQ_CST) == 200);
}

static void *lock_many(void *a)
{
    (void)a;
    for (int i = 0; i < 20000; i++) {
        pthread_mutex_lock(&mutex);
        counter = counter + 1;
        pthread_mutex_unlock(&mutex);
    }
    return NULL;
}

CASE(mutex)
{
    pthread_t t[4];
    counter = 0;
    for (int i = 0; i < 4; i++)
        EQUAL(0, pthread_create(&t[i], NULL, lock_many, NULL));
    for (int i = 0; i < 4; i++)
        EQUAL(0, pthread_join(t[i], NULL));
    EQUAL(80000, counter);
}

static volatile int turn;
static void *ping_pong(void *a)
{
    for (int i = 0; i < 1000; i++) {
        pthread_mutex_lock(&mutex);
        while (turn != (int)(long)a)
            pthread_cond_wait(&condition, &mutex);
        turn = !turn;
        counter = counter + 1;
        pthread_cond_signal(&condition);
        pthread_mutex_unlock(&mutex);
    }
    return NULL;
}

CASE(condition)
{
    pthread_t t[2];
    counter = turn = 0;
    for (long i = 0; i < 2; i++)
        EQUAL(0, pthread_create(&t[i], NULL, ping_pong, (void *)i));
    for (int i = 0; i < 2; i++)
        EQUAL(0, pthread_join(t[i], NULL));
    EQUAL(2000, counter);
}

CASE(condition_timeout)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_sec += (t.tv_nsec += 50000000) / 1000000000;
    t.tv_nsec %= 1000000000;
    double start = now();
    pthread_mutex_lock(&mutex);
    EQUAL(ETIMEDOUT, pthread_cond_timedwait(&condition, &mutex, &t));
    pthread_mutex_unlock(&mutex);
    CHECK(now() - start > 0.03);
}

static pthread_barrier_t barrier;
static long sums[4];
static void *phases(void *a)
{
    long me = (long)a;
    for (int phase = 0; phase < 100; phase++) {
        sums[me] += phase;
        pthread_barrier_wait(&barrier);
        for (int i = 0; i < 4; i++)
            CHECK(sums[i] == (long)phase * (phase + 1) / 2);
        pthread_barrier_wait(&barrier);
    }
    return NULL;
}

CASE(barrier)
{
    pthread_t t[4];
    pthread_barrier_init(&barrier, NULL, 4);
    for (long i = 0; i < 4; i++)
        EQUAL(0, pthread_create(&t[i], NULL, phases, (void *)i));
    for (int i = 0; i < 4; i++)
        EQUAL(0, pthread_join(t[i], NULL));
}

static void *use_tls(void *a)
{
    EQUAL(7, tls);
    tls = (long)a;
    fill(big_tls, sizeof big_tls, (uint64_t)(long)a);
    errno = (int)(long)a;
    for (int i = 0; i < 50; i++) {
        sched_yield();
        EQUAL((long)a, tls);
        EQUAL((long)a, errno);
        HOLDS(big_tls, 0, sizeof big_tls, (uint64_t)(long)a);
    }
    return NULL;
}

CASE(thread_local_storage)
{
    pthread_t t[8];
    for (long i = 0; i < 8; i++)
        EQUAL(0, pthread_create(&t[i], NULL, use_tls, (void *)(i + 100)));
    for (int i = 0; i < 8; i++)
        EQUAL(0, pthread_join(t[i], NULL));
    EQUAL(7, tls);
}

static int destroyed;
static void destroy(void *v) { destroyed += (int)(long)v; }
static pthread_key_t key;
static void *set_key(void *a) { pthread_setspecific(key, a); return NULL; }

CASE(key_destructors)
{
    pthread_key_create(&key, destroy);
    for (long i = 1; i <= 5; i++) {
        pthread_t t;
        EQUAL(0, pthread_create(&t, NULL, set_key, (void *)i));
        EQUAL(0, pthread_join(t, NULL));
    }
    EQUAL(15, destroyed);
}

static sem_t semaphore;
static void *post(void *a) { for (long i = 0; i < (long)a; i++) sem_post(&semaphore); return NULL; }

CASE(semaphore)
{
    pthread_t t[3];
    sem_init(&semaphore, 0, 0);
    for (int i = 0; i < 3; i++)
        EQUAL(0, pthread_create(&t[i], NULL, post, (void *)500L));
    for (int i = 0; i < 1500; i++)
        EQUAL(0, sem_wait(&semaphore));
    EQUAL(-1, sem_trywait(&semaphore));
    EQUAL(EAGAIN, errno);
    for (int i = 0; i < 3; i++)
        EQUAL(0, pthread_join(t[i], NULL));
}

static int cleaned;
static void clean(void *a) { (void)a; cleaned++; }
static void *wait_forever(void *a)
{
    pthread_cleanup_push(clean, NULL);
    char c;
    if (read((int)(long)a, &c, 1)) {}
    pthread_cleanup_pop(0);
    return NULL;
}

CASE(cancel)
{
    int fd[2];
    SYS(pipe(fd));
    for (int i = 0; i < 5; i++) {
        pthread_t t;
        void *value;
        EQUAL(0, pthread_create(&t, NULL, wait_forever, (void *)(long)fd[0]));
        sleep_ms(10);
        EQUAL(0, pthread_cancel(t));
        EQUAL(0, pthread_join(t, &value));
        CHECK(value == PTHREAD_CANCELED);
    }
    EQUAL(5, cleaned);
}

static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static volatile long pair[2];
static void *readers_and_writers(void *a)
{
    for (int i = 0; i < 3000; i++)
        if ((i + (long)a) % 5 == 0) {
            pthread_rwlock_wrlock(&rwlock);
            pair[0] = pair[0] + 1;
            pair[1] = pair[1] + 1;
            pthread_rwlock_unlock(&rwlock);
        } else {
            pthread_rwlock_rdlock(&rwlock);
            CHECK(pair[0] == pair[1]);
            pthread_rwlock_unlock(&rwlock);
        }
    return NULL;
}

CASE(reader_writer_lock)
{
    pthread_t t[4];
    for (long i = 0; i < 4; i++)
        EQUAL(0, pthread_create(&t[i], NULL, readers_and_writers, (void *)i));
    for (int i = 0; i < 4; i++)
        EQUAL(0, pthread_join(t[i], NULL));
    EQUAL(2400, pair[0]);
}

/* Allocation from many threads: arenas, mmap and munmap at once, every block checked. */
static void *allocate(void *a)
{
    uint64_t r = (uint64_t)(long)a;
    unsigned char *block[50] = { 0 };
    size_t size[50] = { 0 };
    for (int i = 0; i < 1500; i++) {
        r = mix(r);
        int slot = (int)(r % 50);
        if (block[slot]) {
            HOLDS(block[slot], 0, size[slot], (uint64_t)slot);
            free(block[slot]);
        }
        size[slot] = 16 + (r >> 10) % (i % 50 == 0 ? 300000 : 1500);
        fill(block[slot] = malloc(size[slot]), size[slot], (uint64_t)slot);
    }
    for (int i = 0; i < 50; i++)
        free(block[i]);
    return NULL;
}

CASE(allocation)
{
    pthread_t t[4];
    for (long i = 0; i < 4; i++)
        EQUAL(0, pthread_create(&t[i], NULL, allocate, (void *)(i + 1)));
    for (int i = 0; i < 4; i++)
        EQUAL(0, pthread_join(t[i], NULL));
}

/* Writers in one thread, mprotect and munmap in another: translations of all processors must follow. */
static unsigned char *volatile target;
static volatile int stop_touching;
static void *touch(void *a)
{
    long n = 0;
    (void)a;
    while (!stop_touching) {
        for (int i = 0; i < 16; i++)
            target[i * PAGE] = (unsigned char)n;
        n++;
    }
    return (void *)n;
}

CASE(mappings_of_other_threads)
{
    target = map_anonymous(16 * PAGE);
    stop_touching = 0;
    pthread_t t;
    EQUAL(0, pthread_create(&t, NULL, touch, NULL));
    for (int i = 0; i < 100; i++) {
        unsigned char *other = map_anonymous(16 * PAGE);
        fill(other, 16 * PAGE, 5);
        SYS(mprotect(other, 16 * PAGE, PROT_READ));
        HOLDS(other, 0, 16 * PAGE, 5);
        SYS(madvise(target, 16 * PAGE, MADV_DONTNEED));
        SYS(munmap(other, 16 * PAGE));
    }
    stop_touching = 1;
    void *n;
    EQUAL(0, pthread_join(t, &n));
    CHECK((long)n > 0);
}

/* The main thread ends first, the last thread's exit code counts. */
static void *last_one(void *a)
{
    (void)a;
    sleep_ms(50);
    printf("OK main_thread_exits_first\n");
    exit(0);
}

CASE(whole_process_exit_from_a_thread)
{
    fflush(NULL);
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0) {
        pthread_t t;
        EQUAL(0, pthread_create(&t, NULL, last_one, NULL));
        pthread_exit(NULL);
    }
    expect_exit(pid, 0);
}

static void *sleep_long(void *a) { (void)a; sleep(100); return NULL; }

/* exit_group with other threads blocked and running. */
CASE(exit_with_threads)
{
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0) {
        pthread_t t;
        for (int i = 0; i < 3; i++)
            EQUAL(0, pthread_create(&t, NULL, sleep_long, NULL));
        target = map_anonymous(16 * PAGE);
        stop_touching = 0;
        EQUAL(0, pthread_create(&t, NULL, touch, NULL));
        sleep_ms(20);
        _exit(66);
    }
    expect_exit(pid, 66);
}

CASE(ids_and_names)
{
    EQUAL(getpid(), syscall(SYS_gettid));
    EQUAL(0, pthread_setname_np(pthread_self(), "a-name"));
    char name[16];
    EQUAL(0, pthread_getname_np(pthread_self(), name, sizeof name));
    CHECK(strcmp(name, "a-name") == 0);
    cpu_set_t set;
    SYS(sched_getaffinity(0, sizeof set, &set));
    CHECK(CPU_COUNT(&set) >= 1);
    pthread_attr_t a;
    void *stack;
    size_t size;
    EQUAL(0, pthread_getattr_np(pthread_self(), &a));
    EQUAL(0, pthread_attr_getstack(&a, &stack, &size));
    CHECK((char *)&a > (char *)stack && (char *)&a < (char *)stack + size);
}

static void *waits_for_ever(void *unused)
{
    (void)unused;
    for (;;)
        pause();
    return NULL;
}

static void *starts_threads(void *unused)
{
    (void)unused;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 65536);
    pthread_t thread;
    for (int i = 0; i < 100; i++)
        if (pthread_create(&thread, &attributes, waits_for_ever, NULL) != 0)
            break;
    return NULL;
}

CASE(exit_while_threads_start)
{
    /* A thread that is being born when the process ends must end, too. */
    for (int round = 0; round < 30; round++)
        IN_CHILD({
            pthread_t thread;
            pthread_create(&thread, NULL, starts_threads, NULL);
            struct timespec t = { 0, round * 300000L };
            nanosleep(&t, NULL);
        });
}

/* Threads that write to pages whose rights are taken, or read pages that are replaced, while they move between processors: a translation that one
 * processor has kept must not be used when the thread comes back to it. */
enum { MOVED = 2, SHARED_PAGES = 8 };
static volatile long *shared_pages[SHARED_PAGES];
static volatile long round_shown, stale;
static volatile pid_t moved[MOVED + 1];
static volatile int stop_moving;
static __thread sigjmp_buf refused;

static void on_refusal(int signal) { (void)signal; siglongjmp(refused, 1); }

static void *writes_while_allowed(void *mine)
{
    moved[(long)mine] = (pid_t)syscall(SYS_gettid);
    while (!stop_moving)
        if (sigsetjmp(refused, 1) == 0)
            while (!stop_moving)
                for (int i = 0; i < SHARED_PAGES; i++)
                    __atomic_add_fetch(&shared_pages[i][(long)mine], 1, __ATOMIC_RELAXED);
        else
            sched_yield();
    return NULL;
}

static void *reads_what_is_newest(void *mine)
{
    moved[(long)mine] = (pid_t)syscall(SYS_gettid);
    while (!stop_moving) {
        long round = __atomic_load_n(&round_shown, __ATOMIC_ACQUIRE);
        for (int i = 0; i < SHARED_PAGES; i++)
            if (shared_pages[i][0] < round)
                stale = 1;
    }
    return NULL;
}

static void *moves_threads(void *unused)
{
    (void)unused;
    unsigned seed = 1;
    cpu_set_t all;
    SYS(sched_getaffinity(0, sizeof all, &all));
    while (!stop_moving) {
        for (int i = 0; i <= MOVED; i++) {
            int processor = rand_r(&seed) % CPU_SETSIZE;
            while (!CPU_ISSET(processor, &all))
                processor = (processor + 1) % CPU_SETSIZE;
            cpu_set_t one;
            CPU_ZERO(&one);
            CPU_SET(processor, &one);
            if (moved[i] != 0)
                sched_setaffinity(moved[i], sizeof one, &one);
        }
        struct timespec t = { 0, rand_r(&seed) % 400 * 1000 };
        nanosleep(&t, NULL);
    }
    for (int i = 0; i <= MOVED; i++)
        sched_setaffinity(moved[i], sizeof all, &all);
    return NULL;
}

static void on_moving_threads(size_t size, void *(*body)(void *), void (*round)(size_t, long))
{
    struct sigaction action = { .sa_handler = on_refusal, .sa_flags = SA_NODEFER };
    SYS(sigaction(SIGSEGV, &action, NULL));
    char *all = map_anonymous((SHARED_PAGES + 1) * size);
    char *first = (char *)(((uintptr_t)all + size - 1) & -size);
    if (size > PAGE)
        madvise(first, SHARED_PAGES * size, MADV_HUGEPAGE);
    for (int i = 0; i < SHARED_PAGES; i++)
        shared_pages[i] = (volatile long *)(first + i * size);
    stop_moving = 0, stale = 0, round_shown = 0;
    pthread_t threads[MOVED], mover;
    moved[0] = (pid_t)syscall(SYS_gettid);
    for (long i = 0; i < MOVED; i++)
        EQUAL(0, pthread_create(&threads[i], NULL, body, (void *)(i + 1)));
    EQUAL(0, pthread_create(&mover, NULL, moves_threads, NULL));
    double end = now() + 2;
    for (long i = 1; now() < end; i++) {
        round(size, i);
        CHECK(!stale);
    }
    stop_moving = 1;
    for (int i = 0; i < MOVED; i++)
        pthread_join(threads[i], NULL);
    pthread_join(mover, NULL);
    /* The readers may have seen it after the last look. */
    CHECK(!stale);
    SYS(munmap(all, (SHARED_PAGES + 1) * size));
    signal(SIGSEGV, SIG_DFL);
}

static void look_for_a_while(long number)
{
    for (double end = now() + 20e-6 * (double)(1 + number * 7 % 10); now() < end;)
        __builtin_ia32_pause();
}

static void take_right(size_t size, long number)
{
    volatile long *page = shared_pages[number % SHARED_PAGES];
    SYS(mprotect((void *)page, size, PROT_READ));
    long one = page[1], two = page[2];
    look_for_a_while(number);
    stale = page[1] != one || page[2] != two;
    SYS(mprotect((void *)page, size, PROT_READ | PROT_WRITE));
}

static void replace_pages(size_t size, long number)
{
    for (int i = 0; i < SHARED_PAGES; i++) {
        long *page = map_anonymous(size);
        *page = number;
        CHECK(mremap(page, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)shared_pages[i]) == (void *)shared_pages[i]);
    }
    __atomic_store_n(&round_shown, number, __ATOMIC_RELEASE);
    look_for_a_while(number);
}

CASE(rights_taken_from_moving_threads) { on_moving_threads(PAGE, writes_while_allowed, take_right); }
CASE(rights_to_huge_pages_taken_from_moving_threads) { on_moving_threads(2 << 20, writes_while_allowed, take_right); }
CASE(pages_replaced_under_moving_threads) { on_moving_threads(PAGE, reads_what_is_newest, replace_pages); }
