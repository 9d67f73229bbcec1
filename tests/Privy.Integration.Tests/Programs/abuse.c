/* A program that asks for too much: descriptors, threads, memory. */
#include "testlib.h"
#include <sys/resource.h>
#include <sys/socket.h>

/* Descriptors up to the limit: an error, and everything goes on. */
CASE(descriptor_limit)
{
    struct rlimit r = { 200, 200 };
    SYS(syscall(SYS_close_range, 3, ~0U, 0));
    SYS(setrlimit(RLIMIT_NOFILE, &r));
    unsigned char *m = map_anonymous(64 * PAGE);
    fill(m, 64 * PAGE, 1);
    for (int round = 0; round < 3; round++) {
        int n = 0;
        while (dup(0) != -1)
            n++;
        EQUAL(EMFILE, errno);
        /* a few less under Privy: what the hypervisor opens has a number, too (docs/limits.md) */
        CHECK(n <= 197 && n > 185);
        EQUAL(-1, socket(AF_UNIX, SOCK_STREAM, 0));
        EQUAL(EMFILE, errno);
        EQUAL(-1, fcntl(0, F_DUPFD, 200));
        EQUAL(EINVAL, errno);
        EQUAL(-1, dup2(0, 200));
        EQUAL(EBADF, errno);
        for (int i = 20; i < 30; i++)
            close(i);
        IN_CHILD({
            HOLDS(m, 0, 64 * PAGE, 1);
            /* One of its own: any other number may be the hypervisor's. */
            int last = -1;
            for (int fd; (fd = dup(0)) != -1;)
                last = fd;
            EQUAL(EMFILE, errno);
            SYS(close(last));
            EQUAL(last, dup(0));
            EQUAL(-1, dup(0));
        });
        pthread_t t;
        extern void *nothing(void *);
        EQUAL(0, pthread_create(&t, NULL, nothing, NULL));
        EQUAL(0, pthread_join(t, NULL));
        for (int i = 3; i < 200; i++)
            close(i);
    }
}

void *nothing(void *a) { return a; }

static volatile int stop_closing;

static void *close_all(void *a)
{
    (void)a;
    for (int i = 0; !stop_closing; i++) {
        syscall(SYS_close_range, 3, ~0U, 0);
        for (int fd = 3; fd < 40; fd++)
            close(fd);
        dup2(0, 3 + i % 20);
    }
    return NULL;
}

static pthread_barrier_t all_there;
static void *meet(void *a) { pthread_barrier_wait(&all_there); return a; }

/* A program that closes whatever there is, as daemons do when they start, while forks and new threads need what the hypervisor opens. */
CASE(everything_closed_all_the_time)
{
    enum { THREADS = 40 };
    pthread_t closer, threads[THREADS];
    unsigned char *m = map_anonymous(64 * PAGE);
    fill(m, 64 * PAGE, 1);
    EQUAL(0, pthread_create(&closer, NULL, close_all, NULL));
    /* More threads at once each time: each of them needs a virtual processor that was not there. */
    for (int n = 1; n <= THREADS; n += 3) {
        EQUAL(0, pthread_barrier_init(&all_there, NULL, (unsigned)n + 1));
        for (int i = 0; i < n; i++)
            EQUAL(0, pthread_create(&threads[i], NULL, meet, NULL));
        pthread_barrier_wait(&all_there);
        for (int i = 0; i < n; i++)
            EQUAL(0, pthread_join(threads[i], NULL));
        IN_CHILD({ sleep_ms(2); HOLDS(m, 0, 64 * PAGE, 1); });
    }
    stop_closing = 1;
    EQUAL(0, pthread_join(closer, NULL));
    /* What is open after it is the hypervisor's alone. */
    syscall(SYS_close_range, 3, ~0U, 0);
    EQUAL(3, dup(0));
}

/* 64 threads that map, write, read and unmap, while others fork. */
static unsigned char *shared_area;
static volatile int forks_done;

static void *busy(void *argument)
{
    uint64_t id = (uint64_t)argument, random = id;
    unsigned char *mine = shared_area + id * 16 * PAGE;
    for (int round = 0; !forks_done || round < 20; round++) {
        fill(mine, 16 * PAGE, id * 1000 + (uint64_t)round);
        random = mix(random);
        size_t pages = 1 + random % 30;
        unsigned char *m = map_anonymous(pages * PAGE);
        m[random % (pages * PAGE)] = 1;
        SYS(munmap(m, pages * PAGE));
        HOLDS(mine, 0, 16 * PAGE, id * 1000 + (uint64_t)round);
        if (round % 16 == (int)(id % 16))
            sched_yield();
    }
    return NULL;
}

CASE(threads_64)
{
    enum { THREADS = 64 };
    pthread_t t[THREADS];
    shared_area = map_anonymous(THREADS * 16 * PAGE);
    unsigned char *still = map_anonymous(32 * PAGE);
    fill(still, 32 * PAGE, 7);
    for (uint64_t i = 0; i < THREADS; i++)
        EQUAL(0, pthread_create(&t[i], NULL, busy, (void *)i));
    for (int i = 0; i < 8; i++)
        IN_CHILD({ HOLDS(still, 0, 32 * PAGE, 7); });
    forks_done = 1;
    for (int i = 0; i < THREADS; i++)
        EQUAL(0, pthread_join(t[i], NULL));
}

/* More threads and children than there can be: an error, and everything goes on. */
static volatile int begun, go_on;

static void *closer(void *a)
{
    while (!go_on)
        SYS(syscall(SYS_close_range, 100, ~0U, 0));
    return a;
}

static void *waiter(void *a)
{
    __atomic_add_fetch(&begun, 1, __ATOMIC_SEQ_CST);
    WAIT_UNTIL(go_on);
    return a;
}

/* What Privy opens for a new thread or child while another thread closes all descriptors. */
CASE(close_range_beside_new_threads)
{
    pthread_t closing, thread[30];
    pid_t child[4];
    begun = go_on = 0;
    EQUAL(0, pthread_create(&closing, NULL, closer, NULL));
    for (long i = 0; i < 30; i++) {
        EQUAL(0, pthread_create(&thread[i], NULL, waiter, (void *)i));
        if (i % 8 == 0) {
            child[i / 8] = (pid_t)SYS(fork());
            if (child[i / 8] == 0)
                _exit((int)i);
        }
    }
    WAIT_UNTIL(begun == 30);
    go_on = 1;
    for (long i = 0; i < 30; i++) {
        void *result;
        EQUAL(0, pthread_join(thread[i], &result));
        EQUAL(i, (long)result);
    }
    EQUAL(0, pthread_join(closing, NULL));
    for (int i = 0; i < 4; i++)
        expect_exit(child[i], i * 8);
}

static int lowest_number(void)
{
    int fd = (int)SYS(dup(0));
    SYS(close(fd));
    return fd;
}

CASE(children_beyond_the_limit)
{
    pid_t child[100];
    int n = 0, go[2];
    char c;
    SYS(pipe(go));
    for (; n < 100; n++) {
        child[n] = fork();
        if (child[n] == -1) {
            EQUAL(EAGAIN, errno);
            break;
        }
        if (child[n] == 0) {
            SYS(close(go[1]));
            _exit(read(go[0], &c, 1) == 0 ? n : 200);
        }
    }
    CHECK(n >= 60);
    /* The numbers are the program's, however many descriptors all that needs (but for an instant, docs/limits.md). */
    WAIT_UNTIL(lowest_number() == go[1] + 1);
    SYS(close(go[1]));
    for (int i = 0; i < n; i++)
        expect_exit(child[i], i);
    IN_CHILD({ _exit(0); });
}

/* Takes memory until somebody stops it. */
CASE(die_of_memory)
{
    printf("about to die\n");
    for (size_t i = 0;; i++) {
        unsigned char *m = map_anonymous(1 << 20);
        memset(m, (int)i, 1 << 20);
        if (i == 20)
            IN_CHILD({ _exit(0); });
    }
}

/* The same in a child: its copies are the hypervisor's memory. */
CASE(die_of_copies)
{
    unsigned char *m = map_anonymous(150 << 20);
    memset(m, 1, 150 << 20);
    printf("about to die\n");
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0)
        for (int i = 2;; i++)
            memset(m, i, 150 << 20), sleep_ms(50);
    memset(m, 7, 150 << 20);
    waitpid(pid, NULL, 0);
}
