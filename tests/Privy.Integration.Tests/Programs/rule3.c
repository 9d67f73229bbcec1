/* Rule 3: writers that are not a system call of the moment. Each either is refused (ENOSYS, EPERM) or obeys rule 1. */
#include "testlib.h"
#include <linux/aio_abi.h>
#include <linux/futex.h>
#include <linux/io_uring.h>

#define REGION (8 * PAGE)

static void refused(const char *what)
{
    if (errno != ENOSYS && errno != EPERM)
        FAIL("%s is neither there nor refused", what);
}

CASE(aio)
{
    aio_context_t context = 0;
    unsigned char *region = map_anonymous(REGION);
    fill(region, REGION, 3000);
    int fd = pattern_file(3 * PAGE, 3001);
    if (syscall(SYS_io_setup, 8, &context) == -1) {
        refused("io_setup");
        return;
    }
    struct watch w;
    watch_begin(&w, region, REGION, 3000);
    struct iocb request = { .aio_fildes = (uint32_t)fd, .aio_lio_opcode = IOCB_CMD_PREAD, .aio_buf = (uint64_t)(region + PAGE + 8), .aio_nbytes = 2 * PAGE };
    struct iocb *list[] = { &request };
    EQUAL(1, syscall(SYS_io_submit, context, 1, list));
    struct io_event *event = (struct io_event *)(region + 5 * PAGE);
    EQUAL(1, syscall(SYS_io_getevents, context, 1, 1, event, NULL));
    EQUAL(2 * PAGE, event->res);
    HOLDS(region + PAGE + 8, 0, 2 * PAGE, 3001);
    watch_end(&w);
    SYS(syscall(SYS_io_destroy, context));
}

CASE(io_uring)
{
    struct io_uring_params p = { 0 };
    unsigned char *region = map_anonymous(REGION);
    fill(region, REGION, 3100);
    int file = pattern_file(3 * PAGE, 3101);
    int ring = (int)syscall(SYS_io_uring_setup, 4, &p);
    if (ring == -1) {
        refused("io_uring_setup");
        return;
    }
    unsigned char *sq = mmap(NULL, p.sq_off.array + p.sq_entries * 4, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
    unsigned char *cq = mmap(NULL, p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe), PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_CQ_RING);
    struct io_uring_sqe *sqe = mmap(NULL, p.sq_entries * sizeof *sqe, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
    CHECK(sq != MAP_FAILED && cq != MAP_FAILED && (void *)sqe != MAP_FAILED);
    struct watch w;
    watch_begin(&w, region, REGION, 3100);
    memset(sqe, 0, sizeof *sqe);
    sqe->opcode = IORING_OP_READ;
    sqe->fd = file;
    sqe->addr = (uint64_t)(region + PAGE + 8);
    sqe->len = 2 * PAGE;
    *(unsigned *)(sq + p.sq_off.array) = 0;
    __atomic_store_n((unsigned *)(sq + p.sq_off.tail), 1, __ATOMIC_RELEASE);
    EQUAL(1, syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0));
    struct io_uring_cqe *cqe = (struct io_uring_cqe *)(cq + p.cq_off.cqes);
    EQUAL(2 * PAGE, cqe->res);
    HOLDS(region + PAGE + 8, 0, 2 * PAGE, 3101);
    watch_end(&w);
    close(ring);
}

/* A raw thread: uses no library function, because it has no thread-local storage of its own. */
static volatile int raw_go;
static int raw_thread(void *a) { (void)a; while (!raw_go) __builtin_ia32_pause(); return 0; }

static void raw_threads(int tid_address_call)
{
    unsigned char *region = map_anonymous(REGION), *stack = map_anonymous(16 * PAGE);
    fill(region, REGION, 3200);
    int *word = (int *)(region + 3 * PAGE);
    int *parent_word = (int *)(region + 5 * PAGE + 64);
    struct watch w;
    raw_go = 0;
    int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_CHILD_CLEARTID | CLONE_CHILD_SETTID | CLONE_PARENT_SETTID;
    if (tid_address_call == 0) {
        /* the snapshot is there first: both ids are written into it at clone, and zero at exit */
        watch_begin(&w, region, REGION, 3200);
        int tid = clone(raw_thread, stack + 16 * PAGE, flags, NULL, parent_word, NULL, word);
        CHECK(tid > 0);
        WAIT_UNTIL(__atomic_load_n(word, __ATOMIC_ACQUIRE) == tid);
        EQUAL(tid, *parent_word);
    } else {
        /* the thread is there first: only the exit writes */
        int before[2] = { *word, *parent_word };
        int tid = clone(raw_thread, stack + 16 * PAGE, flags, NULL, parent_word, NULL, word);
        CHECK(tid > 0);
        WAIT_UNTIL(__atomic_load_n(word, __ATOMIC_ACQUIRE) == tid);
        *parent_word = before[1];
        memcpy(word, before, 4);
        watch_begin(&w, region, REGION, 3200);
        *word = tid;
    }
    int tid = *word;
    raw_go = 1;
    for (int seen; (seen = __atomic_load_n(word, __ATOMIC_ACQUIRE)) != 0;) {
        EQUAL(tid, seen);
        struct timespec t = { 10, 0 };
        if (syscall(SYS_futex, word, FUTEX_WAIT, tid, &t, NULL, 0) == -1 && errno == ETIMEDOUT)
            FAIL("the exit of a thread wakes nobody");
    }
    EQUAL(0, *word);
    watch_end(&w);
}

CASE(clear_tid_at_exit) { raw_threads(1); }
CASE(set_tid_at_clone_clear_at_exit) { raw_threads(0); }

/* Threads of the C library end while snapshots are alive; their stacks and descriptors are memory that snapshots share. */
static void *short_thread(void *a) { return (void *)((long)a * 3); }

CASE(threads_end_under_snapshots)
{
    unsigned char *region = map_anonymous(REGION);
    fill(region, REGION, 3300);
    for (long round = 0; round < 10; round++) {
        pthread_t threads[4];
        struct watch w;
        watch_begin(&w, region, REGION, 3300);
        for (long i = 0; i < 4; i++)
            EQUAL(0, pthread_create(&threads[i], NULL, short_thread, (void *)(i + round)));
        for (long i = 0; i < 4; i++) {
            void *value;
            EQUAL(0, pthread_join(threads[i], &value));
            EQUAL((i + round) * 3, (long)value);
        }
        watch_end(&w);
    }
}

/* At the exit of a thread that holds a robust mutex the kernel marks it in the program's memory. */
static void *lock_and_leave(void *m) { EQUAL(0, pthread_mutex_lock(m)); return NULL; }

CASE(robust_mutex)
{
    unsigned char *region = map_anonymous(REGION);
    pthread_mutex_t *m = (pthread_mutex_t *)(region + PAGE);
    pthread_mutexattr_t a;
    pthread_mutexattr_init(&a);
    pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
    fill(region, REGION, 3400);
    pthread_mutex_init(m, &a);
    unsigned char before[sizeof *m];
    memcpy(before, m, sizeof before);
    volatile int *flags = map_shared(PAGE);
    pid_t child = (pid_t)SYS(fork());
    if (child == 0) {
        flags[0] = 1;
        SPIN_UNTIL(flags[1]);
        CHECK(memcmp(before, m, sizeof before) == 0);
        HOLDS(region, 0, PAGE, 3400);
        _exit(0);
    }
    SPIN_UNTIL(flags[0]);
    pthread_t thread;
    EQUAL(0, pthread_create(&thread, NULL, lock_and_leave, m));
    EQUAL(0, pthread_join(thread, NULL));
    struct timespec deadline;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += 5;
    EQUAL(EOWNERDEAD, pthread_mutex_timedlock(m, &deadline));
    EQUAL(0, pthread_mutex_consistent(m));
    EQUAL(0, pthread_mutex_unlock(m));
    flags[1] = 1;
    expect_exit(child, 0);
}
