/* Many short system calls in a row, as a server makes them: the calls that need no exit must be made once each and say what they say natively, while
 * signals hit them at random instructions and other threads fork. */
#include "testlib.h"
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>

static volatile long alarms;

static void on_alarm(int signal) { (void)signal; alarms++; EQUAL(getpid(), syscall(SYS_getpid)); }

static void alarms_each(long microseconds)
{
    struct sigaction action = { .sa_handler = on_alarm, .sa_flags = SA_RESTART };
    SYS(sigaction(SIGALRM, &action, NULL));
    struct itimerval interval = { { 0, microseconds }, { 0, microseconds } };
    SYS(setitimer(ITIMER_REAL, &interval, NULL));
}

static void no_alarms(void)
{
    struct itimerval none = { { 0, 0 }, { 0, 0 } };
    SYS(setitimer(ITIMER_REAL, &none, NULL));
}

/* One message through a pair of stream sockets by each kind of call in turn; a call made twice, or lost, breaks the sequence. */
static void exchange(int from, int to, uint64_t number)
{
    uint64_t out[4] = { number, ~number, number * 3, number ^ 0x5555 }, in[4] = { 0 };
    struct iovec send_parts[2] = { { out, 8 }, { out + 1, 24 } }, receive_parts[2] = { { in, 20 }, { (char *)in + 20, 12 } };
    switch (number % 3) {
    case 0:
        EQUAL(32, write(from, out, 32));
        EQUAL(32, read(to, in, 32));
        break;
    case 1:
        EQUAL(32, writev(from, send_parts, 2));
        EQUAL(32, readv(to, receive_parts, 2));
        break;
    default:
        EQUAL(32, send(from, out, 32, MSG_NOSIGNAL));
        EQUAL(32, recv(to, in, 32, 0));
    }
    if (memcmp(out, in, 32) != 0)
        FAIL("message %llu is not what was sent", (unsigned long long)number);
}

static void pair(int fd[2], int flags) { SYS(socketpair(AF_UNIX, SOCK_STREAM | flags, 0, fd)); }

CASE(each_call_once_under_signals)
{
    int fd[2];
    pair(fd, SOCK_NONBLOCK);
    pid_t self = getpid();
    alarms_each(700);
    for (uint64_t i = 0; i < 60000; i++) {
        exchange(fd[i & 1], fd[~i & 1], i);
        EQUAL(self, syscall(SYS_getpid));
        EQUAL(self, syscall(SYS_gettid));
        EQUAL(0, sched_yield());
    }
    no_alarms();
    CHECK(alarms > 0);
    char c;
    EQUAL(-1, read(fd[0], &c, 1));
    EQUAL(EAGAIN, errno);
}

CASE(each_call_once_on_waiting_sockets)
{
    int fd[2];
    pair(fd, 0);
    alarms_each(900);
    for (uint64_t i = 0; i < 20000; i++)
        exchange(fd[i & 1], fd[~i & 1], i);
    no_alarms();
}

CASE(counters_and_epoll)
{
    int counter = (int)SYS(eventfd(0, EFD_NONBLOCK)), set = (int)SYS(epoll_create1(0));
    struct epoll_event event = { .events = EPOLLIN, .data.u64 = 77 }, got[4];
    SYS(epoll_ctl(set, EPOLL_CTL_ADD, counter, &event));
    alarms_each(1100);
    for (uint64_t i = 1; i <= 20000; i++) {
        uint64_t value = i, back = 0;
        EQUAL(0, epoll_wait(set, got, 4, 0));
        EQUAL(8, write(counter, &value, 8));
        EQUAL(8, write(counter, &value, 8));
        int n;
        while ((n = epoll_wait(set, got, 4, -1)) == -1 && errno == EINTR) {}
        EQUAL(1, n);
        EQUAL(77, got[0].data.u64);
        EQUAL(8, read(counter, &back, 8));
        EQUAL(2 * i, back);
        EQUAL(-1, read(counter, &back, 8));
        EQUAL(EAGAIN, errno);
    }
    no_alarms();
}

CASE(files)
{
    enum { blocks = 64, rounds = 300 };
    static unsigned char buffer[8192], model[blocks * 4096];
    char name[] = "./busyXXXXXX";
    int fd = (int)SYS(mkstemp(name));
    fill(model, sizeof model, 31);
    for (int b = 0; b < blocks; b++)
        EQUAL(4096, pwrite(fd, model + b * 4096, 4096, b * 4096L));
    uint64_t seed = 1;
    for (int i = 0; i < rounds * blocks; i++) {
        seed = mix(seed);
        size_t at = seed % sizeof model, length = 1 + (seed >> 32) % sizeof buffer, rest = sizeof model - at;
        if (i % 3 == 0) {
            if (length > rest)
                length = rest;
            memset(model + at, (int)i, length);
            EQUAL(length, pwrite(fd, model + at, length, (long)at));
        } else {
            EQUAL(length < rest ? length : rest, pread(fd, buffer, length, (long)at));
            CHECK(memcmp(buffer, model + at, length < rest ? length : rest) == 0);
        }
    }
    SYS(lseek(fd, 0, SEEK_SET));
    for (size_t at = 0; at < sizeof model; at += 1000) {
        size_t rest = sizeof model - at;
        EQUAL(rest < 1000 ? rest : 1000, read(fd, buffer, 1000));
        CHECK(memcmp(buffer, model + at, rest < 1000 ? rest : 1000) == 0);
    }
    EQUAL(0, read(fd, buffer, 1000));
    int log = (int)SYS(open(name, O_WRONLY | O_APPEND));
    for (int i = 0; i < 2000; i++)
        EQUAL(5, write(log, "line\n", 5));
    EQUAL(sizeof model + 10000, lseek(fd, 0, SEEK_END));
    SYS(unlink(name));
}

static volatile long pipe_signals;
static void on_pipe(int signal) { (void)signal; pipe_signals++; }

CASE(errors)
{
    int fd[2];
    pair(fd, SOCK_NONBLOCK);
    struct sigaction action = { .sa_handler = on_pipe };
    SYS(sigaction(SIGPIPE, &action, NULL));
    for (uint64_t i = 0; i < 3000; i++)
        exchange(fd[0], fd[1], i);
    char c = 'x', *volatile nowhere = (char *)8;
    for (int i = 0; i < 2000; i++) {
        EQUAL(-1, read(999, &c, 1));
        EQUAL(EBADF, errno);
        EQUAL(-1, write(fd[0], nowhere, 100));
        EQUAL(EFAULT, errno);
        EQUAL(1, write(fd[0], &c, 1));
        EQUAL(-1, read(fd[1], nowhere, 1));
        EQUAL(EFAULT, errno);
        EQUAL(1, read(fd[1], &c, 1));
    }
    SYS(close(fd[1]));
    for (int i = 1; i <= 100; i++) {
        EQUAL(-1, write(fd[0], &c, 1));
        EQUAL(EPIPE, errno);
        EQUAL(i, pipe_signals);
        EQUAL(-1, send(fd[0], &c, 1, MSG_NOSIGNAL));
        EQUAL(EPIPE, errno);
        EQUAL(i, pipe_signals);
    }
}

CASE(full_and_empty)
{
    int fd[2];
    pair(fd, SOCK_NONBLOCK);
    static unsigned char block[5000], back[5000];
    for (uint64_t round = 0; round < 40; round++) {
        size_t sent = 0, received = 0;
        for (;;) {
            for (size_t i = 0; i < sizeof block; i++)
                block[i] = pattern(round, sent + i);
            ssize_t n = write(fd[0], block, sizeof block);
            if (n == -1) {
                EQUAL(EAGAIN, errno);
                break;
            }
            sent += (size_t)n;
        }
        CHECK(sent > sizeof block);
        for (;;) {
            ssize_t n = read(fd[1], back, sizeof back);
            if (n == -1) {
                EQUAL(EAGAIN, errno);
                break;
            }
            HOLDS(back, received, (size_t)n, round);
            received += (size_t)n;
        }
        EQUAL(sent, received);
    }
}

/* ---- forks while another thread's calls write into the memory ---- */

enum { cells = 64, cell = 700 };
static unsigned char *region;
static volatile int stop;

static void *receive_without_end(void *argument)
{
    int *fd = argument;
    for (uint64_t i = 0; !stop; i++) {
        unsigned char message[cell];
        memset(message, (int)(i * 7 + 1), cell);
        EQUAL(cell, write(fd[0], message, cell));
        unsigned char *to = region + i % cells * cell;
        EQUAL(cell, read(fd[1], to, cell));
        for (int j = 0; j < cell; j++)
            if (to[j] != message[j])
                FAIL("message %llu is wrong at byte %d", (unsigned long long)i, j);
    }
    return NULL;
}

CASE(forks_while_others_receive)
{
    int fd[2];
    pthread_t thread;
    region = map_anonymous(cells * cell);
    stop = 0;
    pair(fd, SOCK_NONBLOCK);
    EQUAL(0, pthread_create(&thread, NULL, receive_without_end, fd));
    for (int i = 0; i < 60; i++) {
        fflush(NULL);
        pid_t pid = (pid_t)SYS(fork());
        if (pid == 0) {
            static unsigned char first[cells * cell];
            memcpy(first, region, sizeof first);
            for (int look = 0; look < 20; look++) {
                for (size_t j = 0; j < sizeof first; j++)
                    if (((volatile unsigned char *)region)[j] != first[j])
                        FAIL("look %d: the child sees byte %zu change", look, j);
                usleep(200);
            }
            _exit(50);
        }
        sleep_ms(i % 4);
        expect_exit(pid, 50);
    }
    stop = 1;
    EQUAL(0, pthread_join(thread, NULL));
}

static void *ping(void *argument)
{
    int *fd = argument;
    for (uint64_t i = 0; i < 4000; i++)
        exchange(fd[0], fd[1], i);
    return NULL;
}

CASE(more_threads_than_the_poller_serves_well)
{
    enum { threads = 12 };
    pthread_t thread[threads];
    int fd[threads][2];
    for (int i = 0; i < threads; i++) {
        pair(fd[i], SOCK_NONBLOCK);
        EQUAL(0, pthread_create(&thread[i], NULL, ping, fd[i]));
    }
    for (int i = 0; i < threads; i++)
        EQUAL(0, pthread_join(thread[i], NULL));
}

CASE(closed_by_another_thread)
{
    for (int i = 0; i < 20; i++) {
        int fd[2];
        pthread_t thread;
        pair(fd, SOCK_NONBLOCK);
        EQUAL(0, pthread_create(&thread, NULL, ping, fd));
        EQUAL(0, pthread_join(thread, NULL));
        SYS(close(fd[0]));
        SYS(close(fd[1]));
    }
}
