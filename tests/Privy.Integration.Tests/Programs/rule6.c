/* Rule 6: in a child a page may lie elsewhere. Its system calls must use the child's bytes, and its own mmap, munmap, mprotect,
 * MADV_DONTNEED and brk must not touch the parent. */
#include "testlib.h"
#include <poll.h>
#include <setjmp.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/utsname.h>

#define REGION (16 * PAGE)
static unsigned char *region;
static int file_fd;

static void *drain(void *a)
{
    unsigned char *m = ((void **)a)[0];
    size_t length = (size_t)((void **)a)[1];
    int fd = (int)(long)((void **)a)[2];
    for (size_t done = 0; done < length;) {
        long n = SYS(read(fd, m + done, length - done));
        CHECK(n > 0);
        done += (size_t)n;
    }
    return NULL;
}

/* What the child writes to a pipe, as the parent receives it. */
static void expect_from_pipe(int fd, size_t length, uint64_t seed)
{
    unsigned char *got = malloc(length);
    void *a[] = { got, (void *)length, (void *)(long)fd };
    drain(a);
    HOLDS(got, 0, length, seed);
    free(got);
}

static void begin(void)
{
    region = map_anonymous(REGION);
    fill(region, REGION, 6000);
}

/* Runs the block in a child that has its own bytes (seed 6001) in the region, while the parent keeps 6000, then 6002. */
#define WITH_CHILD(parent, ...) do { begin(); int fd[2]; SYS(pipe(fd)); fflush(NULL); pid_t pid_ = (pid_t)SYS(fork()); \
    if (pid_ == 0) { close(fd[0]); fill(region, REGION, 6001); __VA_ARGS__; _exit(0); } \
    close(fd[1]); fill(region, REGION, 6002); parent; expect_exit(pid_, 0); HOLDS(region, 0, REGION, 6002); close(fd[0]); } while (0)

CASE(write) { WITH_CHILD(expect_from_pipe(fd[0], REGION, 6001), EQUAL(REGION, write(fd[1], region, REGION))); }

CASE(write_unmodified)
{
    begin();
    int fd[2];
    SYS(pipe(fd));
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0) {
        sleep_ms(50);
        EQUAL(REGION, write(fd[1], region, REGION));
        _exit(0);
    }
    fill(region, REGION, 6002);
    expect_from_pipe(fd[0], REGION, 6000);
    expect_exit(pid, 0);
}

/* Half of it the child's own pages, half those of the snapshot. */
CASE(write_mixed)
{
    begin();
    int fd[2];
    SYS(pipe(fd));
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0) {
        for (size_t i = 1; i < 16; i += 2)
            for (size_t j = 0; j < PAGE; j++)
                region[i * PAGE + j] = pattern(6001, i * PAGE + j);
        EQUAL(REGION - 100, write(fd[1], region + 50, REGION - 100));
        _exit(0);
    }
    fill(region, REGION, 6002);
    unsigned char *got = malloc(REGION);
    void *a[] = { got, (void *)(REGION - 100), (void *)(long)fd[0] };
    drain(a);
    expect_exit(pid, 0);
    for (size_t i = 50; i < REGION - 50; i++)
        EQUAL(pattern(i / PAGE % 2 ? 6001 : 6000, i), got[i - 50]);
}

CASE(writev)
{
    WITH_CHILD(expect_from_pipe(fd[0], REGION, 6001), {
        struct iovec v[16];
        for (int i = 0; i < 16; i++)
            v[i] = (struct iovec){ region + (size_t)i * PAGE, PAGE };
        EQUAL(REGION, writev(fd[1], v, 16));
    });
}

/* The iovec array itself lies in a page that only the child has. */
CASE(writev_nested)
{
    WITH_CHILD(expect_from_pipe(fd[0], 3000, 6003), {
        struct iovec *v = (struct iovec *)(region + PAGE - 24);
        unsigned char *m = malloc(3000);
        fill(m, 3000, 6003);
        v[0] = (struct iovec){ m, 1000 };
        v[1] = (struct iovec){ m + 1000, 1500 };
        v[2] = (struct iovec){ m + 2500, 500 };
        EQUAL(3000, writev(fd[1], v, 3));
    });
}

CASE(write_16_megabytes)
{
    size_t length = 16UL << 20;
    unsigned char *m = map_anonymous(length);
    fill(m, length, 6010);
    int fd[2];
    SYS(pipe(fd));
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0) {
        fill(m, length, 6011);
        for (size_t done = 0; done < length;)
            done += (size_t)SYS(write(fd[1], m + done, length - done));
        _exit(0);
    }
    close(fd[1]);
    expect_from_pipe(fd[0], length, 6011);
    expect_exit(pid, 0);
    HOLDS(m, 0, length, 6010);
}

CASE(read)
{
    begin();
    file_fd = pattern_file(REGION, 6020);
    IN_CHILD({
        EQUAL(REGION - 100, read(file_fd, region + 50, REGION - 100));
        HOLDS(region, 0, 50, 6000);
        HOLDS(region + 50, 0, REGION - 100, 6020);
        HOLDS(region + REGION - 50, REGION - 50, 50, 6000);
    });
    HOLDS(region, 0, REGION, 6000);
}

CASE(pread_and_readv)
{
    begin();
    file_fd = pattern_file(REGION, 6021);
    IN_CHILD({
        struct iovec v[3] = { { region + 10, PAGE }, { region + 6 * PAGE - 7, 14 }, { region + 10 * PAGE, 3 * PAGE } };
        EQUAL(4 * PAGE + 14, preadv(file_fd, v, 3, 5));
        HOLDS(region + 10, 5, PAGE, 6021);
        HOLDS(region + 6 * PAGE - 7, 5 + PAGE, 14, 6021);
        HOLDS(region + 10 * PAGE, 5 + PAGE + 14, 3 * PAGE, 6021);
        EQUAL(PAGE, pread(file_fd, region, PAGE, 1));
        HOLDS(region, 1, PAGE, 6021);
    });
    HOLDS(region, 0, REGION, 6000);
}

CASE(pwrite_and_writev_to_file)
{
    begin();
    file_fd = pattern_file(10, 1);
    IN_CHILD({
        fill(region, REGION, 6022);
        EQUAL(REGION, pwrite(file_fd, region, REGION, 0));
        struct iovec v[2] = { { region + 5, 2 * PAGE }, { region, 5 } };
        EQUAL(2 * PAGE + 5, pwritev(file_fd, v, 2, REGION));
    });
    unsigned char *got = malloc(REGION + 2 * PAGE + 5);
    EQUAL(REGION + 2 * PAGE + 5, pread(file_fd, got, REGION + 2 * PAGE + 5, 0));
    HOLDS(got, 0, REGION, 6022);
    HOLDS(got + REGION, 5, 2 * PAGE, 6022);
    HOLDS(got + REGION + 2 * PAGE, 0, 5, 6022);
    HOLDS(region, 0, REGION, 6000);
}

CASE(sendmsg_and_recvmsg)
{
    begin();
    int pair[2];
    SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    int passed = pattern_file(1000, 6030);
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0) {
        fill(region, REGION, 6031);
        struct msghdr *m = (struct msghdr *)(region + 2 * PAGE - 16);
        struct iovec *v = (struct iovec *)(region + 4 * PAGE - 8);
        v[0] = (struct iovec){ region + 8 * PAGE, 100 };
        v[1] = (struct iovec){ region + 9 * PAGE - 50, 100 };
        unsigned char *control = region + 12 * PAGE;
        memset(control, 0, 64);
        *m = (struct msghdr){ .msg_iov = v, .msg_iovlen = 2, .msg_control = control, .msg_controllen = CMSG_SPACE(4) };
        struct cmsghdr *c = CMSG_FIRSTHDR(m);
        *c = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(4) };
        memcpy(CMSG_DATA(c), &passed, 4);
        EQUAL(200, sendmsg(pair[1], m, 0));

        v[0] = (struct iovec){ region + PAGE - 10, 20 };
        v[1] = (struct iovec){ region + 6 * PAGE - 10, 20 };
        *m = (struct msghdr){ .msg_iov = v, .msg_iovlen = 2 };
        EQUAL(40, recvmsg(pair[1], m, 0));
        HOLDS(region + PAGE - 10, 0, 20, 6032);
        HOLDS(region + 6 * PAGE - 10, 20, 20, 6032);
        _exit(0);
    }
    unsigned char got[200], control[64];
    struct iovec v = { got, 200 };
    struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = 64 };
    EQUAL(200, recvmsg(pair[0], &m, 0));
    HOLDS(got, 8 * PAGE, 100, 6031);
    HOLDS(got + 100, 9 * PAGE - 50, 100, 6031);
    int fd;
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), 4);
    EQUAL(100, pread(fd, got, 100, 10));
    HOLDS(got, 10, 100, 6030);
    fill(got, 40, 6032);
    EQUAL(40, write(pair[0], got, 40));
    expect_exit(pid, 0);
    HOLDS(region, 0, REGION, 6000);
}

/* Paths and structures that lie in pages only the child has, or straddle two. */
CASE(paths_and_structures)
{
    begin();
    IN_CHILD({
        char *path = (char *)region + 3 * PAGE - 5;
        strcpy(path, "./made-by-the-child");
        int fd = (int)SYS(open(path, O_CREAT | O_RDWR | O_TRUNC, 0640));
        EQUAL(5, write(fd, "12345", 5));
        struct stat *s = (struct stat *)(region + 5 * PAGE - 64);
        SYS(stat(path, s));
        EQUAL(5, s->st_size);
        memset(s, 0, sizeof *s);
        SYS(fstat(fd, s));
        EQUAL(5, s->st_size);
        char *target = (char *)region + 7 * PAGE - 3;
        strcpy(target, "renamed-by-the-child");
        SYS(rename(path, target));
        char *link = (char *)region + 9 * PAGE - 3;
        strcpy(link, "link-by-the-child");
        unlink(link);
        SYS(symlink(target, link));
        char *answer = (char *)region + 11 * PAGE - 3;
        EQUAL(20, readlink(link, answer, 100));
        CHECK(memcmp(answer, "renamed-by-the-child", 20) == 0);
        CHECK(getcwd(answer, 2000) == answer && answer[0] == '/');
        SYS(unlink(link));
        SYS(unlink(target));
        struct utsname *u = (struct utsname *)(region + 13 * PAGE - 100);
        SYS(uname(u));
        CHECK(strcmp(u->sysname, "Linux") == 0);
    });
    HOLDS(region, 0, REGION, 6000);
    CHECK(access("made-by-the-child", F_OK) == -1);
}

CASE(poll_select_epoll)
{
    begin();
    IN_CHILD({
        int *fd = (int *)(region + PAGE - 4);
        SYS(pipe(fd));
        struct pollfd *p = (struct pollfd *)(region + 2 * PAGE - 4);
        p[0] = (struct pollfd){ fd[0], POLLIN, 0 };
        p[1] = (struct pollfd){ fd[1], POLLOUT, 0 };
        EQUAL(1, poll(p, 2, 1000));
        EQUAL(0, p[0].revents);
        EQUAL(POLLOUT, p[1].revents);
        EQUAL(1, write(fd[1], "x", 1));
        fd_set *s = (fd_set *)(region + 4 * PAGE - 32);
        FD_ZERO(s);
        FD_SET(fd[0], s);
        struct timeval *t = (struct timeval *)(region + 5 * PAGE - 8);
        *t = (struct timeval){ 1, 0 };
        EQUAL(1, select(fd[0] + 1, s, NULL, NULL, t));
        CHECK(FD_ISSET(fd[0], s));
        int e = (int)SYS(epoll_create1(0));
        struct epoll_event *event = (struct epoll_event *)(region + 6 * PAGE - 4);
        *event = (struct epoll_event){ EPOLLIN, { .u64 = 0x1020304050607080 } };
        SYS(epoll_ctl(e, EPOLL_CTL_ADD, fd[0], event));
        memset(event, 0, sizeof *event);
        EQUAL(1, epoll_wait(e, event, 4, 1000));
        EQUAL(0x1020304050607080, event->data.u64);
    });
    HOLDS(region, 0, REGION, 6000);
}

/* exec with the path, the arguments and the environment in the child's own pages. */
CASE(execve)
{
    begin();
    int fd[2];
    SYS(pipe(fd));
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0) {
        char *at = (char *)region + PAGE - 3;
        char **vector = (char **)(region + 4 * PAGE - 16);
        strcpy(at, "/bin/sh");
        strcpy(at + 100, "-c");
        strcpy(at + 200, "printf '%s|%s|%s' \"$0\" \"$1\" \"$GREETING\"");
        strcpy(at + 300, "zero");
        strcpy(at + 400, "one two");
        strcpy(at + 500, "GREETING=hello from the child");
        for (int i = 0; i < 5; i++)
            vector[i] = at + i * 100;
        vector[5] = NULL;
        vector[6] = at + 500;
        vector[7] = NULL;
        dup2(fd[1], 1);
        execve(at, vector, vector + 6);
        _exit(127);
    }
    close(fd[1]);
    char got[200];
    size_t n = 0;
    for (long r; (r = SYS(read(fd[0], got + n, sizeof got - 1 - n))) > 0;)
        n += (size_t)r;
    got[n] = 0;
    expect_exit(pid, 0);
    printf("%s\n", got);
    CHECK(strcmp(got, "zero|one two|hello from the child") == 0);
    HOLDS(region, 0, REGION, 6000);
}

/* ---- its own mappings ---- */

static sigjmp_buf out_of_fault;
static void on_fault(int s) { (void)s; siglongjmp(out_of_fault, 1); }

static int faults(volatile unsigned char *p, int write)
{
    struct sigaction a = { .sa_handler = on_fault }, old;
    SYS(sigaction(SIGSEGV, &a, &old));
    volatile int faulted = 0;
    if (sigsetjmp(out_of_fault, 1) != 0)
        faulted = 1;
    else if (write)
        *p = 1;
    else
        (void)*p;
    SYS(sigaction(SIGSEGV, &old, NULL));
    return faulted;
}

static void zeroes(const unsigned char *m, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (m[i])
            FAIL("byte %zu is %02x, not zero", i, m[i]);
}

#define OWN(...) do { begin(); volatile int *turn = map_shared(PAGE); fflush(NULL); pid_t pid_ = (pid_t)SYS(fork()); \
    if (pid_ == 0) { __VA_ARGS__; turn[0] = 1; SPIN_UNTIL(turn[1]); _exit(0); } \
    SPIN_UNTIL(turn[0] || waitpid(pid_, NULL, WNOHANG) != 0); HOLDS(region, 0, REGION, 6000); fill(region, REGION, 6009); HOLDS(region, 0, REGION, 6009); turn[1] = 1; \
    expect_exit(pid_, 0); HOLDS(region, 0, REGION, 6009); } while (0)

CASE(own_munmap) { OWN({ SYS(munmap(region, 5 * PAGE)); CHECK(faults(region, 0)); CHECK(faults(region + 5 * PAGE - 1, 1)); HOLDS(region + 5 * PAGE, 5 * PAGE, REGION - 5 * PAGE, 6000); }); }

CASE(own_mmap)
{
    OWN({
        for (int i = 0; i < 20; i++) {
            unsigned char *m = map_anonymous(64 * PAGE);
            zeroes(m, 64 * PAGE);
            fill(m, 64 * PAGE, (uint64_t)i);
            HOLDS(m, 0, 64 * PAGE, (uint64_t)i);
            if (i % 2)
                SYS(munmap(m, 64 * PAGE));
        }
    });
    /* what the parent maps now may have the same addresses */
    unsigned char *m = map_anonymous(64 * PAGE);
    zeroes(m, 64 * PAGE);
}

CASE(own_map_fixed)
{
    OWN({
        CHECK(mmap(region, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == region);
        zeroes(region, 8 * PAGE);
        fill(region, 8 * PAGE, 6050);
        HOLDS(region, 0, 8 * PAGE, 6050);
        HOLDS(region + 8 * PAGE, 8 * PAGE, REGION - 8 * PAGE, 6000);
    });
}

CASE(own_file_mappings)
{
    OWN({
        int fd = pattern_file(REGION, 6051);
        unsigned char *private = mmap(NULL, REGION, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
        CHECK(private != MAP_FAILED);
        HOLDS(private, 0, REGION, 6051);
        unsigned char *shared = mmap(NULL, REGION, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        CHECK(shared != MAP_FAILED);
        fill(private, PAGE, 6052);
        HOLDS(shared, 0, REGION, 6051);
        fill(shared, REGION, 6053);
        unsigned char *got = malloc(REGION);
        EQUAL(REGION, pread(fd, got, REGION, 0));
        HOLDS(got, 0, REGION, 6053);
        HOLDS(private, 0, PAGE, 6052);
    });
}

CASE(own_mprotect)
{
    OWN({
        SYS(mprotect(region, 4 * PAGE, PROT_READ));
        CHECK(faults(region, 1));
        HOLDS(region, 0, REGION, 6000);
        SYS(mprotect(region, 2 * PAGE, PROT_NONE));
        CHECK(faults(region, 0));
        int fd[2];
        SYS(pipe(fd));
        EQUAL(-1, write(fd[1], region, 100));
        EQUAL(EFAULT, errno);
        SYS(mprotect(region, 4 * PAGE, PROT_READ | PROT_WRITE));
        HOLDS(region, 0, REGION, 6000);
        fill(region, REGION, 6060);
        HOLDS(region, 0, REGION, 6060);
    });
}

CASE(own_dontneed)
{
    OWN({
        fill(region + 8 * PAGE, PAGE, 6061);
        SYS(madvise(region, 4 * PAGE, MADV_DONTNEED));
        SYS(madvise(region + 8 * PAGE, PAGE, MADV_DONTNEED));
        zeroes(region, 4 * PAGE);
        zeroes(region + 8 * PAGE, PAGE);
        HOLDS(region + 4 * PAGE, 4 * PAGE, 4 * PAGE, 6000);
        fill(region, 4 * PAGE, 6062);
        HOLDS(region, 0, 4 * PAGE, 6062);
    });
}

CASE(own_mremap)
{
    OWN({
        fill(region + PAGE, PAGE, 6063);
        unsigned char *m = mremap(region, 4 * PAGE, 200 * PAGE, MREMAP_MAYMOVE);
        CHECK(m != MAP_FAILED);
        HOLDS(m, 0, PAGE, 6000);
        HOLDS(m + PAGE, 0, PAGE, 6063);
        HOLDS(m + 2 * PAGE, 2 * PAGE, 2 * PAGE, 6000);
        zeroes(m + 4 * PAGE, 196 * PAGE);
        fill(m, 200 * PAGE, 6064);
        CHECK(m == region || faults(region, 0));
        HOLDS(m, 0, 200 * PAGE, 6064);
    });
}

CASE(own_brk)
{
    unsigned char *old = sbrk(0);
    OWN({
        unsigned char *m = sbrk(50 * PAGE);
        CHECK(m != (void *)-1 && m == old);
        zeroes(m, 50 * PAGE);
        fill(m, 50 * PAGE, 6070);
        HOLDS(m, 0, 50 * PAGE, 6070);
    });
    CHECK(sbrk(0) == old);
    unsigned char *m = sbrk(50 * PAGE);
    CHECK(m == old);
    zeroes(m, 50 * PAGE);
    EQUAL(0, brk(old));
}

CASE(own_malloc)
{
    OWN({
        unsigned char *m[200];
        for (int i = 0; i < 200; i++)
            fill(m[i] = malloc(1000 + (size_t)i * 700), 1000 + (size_t)i * 700, (uint64_t)i);
        for (int i = 0; i < 200; i++) {
            HOLDS(m[i], 0, 1000 + (size_t)i * 700, (uint64_t)i);
            free(m[i]);
        }
    });
}

/* The child's stack grows, and its frames are its own. */
static __attribute__((noinline)) long deep(int n) { volatile unsigned char frame[3000]; frame[0] = (unsigned char)n; frame[2999] = (unsigned char)n; return n == 0 ? 0 : deep(n - 1) + frame[0] + frame[2999] - 2 * (n & 255) + 1; }

CASE(own_stack) { OWN({ EQUAL(1000, deep(1000)); }); EQUAL(1000, deep(1000)); }

/* Signals in the child: the frame is written to the child's page. */
static volatile int handled;
static void on_signal(int s) { (void)s; handled++; }

CASE(own_signal_frame)
{
    struct sigaction a = { .sa_handler = on_signal, .sa_flags = SA_ONSTACK };
    SYS(sigaction(SIGUSR1, &a, NULL));
    OWN({
        stack_t s = { .ss_sp = region + 1 * PAGE, .ss_size = 14 * PAGE };
        SYS(sigaltstack(&s, NULL));
        raise(SIGUSR1);
        EQUAL(1, handled);
    });
    EQUAL(0, handled);
}

/* Bad pointers in the child are EFAULT, not the end of everything. */
CASE(bad_pointers)
{
    begin();
    file_fd = pattern_file(PAGE, 6080);
    IN_CHILD({
        SYS(munmap(region + 4 * PAGE, PAGE));
        int fd[2];
        SYS(pipe(fd));
        EQUAL(-1, syscall(SYS_write, fd[1], 8, 100));
        EQUAL(EFAULT, errno);
        EQUAL(-1, syscall(SYS_read, file_fd, region + 4 * PAGE, 100));
        EQUAL(EFAULT, errno);
        EQUAL(-1, syscall(SYS_open, region + 4 * PAGE, O_RDONLY));
        EQUAL(EFAULT, errno);
        EQUAL(-1, syscall(SYS_writev, fd[1], region + 4 * PAGE, 2));
        EQUAL(EFAULT, errno);
        EQUAL(-1, syscall(SYS_fstat, fd[1], 0xffff800000000000UL));
        EQUAL(EFAULT, errno);
    });
    HOLDS(region, 0, REGION, 6000);
}
