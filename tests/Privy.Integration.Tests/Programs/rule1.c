/* Rule 1: the host kernel writes into the program's memory without asking the guest's page table. Every call below has an output that
 * lies, across a page boundary, in memory that two snapshots watch. The caller must see what a call into memory that is not watched
 * gave, nothing around the output may change, and the snapshots must keep every byte. */
#include "testlib.h"
#include <arpa/inet.h>
#include <dirent.h>
#include <linux/capability.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/times.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/xattr.h>
#include <termios.h>

enum { SAME = 1, VARIES = 2 };
#define REGION (16 * PAGE)

static unsigned char reference[8 * PAGE] __attribute__((aligned(64)));

static void run_call(const char *name, long (*call)(unsigned char *), size_t length, int kind)
{
    uint64_t seed = 1000 + strlen(name);
    unsigned char *region = map_anonymous(REGION);
    fill(region, REGION, seed);
    size_t before = length >= 16 ? length / 2 / 8 * 8 : 0;
    if (before > 2 * PAGE)
        before = 2 * PAGE - 24;
    size_t offset = 3 * PAGE - before;
    unsigned char *out = region + offset;
    for (size_t i = 0; i < length; i++)
        reference[i] = pattern(seed, offset + i);
    long expected = call(reference);

    struct watch w;
    watch_begin(&w, region, REGION, seed);
    long got = call(out);
    int error = errno;
    HOLDS(region, 0, offset, seed);
    HOLDS(out + length, offset + length, REGION - offset - length, seed);
    if (kind == SAME) {
        EQUAL(expected, got);
        for (size_t i = 0; i < length; i++)
            if (out[i] != reference[i])
                FAIL("%s: output byte %zu is %02x, not %02x", name, i, out[i], reference[i]);
    } else {
        EQUAL(expected < 0, got < 0);
    }
    if (got != -1 && mismatch(out, offset, length, seed) < 0)
        FAIL("%s wrote nothing", name);
    watch_end(&w);
    if (got == -1)
        printf("%s: errno %d\n", name, error);
    SYS(munmap(region, REGION));
}

#define CALL(name, length, kind) static long call_##name(unsigned char *out); \
    CASE(name) { run_call(#name, call_##name, length, kind); } \
    static long call_##name(unsigned char *out)

static const char text[] = "the quick brown fox jumps over the lazy dog and then over the page boundary, twice";

static void stream_pair(int fd[2]) { SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, fd)); }
static long finish(long result, int a, int b) { int e = errno; close(a); if (b >= 0) close(b); errno = e; return result; }

CALL(read, 80, SAME)
{
    int fd[2];
    SYS(pipe(fd));
    EQUAL(80, write(fd[1], text, 80));
    return finish(read(fd[0], out, 80), fd[0], fd[1]);
}

CALL(read_pages, 5 * PAGE, SAME)
{
    int fd = pattern_file(5 * PAGE, 77);
    return finish(read(fd, out, 5 * PAGE), fd, -1);
}

/* A short read: what lies behind the bytes that came must stay. */
CALL(read_short, 2 * PAGE, SAME)
{
    int fd = pattern_file(100 + PAGE, 78);
    return finish(read(fd, out, 2 * PAGE), fd, -1);
}

CALL(pread64, 3 * PAGE, SAME)
{
    int fd = pattern_file(4 * PAGE, 79);
    return finish(pread(fd, out, 3 * PAGE, 17), fd, -1);
}

CALL(readv, 3 * PAGE, SAME)
{
    int fd = pattern_file(4 * PAGE, 80);
    struct iovec v[3] = { { out, 10 }, { out + PAGE + 5, 1000 }, { out + 2 * PAGE, PAGE } };
    return finish(readv(fd, v, 3), fd, -1);
}

CALL(preadv, 3 * PAGE, SAME)
{
    int fd = pattern_file(4 * PAGE, 81);
    struct iovec v[2] = { { out + 2 * PAGE, 800 }, { out, 2 * PAGE } };
    return finish(preadv(fd, v, 2, 33), fd, -1);
}

CALL(preadv2, 3 * PAGE, SAME)
{
    int fd = pattern_file(4 * PAGE, 82);
    struct iovec v[2] = { { out + 2 * PAGE, 800 }, { out, 2 * PAGE } };
    return finish(preadv2(fd, v, 2, 34, 0), fd, -1);
}

/* The iovec array itself lies in the watched memory too. */
CALL(readv_nested, 2 * PAGE, SAME)
{
    int fd = pattern_file(4 * PAGE, 83);
    struct iovec *v = (struct iovec *)out;
    v[0] = (struct iovec){ out + 100, 900 };
    v[1] = (struct iovec){ out + PAGE, PAGE };
    long r = readv(fd, v, 2);
    memset(v, 0, 2 * sizeof *v);
    return finish(r, fd, -1);
}

CALL(recv, 64, SAME)
{
    int fd[2];
    stream_pair(fd);
    EQUAL(64, send(fd[1], text, 64, 0));
    return finish(recv(fd[0], out, 64, 0), fd[0], fd[1]);
}

CALL(recv_peek, 64, SAME)
{
    int fd[2];
    stream_pair(fd);
    EQUAL(64, send(fd[1], text, 64, 0));
    return finish(recv(fd[0], out, 64, MSG_PEEK), fd[0], fd[1]);
}

static int bound_udp(struct sockaddr_in *address)
{
    int fd = (int)SYS(socket(AF_INET, SOCK_DGRAM, 0));
    *address = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof *address;
    SYS(bind(fd, (void *)address, sizeof *address));
    SYS(getsockname(fd, (void *)address, &length));
    return fd;
}

CALL(recvfrom, 256, SAME)
{
    struct sockaddr_in a, b;
    int one = bound_udp(&a), two = bound_udp(&b);
    EQUAL(70, sendto(two, text, 70, 0, (void *)&a, sizeof a));
    socklen_t *length = (socklen_t *)(out + 200);
    *length = 64;
    long r = recvfrom(one, out, 128, 0, (void *)(out + 128), length);
    ((struct sockaddr_in *)(out + 128))->sin_port = 0;
    return finish(r, one, two);
}

CALL(recvmsg, 1024, SAME)
{
    int fd[2];
    stream_pair(fd);
    int pass = fd[1];
    char control[CMSG_SPACE(sizeof(int))] = { 0 };
    struct iovec v = { (void *)text, 60 };
    struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    *c = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int)) };
    memcpy(CMSG_DATA(c), &pass, sizeof pass);
    EQUAL(60, sendmsg(fd[0], &m, 0));

    /* message header, iovec, data and control buffer all lie in the watched memory */
    struct msghdr *in = (struct msghdr *)out;
    struct iovec *iv = (struct iovec *)(out + 128);
    iv[0] = (struct iovec){ out + 256, 20 };
    iv[1] = (struct iovec){ out + 600, 100 };
    *in = (struct msghdr){ .msg_iov = iv, .msg_iovlen = 2, .msg_control = out + 768, .msg_controllen = 128 };
    long r = recvmsg(fd[1], in, MSG_CMSG_CLOEXEC);
    struct cmsghdr *got = CMSG_FIRSTHDR(in);
    CHECK(got && got->cmsg_type == SCM_RIGHTS);
    int *passed = (int *)CMSG_DATA(got);
    SYS(fcntl(*passed, F_GETFD));
    close(*passed);
    *passed = 0;
    in->msg_iov = NULL;
    in->msg_control = NULL;
    memset(iv, 0, 2 * sizeof *iv);
    return finish(r, fd[0], fd[1]);
}

CALL(recvmmsg, 2048, SAME)
{
    struct sockaddr_in a, b;
    int one = bound_udp(&a), two = bound_udp(&b);
    EQUAL(30, sendto(two, text, 30, 0, (void *)&a, sizeof a));
    EQUAL(31, sendto(two, text + 5, 31, 0, (void *)&a, sizeof a));
    struct mmsghdr *m = (struct mmsghdr *)out;
    struct iovec v[2] = { { out + 512, 100 }, { out + 1500, 100 } };
    memset(m, 0, 2 * sizeof *m);
    for (int i = 0; i < 2; i++) {
        m[i].msg_hdr.msg_iov = &v[i];
        m[i].msg_hdr.msg_iovlen = 1;
    }
    long r = recvmmsg(one, m, 2, 0, NULL);
    m[0].msg_hdr.msg_iov = m[1].msg_hdr.msg_iov = NULL;
    return finish(r, one, two);
}

CALL(fstat, sizeof(struct stat), SAME) { return fstat(0, (struct stat *)out); }
CALL(stat, sizeof(struct stat), SAME) { return stat("/etc/passwd", (struct stat *)out); }
CALL(lstat, sizeof(struct stat), SAME) { return syscall(SYS_lstat, "/etc/passwd", out); }
CALL(old_stat, sizeof(struct stat), SAME) { return syscall(SYS_stat, "/etc/passwd", out); }
CALL(statx, sizeof(struct statx), SAME) { return statx(AT_FDCWD, "/etc/passwd", 0, STATX_BASIC_STATS, (struct statx *)out); }
CALL(statfs, sizeof(struct statfs), SAME) { return statfs("/proc", (struct statfs *)out); }

CALL(fstatfs, sizeof(struct statfs), SAME)
{
    int fd = (int)SYS(open("/proc", O_RDONLY));
    return finish(fstatfs(fd, (struct statfs *)out), fd, -1);
}

CALL(getsockopt, 16, SAME)
{
    int fd[2];
    stream_pair(fd);
    ((socklen_t *)out)[1] = 4;
    return finish(getsockopt(fd[0], SOL_SOCKET, SO_TYPE, out, (socklen_t *)(out + 4)), fd[0], fd[1]);
}

CALL(getsockname, 64, SAME)
{
    struct sockaddr_in a;
    int fd = bound_udp(&a);
    *(socklen_t *)(out + 48) = 40;
    long r = getsockname(fd, (void *)out, (socklen_t *)(out + 48));
    CHECK(((struct sockaddr_in *)out)->sin_port == a.sin_port);
    ((struct sockaddr_in *)out)->sin_port = 0;
    return finish(r, fd, -1);
}

CALL(accept_and_getpeername, 128, SAME)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int listener = (int)SYS(socket(AF_INET, SOCK_STREAM, 0));
    socklen_t length = sizeof a;
    SYS(bind(listener, (void *)&a, sizeof a));
    SYS(listen(listener, 5));
    SYS(getsockname(listener, (void *)&a, &length));
    int client = (int)SYS(socket(AF_INET, SOCK_STREAM, 0));
    SYS(connect(client, (void *)&a, sizeof a));
    *(socklen_t *)(out + 48) = 40;
    int server = (int)SYS(accept4(listener, (void *)out, (socklen_t *)(out + 48), SOCK_CLOEXEC));
    *(socklen_t *)(out + 112) = 40;
    long r = getpeername(server, (void *)(out + 64), (socklen_t *)(out + 112));
    CHECK(((struct sockaddr_in *)out)->sin_port == ((struct sockaddr_in *)(out + 64))->sin_port);
    ((struct sockaddr_in *)out)->sin_port = ((struct sockaddr_in *)(out + 64))->sin_port = 0;
    close(listener);
    return finish(r, client, server);
}

CALL(epoll_wait, 4 * sizeof(struct epoll_event), SAME)
{
    int fd[2], epoll = (int)SYS(epoll_create1(0));
    stream_pair(fd);
    struct epoll_event e = { EPOLLIN | EPOLLOUT, { .u64 = 0x1122334455667788 } };
    SYS(epoll_ctl(epoll, EPOLL_CTL_ADD, fd[0], &e));
    EQUAL(1, write(fd[1], "x", 1));
    long r = epoll_wait(epoll, (struct epoll_event *)out, 4, 1000);
    close(epoll);
    return finish(r, fd[0], fd[1]);
}

CALL(epoll_pwait, 4 * sizeof(struct epoll_event), SAME)
{
    int fd[2], epoll = (int)SYS(epoll_create1(0));
    stream_pair(fd);
    struct epoll_event e = { EPOLLOUT, { .u64 = 0x1122334455667788 } };
    sigset_t mask;
    sigfillset(&mask);
    SYS(epoll_ctl(epoll, EPOLL_CTL_ADD, fd[0], &e));
    long r = epoll_pwait(epoll, (struct epoll_event *)out, 4, 1000, &mask);
    close(epoll);
    return finish(r, fd[0], fd[1]);
}

CALL(poll, 3 * sizeof(struct pollfd), SAME)
{
    int fd[2];
    stream_pair(fd);
    struct pollfd *p = (struct pollfd *)out;
    p[0] = (struct pollfd){ fd[0], POLLIN | POLLOUT, 0x55 };
    p[1] = (struct pollfd){ fd[1], POLLIN, 0x55 };
    p[2] = (struct pollfd){ -1, POLLIN, 0x55 };
    EQUAL(1, write(fd[1], "x", 1));
    long r = poll(p, 3, 1000);
    p[0].fd = p[1].fd = 0;
    return finish(r, fd[0], fd[1]);
}

CALL(ppoll, 2 * sizeof(struct pollfd), SAME)
{
    int fd[2];
    stream_pair(fd);
    struct pollfd *p = (struct pollfd *)out;
    p[0] = (struct pollfd){ fd[0], POLLOUT, 0x55 };
    p[1] = (struct pollfd){ fd[1], POLLIN, 0x55 };
    struct timespec t = { 1, 0 };
    long r = ppoll(p, 2, &t, NULL);
    p[0].fd = p[1].fd = 0;
    return finish(r, fd[0], fd[1]);
}

CALL(select, 3 * sizeof(fd_set), SAME)
{
    int fd[2];
    stream_pair(fd);
    CHECK(fd[0] < 64 && fd[1] < 64);
    fd_set *s = (fd_set *)out;
    memset(out, 0, 3 * sizeof(fd_set));
    for (int i = 0; i < 3; i++) {
        FD_SET(fd[0], &s[i]);
        FD_SET(fd[1], &s[i]);
    }
    EQUAL(1, write(fd[1], "x", 1));
    struct timeval t = { 1, 0 };
    long r = select(64, &s[0], &s[1], &s[2], &t);
    EQUAL(1, FD_ISSET(fd[0], &s[0]) != 0);
    EQUAL(0, FD_ISSET(fd[1], &s[0]) != 0);
    EQUAL(1, FD_ISSET(fd[0], &s[1]) != 0);
    EQUAL(0, FD_ISSET(fd[0], &s[2]) != 0);
    memset(out, 1, 3 * sizeof(fd_set));
    return finish(r, fd[0], fd[1]);
}

/* Linux writes the time that is left into select's timeout. */
CALL(select_timeout, 16, SAME)
{
    struct timeval *t = (struct timeval *)out;
    *t = (struct timeval){ 0, 1000 };
    return select(0, NULL, NULL, NULL, t);
}

CALL(getcwd, 512, SAME) { return syscall(SYS_getcwd, out, 512); }
CALL(readlink, 64, SAME) { unlink("a-link"); SYS(symlink("where/it/points", "a-link")); return readlink("a-link", (char *)out, 64); }
CALL(readlinkat, 64, SAME) { unlink("a-link"); SYS(symlink("where/it/points", "a-link")); return readlinkat(AT_FDCWD, "a-link", (char *)out, 64); }

CALL(pipe2, 8, SAME)
{
    int *fd = (int *)out;
    long r = pipe2(fd, O_CLOEXEC);
    CHECK(fd[0] > 2 && fd[1] > 2 && fd[0] != fd[1]);
    close(fd[0]);
    close(fd[1]);
    fd[0] = fd[1] = 0x12345678;
    return r;
}

CALL(socketpair, 8, SAME)
{
    int *fd = (int *)out;
    long r = socketpair(AF_UNIX, SOCK_STREAM, 0, fd);
    CHECK(fd[0] > 2 && fd[1] > 2 && fd[0] != fd[1]);
    close(fd[0]);
    close(fd[1]);
    fd[0] = fd[1] = 0x12345678;
    return r;
}

CALL(getrandom, 5000, VARIES) { return syscall(SYS_getrandom, out, 5000, 0); }
CALL(uname, sizeof(struct utsname), SAME) { return uname((struct utsname *)out); }
CALL(sysinfo, sizeof(struct sysinfo), VARIES) { return sysinfo((struct sysinfo *)out); }
CALL(times, sizeof(struct tms), VARIES) { return syscall(SYS_times, out); }
CALL(getrusage, sizeof(struct rusage), VARIES) { return getrusage(RUSAGE_SELF, (struct rusage *)out); }
CALL(clock_gettime, 16, VARIES) { return syscall(SYS_clock_gettime, CLOCK_MONOTONIC, out); }
CALL(clock_getres, 16, SAME) { return syscall(SYS_clock_getres, CLOCK_MONOTONIC, out); }
CALL(gettimeofday, 16, VARIES) { return syscall(SYS_gettimeofday, out, NULL); }
CALL(time, 8, VARIES) { return syscall(SYS_time, out); }
CALL(getcpu, 8, VARIES) { return syscall(SYS_getcpu, out, out + 4, NULL); }

CALL(getdents64, 2048, SAME)
{
    if (mkdir("dents", 0755) == -1 && errno != EEXIST)
        FAIL("mkdir");
    for (int i = 0; i < 5; i++) {
        char name[20];
        snprintf(name, sizeof name, "dents/file%d", i);
        close((int)SYS(open(name, O_CREAT | O_WRONLY, 0644)));
    }
    int fd = (int)SYS(open("dents", O_RDONLY | O_DIRECTORY));
    return finish(syscall(SYS_getdents64, fd, out, 2048), fd, -1);
}

CALL(getrlimit, 16, SAME) { return syscall(SYS_getrlimit, RLIMIT_NOFILE, out); }
CALL(prlimit64, 16, SAME) { return syscall(SYS_prlimit64, 0, RLIMIT_CORE, NULL, out); }
CALL(rt_sigprocmask, 8, SAME) { return syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, out, 8); }
CALL(rt_sigaction, 32, SAME) { signal(SIGUSR2, SIG_IGN); return syscall(SYS_rt_sigaction, SIGUSR2, NULL, out, 8); }

CALL(rt_sigpending, 8, SAME)
{
    sigset_t block;
    sigemptyset(&block);
    sigaddset(&block, SIGUSR1);
    sigprocmask(SIG_BLOCK, &block, NULL);
    raise(SIGUSR1);
    long r = syscall(SYS_rt_sigpending, out, 8);
    int got;
    CHECK(sigwait(&block, &got) == 0 && got == SIGUSR1);
    sigprocmask(SIG_UNBLOCK, &block, NULL);
    return r;
}

CALL(rt_sigtimedwait, sizeof(siginfo_t), SAME)
{
    sigset_t block;
    sigemptyset(&block);
    sigaddset(&block, SIGUSR1);
    sigprocmask(SIG_BLOCK, &block, NULL);
    SYS(sigqueue(getpid(), SIGUSR1, (union sigval){ .sival_int = 4711 }));
    struct timespec t = { 5, 0 };
    long r = syscall(SYS_rt_sigtimedwait, &block, out, &t, 8);
    sigprocmask(SIG_UNBLOCK, &block, NULL);
    siginfo_t *info = (siginfo_t *)out;
    EQUAL(4711, info->si_value.sival_int);
    EQUAL(getpid(), info->si_pid);
    info->si_pid = 0;
    return r;
}

CALL(sigaltstack, sizeof(stack_t), SAME)
{
    static char stack[65536];
    stack_t s = { .ss_sp = stack, .ss_size = sizeof stack };
    SYS(sigaltstack(&s, NULL));
    long r = syscall(SYS_sigaltstack, NULL, out);
    s = (stack_t){ .ss_flags = SS_DISABLE };
    SYS(sigaltstack(&s, NULL));
    return r;
}

CALL(wait4, 200, VARIES)
{
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0)
        _exit(7);
    long r = syscall(SYS_wait4, pid, out, 0, out + 8);
    EQUAL(pid, r);
    EQUAL(7 << 8, *(int *)out);
    return 0;
}

CALL(waitid, sizeof(siginfo_t), SAME)
{
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0)
        _exit(9);
    siginfo_t *info = (siginfo_t *)out;
    long r = waitid(P_PID, (id_t)pid, info, WEXITED);
    EQUAL(pid, info->si_pid);
    EQUAL(9, info->si_status);
    info->si_pid = 0;
    return r;
}

CALL(itimer, 64, SAME)
{
    struct itimerval t = { { 0, 0 }, { 1000, 0 } }, off = { { 0, 0 }, { 0, 0 } };
    SYS(setitimer(ITIMER_REAL, &t, NULL));
    long r = getitimer(ITIMER_REAL, (struct itimerval *)out);
    SYS(setitimer(ITIMER_REAL, &off, (struct itimerval *)(out + 32)));
    for (int i = 0; i < 2; i++) {
        struct itimerval *got = (struct itimerval *)(out + i * 32);
        CHECK(got->it_value.tv_sec >= 990 && got->it_value.tv_sec <= 1000);
        got->it_value = (struct timeval){ 1, 1 };
    }
    return r;
}

CALL(timerfd, 64, SAME)
{
    int fd = (int)SYS(timerfd_create(CLOCK_MONOTONIC, 0));
    struct itimerspec t = { { 0, 0 }, { 1000, 0 } };
    SYS(timerfd_settime(fd, 0, &t, NULL));
    long r = timerfd_gettime(fd, (struct itimerspec *)out);
    SYS(timerfd_settime(fd, 0, &t, (struct itimerspec *)(out + 32)));
    for (int i = 0; i < 2; i++) {
        struct itimerspec *got = (struct itimerspec *)(out + i * 32);
        CHECK(got->it_value.tv_sec >= 990 && got->it_value.tv_sec <= 1000);
        got->it_value = (struct timespec){ 1, 1 };
    }
    return finish(r, fd, -1);
}

CALL(sched_getaffinity, 128, SAME) { return syscall(SYS_sched_getaffinity, 0, 128, out); }
CALL(sched_getparam, 4, SAME) { return syscall(SYS_sched_getparam, 0, out); }
CALL(getresuid, 12, SAME) { return syscall(SYS_getresuid, out, out + 4, out + 8); }
CALL(getresgid, 12, SAME) { return syscall(SYS_getresgid, out, out + 4, out + 8); }

CALL(ioctl_fionread, 4, SAME)
{
    int fd[2];
    stream_pair(fd);
    EQUAL(33, write(fd[1], text, 33));
    return finish(ioctl(fd[0], FIONREAD, out), fd[0], fd[1]);
}

CALL(ioctl_terminal, 128, SAME)
{
    int master = (int)SYS(posix_openpt(O_RDWR | O_NOCTTY));
    SYS(ioctl(master, TCGETS, out));
    struct winsize size = { 12, 34, 56, 78 };
    SYS(ioctl(master, TIOCSWINSZ, &size));
    return finish(ioctl(master, TIOCGWINSZ, out + 100), master, -1);
}

CALL(fcntl_getlk, sizeof(struct flock), SAME)
{
    int fd = pattern_file(100, 5);
    struct flock *lock = (struct flock *)out;
    *lock = (struct flock){ .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 3, .l_len = 4 };
    return finish(fcntl(fd, F_GETLK, lock), fd, -1);
}

CALL(fcntl_getown_ex, 8, SAME)
{
    int fd[2];
    stream_pair(fd);
    return finish(fcntl(fd[0], F_GETOWN_EX, out), fd[0], fd[1]);
}

CALL(sendfile_offset, 8, SAME)
{
    int in = pattern_file(5000, 6), to = pattern_file(10, 7);
    *(off_t *)out = 100;
    long r = sendfile(to, in, (off_t *)out, 2000);
    return finish(r, in, to);
}

CALL(copy_file_range_offsets, 16, SAME)
{
    int in = pattern_file(5000, 6), to = pattern_file(10, 7);
    ((off64_t *)out)[0] = 100;
    ((off64_t *)out)[1] = 3;
    long r = copy_file_range(in, (off64_t *)out, to, (off64_t *)(out + 8), 2000, 0);
    return finish(r, in, to);
}

CALL(splice_offset, 8, SAME)
{
    int in = pattern_file(5000, 6), fd[2];
    SYS(pipe(fd));
    *(off64_t *)out = 64;
    long r = splice(in, (off64_t *)out, fd[1], NULL, 3000, 0);
    close(in);
    return finish(r, fd[0], fd[1]);
}

CALL(prctl_name, 16, SAME)
{
    prctl(PR_SET_NAME, "a-thread-name");
    return prctl(PR_GET_NAME, out);
}

CALL(eventfd_read, 8, SAME)
{
    int fd = (int)SYS(eventfd(12345, 0));
    return finish(read(fd, out, 8), fd, -1);
}

CALL(signalfd_read, sizeof(struct signalfd_siginfo), SAME)
{
    sigset_t block;
    sigemptyset(&block);
    sigaddset(&block, SIGUSR1);
    sigprocmask(SIG_BLOCK, &block, NULL);
    int fd = signalfd(-1, &block, 0);
    CHECK(fd >= 0);
    SYS(sigqueue(getpid(), SIGUSR1, (union sigval){ .sival_int = 99 }));
    long r = read(fd, out, sizeof(struct signalfd_siginfo));
    sigprocmask(SIG_UNBLOCK, &block, NULL);
    struct signalfd_siginfo *info = (struct signalfd_siginfo *)out;
    EQUAL(getpid(), info->ssi_pid);
    info->ssi_pid = 0;
    return finish(r, fd, -1);
}

CALL(inotify_read, 256, SAME)
{
    int fd = (int)SYS(inotify_init1(0));
    SYS(inotify_add_watch(fd, ".", IN_CREATE));
    unlink("watched");
    close((int)SYS(open("watched", O_CREAT | O_WRONLY, 0644)));
    return finish(read(fd, out, 256), fd, -1);
}

CALL(getxattr, 32, SAME)
{
    close((int)SYS(open("with-xattr", O_CREAT | O_WRONLY, 0644)));
    if (setxattr("with-xattr", "user.test", "value of it", 11, 0) == -1)
        return -1;
    return getxattr("with-xattr", "user.test", out, 32);
}

CALL(mincore, 4, SAME)
{
    static unsigned char pages[4 * PAGE] __attribute__((aligned(4096)));
    memset(pages, 1, sizeof pages);
    return mincore(pages, sizeof pages, out);
}

CALL(getgroups, 1024, SAME)
{
    gid_t group = 12345;
    if (syscall(SYS_setgroups, 1, &group) == -1)
        return 0 * (*out = 1);
    return syscall(SYS_getgroups, 256, out);
}

CALL(capget, 24, SAME)
{
    struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
    return syscall(SYS_capget, &header, out);
}

CALL(futex_wake_op, 8, SAME)
{
    *(int *)out = 5;
    *(int *)(out + 4) = 6;
    return syscall(SYS_futex, out, FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG, 1, 1, out + 4, FUTEX_OP(FUTEX_OP_ADD, 10, FUTEX_OP_CMP_EQ, 6));
}

static void ignore_signal(int s) { (void)s; }

CALL(nanosleep_remainder, 16, SAME)
{
    struct sigaction a = { 0 };
    a.sa_handler = ignore_signal;
    SYS(sigaction(SIGALRM, &a, NULL));
    /* again and again: on a busy machine the first may come before the sleep begins */
    struct itimerval t = { { 0, 20000 }, { 0, 20000 } }, off = { 0 };
    SYS(setitimer(ITIMER_REAL, &t, NULL));
    struct timespec wait = { 100, 0 };
    long r = syscall(SYS_nanosleep, &wait, out);
    int error = errno;
    SYS(setitimer(ITIMER_REAL, &off, NULL));
    EQUAL(-1, r);
    EQUAL(EINTR, error);
    struct timespec *left = (struct timespec *)out;
    CHECK(left->tv_sec >= 90 && left->tv_sec <= 100);
    *left = (struct timespec){ 9, 9 };
    return 0;
}

CALL(process_vm_readv, 200, SAME)
{
    struct iovec local = { out, 80 }, remote = { (void *)text, 80 };
    long r = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
    return r == 80 ? r : 0 * (*out = 1);
}

/* The signal frame is written by whoever delivers the signal, here onto a stack the snapshots watch. */
static volatile int handled;
static void count_signal(int s, siginfo_t *i, void *c) { (void)s; (void)i; (void)c; handled++; }

CASE(signal_frame)
{
    size_t length = 32 * PAGE;
    unsigned char *stack = map_anonymous(length);
    fill(stack, length, 31);
    stack_t s = { .ss_sp = stack, .ss_size = length };
    SYS(sigaltstack(&s, NULL));
    struct sigaction a = { .sa_sigaction = count_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK };
    SYS(sigaction(SIGUSR1, &a, NULL));
    struct watch w;
    watch_begin(&w, stack, length, 31);
    raise(SIGUSR1);
    EQUAL(1, handled);
    CHECK(mismatch(stack, 0, length, 31) >= 0);
    watch_end(&w);
    s = (stack_t){ .ss_flags = SS_DISABLE };
    SYS(sigaltstack(&s, NULL));
}

/* The same with memory of other kinds: data segment, heap, stack. */
static unsigned char data_segment[4 * PAGE] = { 1 };

static void read_into(unsigned char *memory, size_t length, uint64_t seed)
{
    fill(memory, length, seed);
    int fd = pattern_file(length, seed + 1);
    struct watch w;
    watch_begin(&w, memory, length, seed);
    EQUAL(length - 200, read(fd, memory + 100, length - 200));
    HOLDS(memory, 0, 100, seed);
    HOLDS(memory + 100, 0, length - 200, seed + 1);
    HOLDS(memory + length - 100, length - 100, 100, seed);
    watch_end(&w);
    close(fd);
}

CASE(read_into_data) { read_into(data_segment, sizeof data_segment, 41); }
CASE(read_into_heap) { unsigned char *m = malloc(20000); read_into(m, 20000, 42); free(m); }
CASE(read_into_large_heap) { unsigned char *m = malloc(3000000); read_into(m, 3000000, 43); free(m); }
CASE(read_into_stack) { unsigned char m[3 * PAGE]; read_into(m, sizeof m, 44); }

CASE(read_into_private_file_mapping)
{
    int fd = pattern_file(8 * PAGE, 45);
    unsigned char *m = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    CHECK(m != MAP_FAILED);
    read_into(m, 8 * PAGE, 46);
    close(fd);
}

/* A buffer that ends in an unmapped or read-only page: EFAULT or a short count, as natively, and the snapshots keep their bytes. */
CASE(read_past_the_mapping)
{
    unsigned char *m = map_anonymous(4 * PAGE);
    SYS(munmap(m + 3 * PAGE, PAGE));
    fill(m, 3 * PAGE, 47);
    int fd = pattern_file(3 * PAGE, 48);
    struct watch w;
    watch_begin(&w, m, 3 * PAGE, 47);
    long r = read(fd, m + 2 * PAGE, 2 * PAGE);
    printf("read returned %ld errno %d\n", r, r < 0 ? errno : 0);
    if (r > 0)
        HOLDS(m + 2 * PAGE, 0, (size_t)r, 48);
    HOLDS(m, 0, 2 * PAGE, 47);
    watch_end(&w);
    SYS(mprotect(m + 2 * PAGE, PAGE, PROT_READ));
    SYS(lseek(fd, 0, SEEK_SET));
    EQUAL(-1, read(fd, m + 2 * PAGE, PAGE));
    EQUAL(EFAULT, errno);
    EQUAL(-1, syscall(SYS_read, fd, 8, 100));
    EQUAL(EFAULT, errno);
    EQUAL(-1, syscall(SYS_read, fd, 0xffff800000000000UL, 100));
    EQUAL(EFAULT, errno);
}

/* Many small outputs, many snapshots, in one process. */
CASE(many_rounds)
{
    unsigned char *m = map_anonymous(64 * PAGE);
    for (int round = 0; round < 30; round++) {
        fill(m, 64 * PAGE, (uint64_t)(500 + round));
        int fd = pattern_file(4 * PAGE, (uint64_t)(900 + round));
        struct watch w;
        watch_begin(&w, m, 64 * PAGE, (uint64_t)(500 + round));
        for (int i = 0; i < 60; i += 5)
            EQUAL(3 * PAGE, pread(fd, m + i * PAGE + 11, 3 * PAGE, 7));
        for (int i = 0; i < 60; i += 5)
            HOLDS(m + i * PAGE + 11, 7, 3 * PAGE, (uint64_t)(900 + round));
        watch_end(&w);
        close(fd);
    }
}
