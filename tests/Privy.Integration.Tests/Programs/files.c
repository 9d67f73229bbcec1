/* Large files by every way in and out, and other things with descriptors. */
#include "testlib.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>

#define SIZE (24UL << 20)
static uint64_t *words;

/* Whole words are enough for a large file, and quick. */
static uint64_t *make(uint64_t seed)
{
    uint64_t *m = map_anonymous(SIZE);
    for (size_t i = 0; i < SIZE / 8; i++)
        m[i] = mix(seed * 1000003 + i);
    return m;
}

static void same(const uint64_t *m, uint64_t seed)
{
    for (size_t i = 0; i < SIZE / 8; i++)
        if (m[i] != mix(seed * 1000003 + i))
            FAIL("word %zu", i);
}

static int temporary(void)
{
    char name[] = "./bigXXXXXX";
    int fd = (int)SYS(mkstemp(name));
    SYS(unlink(name));
    return fd;
}

static void write_all(int fd, const void *m, size_t n)
{
    for (size_t done = 0; done < n;)
        done += (size_t)SYS(write(fd, (const char *)m + done, n - done));
}

static void read_all(int fd, void *m, size_t n)
{
    for (size_t done = 0; done < n;) {
        long r = SYS(read(fd, (char *)m + done, n - done));
        CHECK(r > 0);
        done += (size_t)r;
    }
}

CASE(write_and_read)
{
    int fd = temporary();
    words = make(1);
    write_all(fd, words, SIZE);
    uint64_t *m = map_anonymous(SIZE);
    SYS(lseek(fd, 0, SEEK_SET));
    read_all(fd, m, SIZE);
    same(m, 1);
    char c;
    EQUAL(0, read(fd, &c, 1));
}

CASE(pwrite_and_pread)
{
    int fd = temporary();
    words = make(2);
    size_t piece = 1 << 16;
    for (size_t i = SIZE / piece; i-- > 0;)
        EQUAL(piece, pwrite(fd, (char *)words + i * piece, piece, (off_t)(i * piece)));
    uint64_t *m = map_anonymous(SIZE);
    for (size_t i = 0; i < SIZE / piece; i++) {
        size_t at = i * 7 % (SIZE / piece) * piece;
        EQUAL(piece, pread(fd, (char *)m + at, piece, (off_t)at));
    }
    same(m, 2);
    EQUAL(0, lseek(fd, 0, SEEK_CUR));
}

CASE(writev_and_readv)
{
    int fd = temporary();
    words = make(3);
    struct iovec v[64];
    size_t at = 0;
    while (at < SIZE) {
        size_t total = 0;
        for (int i = 0; i < 64; i++) {
            size_t n = (size_t)i * 301 + 5;
            if (at + total + n > SIZE)
                n = SIZE - at - total;
            v[i] = (struct iovec){ (char *)words + at + total, n };
            total += n;
        }
        EQUAL(total, writev(fd, v, 64));
        at += total;
    }
    uint64_t *m = map_anonymous(SIZE);
    SYS(lseek(fd, 0, SEEK_SET));
    for (at = 0; at < SIZE;) {
        for (int i = 0; i < 64; i++)
            v[i] = (struct iovec){ (char *)m + at + (size_t)i * 4096, 4096 };
        at += (size_t)SYS(readv(fd, v, 64));
    }
    same(m, 3);
}

static void *receive(void *a)
{
    int fd = (int)(long)a;
    uint64_t *m = map_anonymous(SIZE);
    for (size_t at = 0; at < SIZE;) {
        struct iovec v[2] = { { (char *)m + at, (SIZE - at) / 2 }, { (char *)m + at + (SIZE - at) / 2, SIZE - at - (SIZE - at) / 2 } };
        struct msghdr h = { .msg_iov = v, .msg_iovlen = 2 };
        long n = SYS(recvmsg(fd, &h, 0));
        CHECK(n > 0);
        at += (size_t)n;
    }
    return m;
}

CASE(sendmsg_and_recvmsg)
{
    int fd[2];
    SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, fd));
    words = make(4);
    pthread_t t;
    EQUAL(0, pthread_create(&t, NULL, receive, (void *)(long)fd[1]));
    for (size_t at = 0; at < SIZE;) {
        size_t n = SIZE - at < 3000000 ? SIZE - at : 3000000;
        struct iovec v[3] = { { (char *)words + at, n / 3 }, { (char *)words + at + n / 3, n / 3 }, { (char *)words + at + n / 3 * 2, n - n / 3 * 2 } };
        struct msghdr h = { .msg_iov = v, .msg_iovlen = 3 };
        at += (size_t)SYS(sendmsg(fd[0], &h, 0));
    }
    void *m;
    EQUAL(0, pthread_join(t, &m));
    same(m, 4);
}

CASE(tcp)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof a;
    int listener = (int)SYS(socket(AF_INET, SOCK_STREAM, 0));
    SYS(bind(listener, (struct sockaddr *)&a, sizeof a));
    SYS(listen(listener, 1));
    SYS(getsockname(listener, (struct sockaddr *)&a, &n));
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0) {
        int client = (int)SYS(socket(AF_INET, SOCK_STREAM, 0));
        SYS(connect(client, (struct sockaddr *)&a, sizeof a));
        words = make(5);
        write_all(client, words, SIZE);
        SYS(shutdown(client, SHUT_WR));
        char c;
        EQUAL(1, read(client, &c, 1));
        _exit(0);
    }
    int server = (int)SYS(accept(listener, NULL, NULL));
    uint64_t *m = map_anonymous(SIZE);
    read_all(server, m, SIZE);
    same(m, 5);
    char c;
    EQUAL(0, read(server, &c, 1));
    EQUAL(1, write(server, "k", 1));
    expect_exit(pid, 0);
}

CASE(mmap_shared)
{
    int fd = temporary();
    SYS(ftruncate(fd, SIZE));
    uint64_t *m = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(m != MAP_FAILED);
    for (size_t i = 0; i < SIZE / 8; i++)
        m[i] = mix(6 * 1000003 + i);
    SYS(msync(m, SIZE, MS_SYNC));
    uint64_t *r = map_anonymous(SIZE);
    read_all(fd, r, SIZE);
    same(r, 6);
    r[0] = 1;
    EQUAL(8, pwrite(fd, r, 8, 8));
    EQUAL(1, m[1]);
    SYS(munmap(m, SIZE));
}

CASE(mmap_private)
{
    int fd = temporary();
    words = make(7);
    write_all(fd, words, SIZE);
    uint64_t *m = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    CHECK(m != MAP_FAILED);
    same(m, 7);
    for (size_t i = 0; i < SIZE / 8; i += 700)
        m[i] = 0;
    for (size_t i = 0; i < SIZE / 8; i++)
        if (m[i] != (i % 700 ? mix(7 * 1000003 + i) : 0))
            FAIL("word %zu", i);
    uint64_t *r = map_anonymous(SIZE);
    SYS(lseek(fd, 0, SEEK_SET));
    read_all(fd, r, SIZE);
    same(r, 7);
    /* from the middle, read only */
    uint64_t *part = mmap(NULL, 2 * PAGE, PROT_READ, MAP_PRIVATE, fd, 5 * PAGE);
    CHECK(part != MAP_FAILED && memcmp(part, (char *)words + 5 * PAGE, 2 * PAGE) == 0);
}

/* One mapping is read() into, the other written from. */
CASE(mapping_to_mapping)
{
    int one = temporary(), two = temporary();
    words = make(8);
    write_all(one, words, SIZE);
    SYS(ftruncate(two, SIZE));
    uint64_t *a = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, one, 0), *b = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, two, 0);
    SYS(lseek(one, 0, SEEK_SET));
    read_all(one, b, SIZE);
    same(b, 8);
    EQUAL(SIZE, pwrite(two, a, SIZE, 0));
    same(b, 8);
}

CASE(sendfile_and_splice)
{
    int one = temporary(), two = temporary(), fd[2];
    words = make(9);
    write_all(one, words, SIZE);
    SYS(lseek(one, 0, SEEK_SET));
    for (size_t at = 0; at < SIZE / 2;)
        at += (size_t)SYS(sendfile(two, one, NULL, SIZE / 2 - at));
    SYS(pipe(fd));
    for (size_t at = SIZE / 2; at < SIZE;) {
        long n = SYS(splice(one, NULL, fd[1], NULL, SIZE - at < 65536 ? SIZE - at : 65536, 0));
        for (long moved = 0; moved < n;)
            moved += SYS(splice(fd[0], NULL, two, NULL, (size_t)(n - moved), 0));
        at += (size_t)n;
    }
    uint64_t *m = map_anonymous(SIZE);
    EQUAL(SIZE, pread(two, m, SIZE, 0));
    same(m, 9);
}

CASE(directories_and_names)
{
    SYS(mkdir("d", 0755));
    int d = (int)SYS(open("d", O_RDONLY | O_DIRECTORY));
    for (int i = 0; i < 300; i++) {
        char name[100];
        snprintf(name, sizeof name, "file-with-a-rather-long-name-%d", i);
        close((int)SYS(openat(d, name, O_CREAT | O_WRONLY | O_EXCL, 0600)));
    }
    char buffer[4096];
    int n = 0;
    for (long r; (r = SYS(syscall(SYS_getdents64, d, buffer, sizeof buffer))) > 0;)
        for (long at = 0; at < r; at += *(unsigned short *)(buffer + at + 16))
            n++;
    EQUAL(302, n);
    struct stat s;
    SYS(fstatat(d, "file-with-a-rather-long-name-7", &s, 0));
    EQUAL(0600, s.st_mode & 0777);
    SYS(linkat(d, "file-with-a-rather-long-name-7", d, "other", 0));
    SYS(renameat(d, "other", AT_FDCWD, "moved"));
    SYS(stat("moved", &s));
    EQUAL(2, s.st_nlink);
    SYS(fchmodat(AT_FDCWD, "moved", 0640, 0));
    struct timespec times[2] = { { 1000, 5 }, { 2000, 6 } };
    SYS(utimensat(AT_FDCWD, "moved", times, 0));
    SYS(stat("moved", &s));
    EQUAL(2000, s.st_mtime);
    EQUAL(0640, s.st_mode & 0777);
    SYS(truncate("moved", 12345));
    SYS(stat("moved", &s));
    EQUAL(12345, s.st_size);
    EQUAL(-1, open("missing/file", O_RDONLY));
    EQUAL(ENOENT, errno);
    EQUAL(-1, faccessat(AT_FDCWD, "missing", F_OK, 0));
    char long_name[5000];
    memset(long_name, 'a', sizeof long_name);
    long_name[4999] = 0;
    EQUAL(-1, open(long_name, O_RDONLY));
    EQUAL(ENAMETOOLONG, errno);
}

CASE(descriptors)
{
    int a = (int)SYS(open("/dev/zero", O_RDONLY));
    int b = (int)SYS(dup(a));
    EQUAL(a + 1, b);
    EQUAL(100, dup2(a, 100));
    EQUAL(101, dup3(a, 101, O_CLOEXEC));
    EQUAL(FD_CLOEXEC, fcntl(101, F_GETFD));
    EQUAL(102, fcntl(a, F_DUPFD, 100));
    EQUAL(-1, dup2(999, 5));
    EQUAL(EBADF, errno);
    EQUAL(-1, close(103));
    EQUAL(EBADF, errno);
    for (int fd = 3; fd < 500; fd++)
        close(fd);
    EQUAL(-1, fcntl(a, F_GETFD));
    /* what the hypervisor itself has open must have survived this, and the lowest number is free */
    EQUAL(3, SYS(open("/dev/null", O_RDONLY)));
    if (syscall(SYS_close_range, 3, ~0U, 0) == -1)
        EQUAL(ENOSYS, errno);
    close(3);
    EQUAL(3, SYS(open("/dev/null", O_RDONLY)));
}

CASE(events)
{
    int epoll = (int)SYS(epoll_create1(0)), event = (int)SYS(eventfd(0, EFD_NONBLOCK)), timer = (int)SYS(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
    struct epoll_event e = { EPOLLIN | EPOLLET, { .u32 = 1 } };
    SYS(epoll_ctl(epoll, EPOLL_CTL_ADD, event, &e));
    e.data.u32 = 2;
    SYS(epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &e));
    struct epoll_event got[4];
    EQUAL(0, epoll_wait(epoll, got, 4, 10));
    uint64_t n = 3;
    EQUAL(8, write(event, &n, 8));
    EQUAL(1, epoll_wait(epoll, got, 4, 1000));
    EQUAL(1, got[0].data.u32);
    EQUAL(0, epoll_wait(epoll, got, 4, 10));
    struct itimerspec t = { { 0, 0 }, { 0, 20000000 } };
    SYS(timerfd_settime(timer, 0, &t, NULL));
    EQUAL(1, epoll_wait(epoll, got, 4, 5000));
    EQUAL(2, got[0].data.u32);
    EQUAL(8, read(timer, &n, 8));
    EQUAL(1, n);
}
