/* Rule 2: a call is in flight, its output buffer known to the kernel, when another thread forks; the kernel writes afterwards. */
#include "testlib.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define REGION (16 * PAGE)
static unsigned char *region, *out;       /* out lies across a page boundary */
static const size_t offset = 5 * PAGE - 24;
static int fd[2];
static volatile int entered;
static volatile long result;
static volatile int result_errno;
static size_t length;

static const char text[] = "written by the kernel long after the snapshot was taken, across a page boundary of it";

/* Starts `call` in a thread, waits until it must be blocked, forks two watchers, lets `release` end the call, verifies all. */
static void in_flight(void *(*call)(void *), void (*release)(void), void (*verify)(void))
{
    uint64_t seed = 2000;
    region = map_anonymous(REGION);
    fill(region, REGION, seed);
    out = region + offset;
    entered = 0;
    pthread_t thread;
    EQUAL(0, pthread_create(&thread, NULL, call, NULL));
    WAIT_UNTIL(entered);
    sleep_ms(100);

    /* an earlier snapshot comes and goes while the call is in flight */
    struct watch earlier;
    watch_begin(&earlier, region, offset, seed);
    watch_end(&earlier);

    /* what the thread itself prepared in `out` belongs to the snapshot, so the model is a copy */
    unsigned char *copy = malloc(REGION);
    memcpy(copy, region, REGION);
    volatile int *flags = map_shared(PAGE);
    int go[2];
    SYS(pipe(go));
    pid_t child[2];
    for (int i = 0; i < 2; i++) {
        child[i] = (pid_t)SYS(fork());
        if (child[i] == 0) {
            if (i == 0) {
                CHECK(memcmp(copy, region, REGION) == 0);
                flags[0] = 1;
                SPIN_UNTIL(flags[1]);
            } else {
                char c;
                EQUAL(1, read(go[0], &c, 1));
            }
            for (size_t j = 0; j < REGION; j++)
                if (copy[j] != ((volatile unsigned char *)region)[j])
                    FAIL("the child sees byte %zu change (output at %zu)", j, offset);
            _exit(0);
        }
    }
    SPIN_UNTIL(flags[0]);
    release();
    EQUAL(0, pthread_join(thread, NULL));
    verify();
    for (size_t j = 0; j < REGION; j++)
        if ((j < offset || j >= offset + length) && region[j] != copy[j])
            FAIL("byte %zu changed, the output is %zu bytes at %zu", j, length, offset);
    flags[1] = 1;
    EQUAL(1, write(go[1], "g", 1));
    expect_exit(child[0], 0);
    expect_exit(child[1], 0);
    free(copy);
    SYS(close(go[0]));
    SYS(close(go[1]));
    SYS(munmap((void *)flags, PAGE));
    SYS(munmap(region, REGION));
}

#define CALL(expression) { entered = 1; result = (long)(expression); result_errno = errno; return NULL; }

static void *do_read(void *a) { (void)a; CALL(read(fd[0], out, length)) }
static void *do_recv(void *a) { (void)a; CALL(recv(fd[0], out, length, 0)) }
static void *do_recv_all(void *a) { (void)a; CALL(recv(fd[0], out, 80, MSG_WAITALL)) }
static void *do_readv(void *a)
{
    (void)a;
    static struct iovec v[2];
    v[0] = (struct iovec){ out, 30 };
    v[1] = (struct iovec){ out + 30, 2 * PAGE };
    CALL(readv(fd[0], v, 2))
}

static void *do_recvmsg(void *a)
{
    (void)a;
    static struct iovec v;
    static struct msghdr m;
    v = (struct iovec){ out, length };
    m = (struct msghdr){ .msg_iov = &v, .msg_iovlen = 1 };
    CALL(recvmsg(fd[0], &m, 0))
}

static void *do_poll(void *a)
{
    (void)a;
    struct pollfd *p = (struct pollfd *)out;
    p[0] = (struct pollfd){ fd[0], POLLIN, 0x77 };
    p[1] = (struct pollfd){ -1, POLLIN, 0x77 };
    CALL(poll(p, 2, 30000))
}

static void *do_select(void *a)
{
    (void)a;
    fd_set *s = (fd_set *)out;
    memset(s, 0, 2 * sizeof *s);
    FD_SET(fd[0], &s[0]);
    FD_SET(fd[0], &s[1]);
    CALL(select(fd[0] + 1, &s[0], NULL, &s[1], NULL))
}

static int epoll;
static void *do_epoll(void *a) { (void)a; CALL(epoll_wait(epoll, (struct epoll_event *)out, 4, 30000)) }
static void *do_accept(void *a)
{
    (void)a;
    *(socklen_t *)(out + 40) = 32;
    CALL(accept(fd[0], (struct sockaddr *)out, (socklen_t *)(out + 40)))
}

static void *do_sigwaitinfo(void *a)
{
    (void)a;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    CALL(syscall(SYS_rt_sigtimedwait, &set, out, NULL, 8))
}

static pid_t waited;
static void *do_wait4(void *a) { (void)a; CALL(syscall(SYS_wait4, waited, out, 0, NULL)) }

static void *do_nanosleep(void *a)
{
    (void)a;
    static struct timespec t;
    t = (struct timespec){ 100, 0 };
    CALL(syscall(SYS_nanosleep, &t, out))
}

static void send_text(void) { EQUAL(80, write(fd[1], text, 80)); }
static void send_halves(void)
{
    EQUAL(50, write(fd[1], text, 50));
    sleep_ms(20);
    EQUAL(30, write(fd[1], text + 50, 30));
}

static void got_text(void)
{
    EQUAL(80, result);
    CHECK(memcmp(out, text, 80) == 0);
}

static void with_pipe(void *(*call)(void *))
{
    SYS(pipe(fd));
    length = 80;
    in_flight(call, send_text, got_text);
    close(fd[0]);
    close(fd[1]);
}

static void with_sockets(void *(*call)(void *), void (*release)(void))
{
    SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, fd));
    length = 80;
    in_flight(call, release, got_text);
    close(fd[0]);
    close(fd[1]);
}

CASE(read) { with_pipe(do_read); }
CASE(readv) { with_pipe(do_readv); }
CASE(recv) { with_sockets(do_recv, send_text); }
CASE(recv_waitall) { with_sockets(do_recv_all, send_halves); }
CASE(recvmsg) { with_sockets(do_recvmsg, send_text); }

/* Longer than a page: the whole buffer may be written although only a part will be. */
static void got_much(void)
{
    EQUAL(80, result);
    CHECK(memcmp(out, text, 80) == 0);
}

static void *do_read_much(void *a) { (void)a; CALL(read(fd[0], out, 6 * PAGE)) }

CASE(read_large_buffer)
{
    SYS(pipe(fd));
    length = 80;
    in_flight(do_read_much, send_text, got_much);
    close(fd[0]);
    close(fd[1]);
}

static void polled(void)
{
    EQUAL(1, result);
    struct pollfd *p = (struct pollfd *)out;
    EQUAL(POLLIN, p[0].revents);
    EQUAL(0, p[1].revents);
}

CASE(poll)
{
    SYS(pipe(fd));
    length = 16;
    in_flight(do_poll, send_text, polled);
}

static void selected(void)
{
    EQUAL(1, result);
    fd_set *s = (fd_set *)out;
    CHECK(FD_ISSET(fd[0], &s[0]));
    CHECK(!FD_ISSET(fd[0], &s[1]));
}

CASE(select)
{
    SYS(pipe(fd));
    length = 2 * sizeof(fd_set);
    in_flight(do_select, send_text, selected);
}

static void epolled(void)
{
    EQUAL(1, result);
    struct epoll_event e;
    memcpy(&e, out, sizeof e);
    EQUAL(EPOLLIN, e.events);
    EQUAL(0x1234567887654321LL, e.data.u64);
}

CASE(epoll_wait)
{
    SYS(pipe(fd));
    epoll = (int)SYS(epoll_create1(0));
    struct epoll_event e = { EPOLLIN, { .u64 = 0x1234567887654321LL } };
    SYS(epoll_ctl(epoll, EPOLL_CTL_ADD, fd[0], &e));
    length = sizeof e;
    in_flight(do_epoll, send_text, epolled);
    close(epoll);
}

static struct sockaddr_in address;
static int client;
static void do_connect(void)
{
    client = (int)SYS(socket(AF_INET, SOCK_STREAM, 0));
    SYS(connect(client, (struct sockaddr *)&address, sizeof address));
}

static void accepted(void)
{
    CHECK(result >= 0);
    struct sockaddr_in own;
    socklen_t n = sizeof own;
    SYS(getsockname(client, (struct sockaddr *)&own, &n));
    EQUAL(16, *(socklen_t *)(out + 40));
    CHECK(memcmp(out, &own, 16) == 0);
    close((int)result);
    close(client);
}

CASE(accept)
{
    address = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof address;
    fd[0] = (int)SYS(socket(AF_INET, SOCK_STREAM, 0));
    SYS(bind(fd[0], (struct sockaddr *)&address, sizeof address));
    SYS(listen(fd[0], 5));
    SYS(getsockname(fd[0], (struct sockaddr *)&address, &n));
    length = 44;
    in_flight(do_accept, do_connect, accepted);
    close(fd[0]);
}

static void send_usr2(void) { SYS(sigqueue(getpid(), SIGUSR2, (union sigval){ .sival_int = 321 })); }
static void signalled(void)
{
    EQUAL(SIGUSR2, result);
    EQUAL(321, ((siginfo_t *)out)->si_value.sival_int);
}

CASE(sigwaitinfo)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    length = sizeof(siginfo_t);
    in_flight(do_sigwaitinfo, send_usr2, signalled);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

static void end_waited(void) { SYS(kill(waited, SIGKILL)); }
static void reaped(void)
{
    EQUAL(waited, result);
    EQUAL(SIGKILL, *(int *)out);
}

CASE(wait4)
{
    waited = (pid_t)SYS(fork());
    if (waited == 0) {
        sleep(60);
        _exit(1);
    }
    length = 4;
    in_flight(do_wait4, end_waited, reaped);
}

static pthread_t sleeper;
static void *do_interrupted_sleep(void *a) { sleeper = pthread_self(); return do_nanosleep(a); }
static void nothing(int s) { (void)s; }
static void interrupt(void) { EQUAL(0, pthread_kill(sleeper, SIGUSR1)); }
static void interrupted(void)
{
    EQUAL(-1, result);
    EQUAL(EINTR, result_errno);
    struct timespec *left = (struct timespec *)out;
    CHECK(left->tv_sec >= 50 && left->tv_sec < 100);
}

CASE(nanosleep_remainder)
{
    struct sigaction a = { .sa_handler = nothing };
    SYS(sigaction(SIGUSR1, &a, NULL));
    length = 16;
    in_flight(do_interrupted_sleep, interrupt, interrupted);
}

/* The other way round: the main thread is blocked, a second thread forks. */
static int answer[2];
static void *fork_in_thread(void *a)
{
    (void)a;
    sleep_ms(100);
    struct watch w;
    watch_begin(&w, region, REGION, 2100);
    EQUAL(80, write(fd[1], text, 80));
    char c;
    EQUAL(1, read(answer[0], &c, 1));
    watch_end(&w);
    return NULL;
}

CASE(main_thread_in_flight)
{
    region = map_anonymous(REGION);
    fill(region, REGION, 2100);
    out = region + offset;
    SYS(pipe(fd));
    SYS(pipe(answer));
    pthread_t thread;
    EQUAL(0, pthread_create(&thread, NULL, fork_in_thread, NULL));
    EQUAL(80, read(fd[0], out, 2 * PAGE));
    CHECK(memcmp(out, text, 80) == 0);
    EQUAL(1, write(answer[1], "a", 1));
    EQUAL(0, pthread_join(thread, NULL));
    HOLDS(region, 0, offset, 2100);
    HOLDS(out + 80, offset + 80, REGION - offset - 80, 2100);
}

/* Four threads in flight at once, six forks while they wait. */
static int many_fd[4][2];
static void *many_read(void *a)
{
    long i = (long)a;
    EQUAL(80, read(many_fd[i][0], region + (size_t)i * 4 * PAGE + PAGE - 40, 3 * PAGE));
    return NULL;
}

CASE(many_in_flight)
{
    region = map_anonymous(REGION);
    fill(region, REGION, 2200);
    pthread_t threads[4];
    for (long i = 0; i < 4; i++) {
        SYS(pipe(many_fd[i]));
        EQUAL(0, pthread_create(&threads[i], NULL, many_read, (void *)i));
    }
    sleep_ms(100);
    struct watch w[3];
    for (int i = 0; i < 3; i++)
        watch_begin(&w[i], region, REGION, 2200);
    for (int i = 0; i < 4; i++)
        EQUAL(80, write(many_fd[i][1], text, 80));
    for (int i = 0; i < 4; i++)
        EQUAL(0, pthread_join(threads[i], NULL));
    for (size_t i = 0; i < 4; i++)
        CHECK(memcmp(region + i * 4 * PAGE + PAGE - 40, text, 80) == 0);
    for (int i = 0; i < 3; i++)
        watch_end(&w[i]);
}
