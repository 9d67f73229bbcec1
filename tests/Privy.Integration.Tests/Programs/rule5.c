/* Rule 5: MAP_SHARED memory stays shared by parent and child; everything else does not. */
#include "testlib.h"
#include <sys/ipc.h>
#include <sys/shm.h>

#define REGION (16 * PAGE)

/* Parent and child take turns to write all of `m`; each sees the other's bytes. Private memory right beside stays apart. */
static void take_turns(unsigned char *m, size_t length)
{
    volatile int *turn = map_shared(PAGE);
    unsigned char *private = map_anonymous(REGION);
    fill(private, REGION, 5000);
    fill(m, length, 5001);
    fflush(NULL);
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0) {
        HOLDS(m, 0, length, 5001);
        fill(private, REGION, 5005);
        fill(m, length, 5002);
        *turn = 1;
        SPIN_UNTIL(*turn == 2);
        HOLDS(m, 0, length, 5003);
        HOLDS(private, 0, REGION, 5005);
        fill(m, length, 5004);
        _exit(0);
    }
    SPIN_UNTIL(*turn == 1);
    HOLDS(m, 0, length, 5002);
    HOLDS(private, 0, REGION, 5000);
    fill(private, REGION, 5006);
    fill(m, length, 5003);
    *turn = 2;
    expect_exit(pid, 0);
    HOLDS(m, 0, length, 5004);
    HOLDS(private, 0, REGION, 5006);
    SYS(munmap((void *)turn, PAGE));
}

CASE(anonymous) { take_turns(map_shared(REGION), REGION); }

CASE(anonymous_large)
{
    size_t length = 8UL << 20;
    take_turns(map_shared(length), length);
}

CASE(file)
{
    int fd = pattern_file(REGION, 5010);
    unsigned char *m = mmap(NULL, REGION, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), *again = malloc(REGION);
    CHECK(m != MAP_FAILED);
    HOLDS(m, 0, REGION, 5010);
    take_turns(m, REGION);
    EQUAL(REGION, pread(fd, again, REGION, 0));
    CHECK(memcmp(again, m, REGION) == 0);
    fill(again, REGION, 5011);
    EQUAL(REGION, pwrite(fd, again, REGION, 0));
    HOLDS(m, 0, REGION, 5011);
    SYS(msync(m, REGION, MS_SYNC));
    SYS(munmap(m, REGION));
}

CASE(memfd)
{
    int fd = (int)SYS(memfd_create("shared", 0));
    SYS(ftruncate(fd, REGION));
    unsigned char *m = mmap(NULL, REGION, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(m != MAP_FAILED);
    take_turns(m, REGION);
}

/* Two mappings of one file, one shared and one private: the private page follows the file only until it is written. */
CASE(two_mappings)
{
    int fd = pattern_file(2 * PAGE, 5020);
    unsigned char *shared = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    unsigned char *private = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    private[0] = 200;
    IN_CHILD({
        shared[1] = 201;
        EQUAL(200, private[0]);
        EQUAL(pattern(5020, 1), private[1]);
        shared[PAGE] = 202;
        private[1] = 203;
    });
    EQUAL(201, shared[1]);
    EQUAL(202, shared[PAGE]);
    EQUAL(pattern(5020, 1), private[1]);
    EQUAL(200, private[0]);
    EQUAL(pattern(5020, 0), shared[0]);
}

/* The kernel writes into shared memory: the child must see that. */
CASE(system_call_into_shared_memory)
{
    unsigned char *m = map_shared(REGION);
    volatile int *turn = map_shared(PAGE);
    int fd = pattern_file(REGION, 5030);
    fill(m, REGION, 5031);
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0) {
        HOLDS(m, 0, REGION, 5031);
        *turn = 1;
        SPIN_UNTIL(*turn == 2);
        HOLDS(m, 0, REGION, 5030);
        int other = pattern_file(REGION, 5032);
        EQUAL(REGION, read(other, m, REGION));
        _exit(0);
    }
    SPIN_UNTIL(*turn == 1);
    EQUAL(REGION, read(fd, m, REGION));
    *turn = 2;
    expect_exit(pid, 0);
    HOLDS(m, 0, REGION, 5032);
}

/* Mappings made in the child are shared with its own child and with nobody else. */
CASE(mapped_in_the_child)
{
    IN_CHILD({
        unsigned char *m = map_shared(REGION);
        fill(m, REGION, 5040);
        IN_CHILD({
            HOLDS(m, 0, REGION, 5040);
            fill(m, REGION, 5041);
        });
        HOLDS(m, 0, REGION, 5041);
    });
}

CASE(grandchild)
{
    unsigned char *m = map_shared(REGION);
    IN_CHILD({ IN_CHILD({ IN_CHILD({ fill(m, REGION, 5050); }); }); });
    HOLDS(m, 0, REGION, 5050);
}

struct both { pthread_mutex_t mutex; pthread_cond_t condition; int turn; long sum; };

CASE(mutex_and_condition)
{
    struct both *b = map_shared(PAGE);
    pthread_mutexattr_t m;
    pthread_condattr_t c;
    pthread_mutexattr_init(&m);
    pthread_mutexattr_setpshared(&m, PTHREAD_PROCESS_SHARED);
    pthread_condattr_init(&c);
    pthread_condattr_setpshared(&c, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(&b->mutex, &m);
    pthread_cond_init(&b->condition, &c);
    fflush(NULL);
    pid_t pid = (pid_t)SYS(fork());
    int me = pid == 0;
    for (int i = 0; i < 200; i++) {
        pthread_mutex_lock(&b->mutex);
        while (b->turn != me)
            pthread_cond_wait(&b->condition, &b->mutex);
        b->sum += me ? i : 1000;
        b->turn = !me;
        pthread_cond_broadcast(&b->condition);
        pthread_mutex_unlock(&b->mutex);
    }
    if (pid == 0)
        _exit(0);
    expect_exit(pid, 0);
    EQUAL(200 * 1000 + 199 * 200 / 2, b->sum);
}

CASE(atomic_counter)
{
    long *counter = map_shared(PAGE);
    pid_t pids[4];
    for (int i = 0; i < 4; i++) {
        pids[i] = (pid_t)SYS(fork());
        if (pids[i] == 0) {
            for (int j = 0; j < 10000; j++)
                __atomic_fetch_add(counter, 1, __ATOMIC_SEQ_CST);
            _exit(0);
        }
    }
    for (int j = 0; j < 10000; j++)
        __atomic_fetch_add(counter, 1, __ATOMIC_SEQ_CST);
    for (int i = 0; i < 4; i++)
        expect_exit(pids[i], 0);
    EQUAL(50000, *counter);
}

/* Unmapping it on one side leaves it to the other side. */
CASE(unmapped_on_one_side)
{
    unsigned char *m = map_shared(REGION);
    volatile int *turn = map_shared(PAGE);
    fill(m, REGION, 5060);
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0) {
        SPIN_UNTIL(*turn);
        HOLDS(m, 0, REGION, 5060);
        _exit(0);
    }
    SYS(munmap(m, REGION));
    *turn = 1;
    expect_exit(pid, 0);

    m = map_shared(REGION);
    fill(m, REGION, 5061);
    IN_CHILD({ fill(m, PAGE, 5062); SYS(munmap(m, REGION)); });
    HOLDS(m, 0, PAGE, 5062);
    HOLDS(m + PAGE, PAGE, REGION - PAGE, 5061);
}

CASE(system_v)
{
    int id = (int)SYS(shmget(IPC_PRIVATE, REGION, IPC_CREAT | 0600));
    struct shmid_ds status;
    SYS(shmctl(id, IPC_STAT, &status));
    EQUAL(REGION, status.shm_segsz);
    EQUAL(0, status.shm_nattch);
    unsigned char *m = shmat(id, NULL, 0);
    CHECK(m != (void *)-1);
    unsigned char *second = shmat(id, NULL, SHM_RDONLY);
    CHECK(second != (void *)-1 && second != m);
    SYS(shmctl(id, IPC_STAT, &status));
    EQUAL(2, status.shm_nattch);
    m[5] = 77;
    EQUAL(77, second[5]);
    SYS(shmdt(second));
    SYS(shmctl(id, IPC_RMID, NULL));
    take_turns(m, REGION);
    SYS(shmdt(m));
    EQUAL(-1, shmdt(m));
    EQUAL(EINVAL, errno);
    EQUAL(-1, (long)shmat(id, NULL, 0));
    EQUAL(EINVAL, errno);
}
