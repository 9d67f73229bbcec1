/* What a program may not reach: memory at addresses that are the hypervisor's, and descriptors that are. Natively there is nothing there. */
#include "testlib.h"
#include <dirent.h>
#include <setjmp.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

/* Kernel region, image, vCPU areas, doorbell, frame pool, direct map, views, and where Linux puts a process' own things. */
static const uintptr_t outside[] = {
    0x1000, 0x080000000000, 0x080000100000, 0x080000200000, 0x080008000000, 0x087800000000, 0x088000000000, 0x0a0000000000, 0x300000000000,
    0x555555554000, 0x7ffff7fc0000, 0x7fffffffe000, 0x7ffffffff000, 0x800000000000, 0xffff800000000000, 0xffffffff80000000, 0xfffffffffffff000,
};
#define EACH(a) for (size_t i_ = 0; i_ < sizeof outside / sizeof *outside; i_++) for (void *a = (void *)outside[i_], *once_ = a; once_; once_ = NULL)

static int sink(void)
{
    static int p[2];
    if (!p[1]) {
        SYS(pipe(p));
        SYS(fcntl(p[1], F_SETFL, O_NONBLOCK));
        SYS(fcntl(p[1], F_SETPIPE_SZ, 1 << 20));
    }
    return p[1];
}

#define REFUSED(call) do { errno = 0; long r_ = (long)(call); if (r_ != -1 || errno != EFAULT) FAIL("%s gave %ld at %p", #call, r_, a); } while (0)

static void outputs(void)
{
    int zero = (int)SYS(open("/dev/zero", O_RDONLY)), p[2], s[2];
    SYS(pipe(p));
    SYS(socketpair(AF_UNIX, SOCK_DGRAM, 0, s));
    EACH(a) {
        REFUSED(read(zero, a, 8));
        REFUSED(pread(zero, a, 8, 0));
        struct iovec v = { a, 8 };
        REFUSED(readv(zero, &v, 1));
        REFUSED(syscall(SYS_pipe, a));
        REFUSED(syscall(SYS_uname, a));
        REFUSED(syscall(SYS_newfstatat, AT_FDCWD, "/", a, 0));
        REFUSED(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, a));
        REFUSED(syscall(SYS_getrandom, a, 16, 0));
        REFUSED(syscall(SYS_sysinfo, a));
        REFUSED(syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, a, 8));
        REFUSED(syscall(SYS_getresuid, a, a, a));
        EQUAL(1, write(s[0], "x", 1));
        REFUSED(recvfrom(s[1], a, 8, 0, NULL, NULL));
        EQUAL(1, write(p[1], "x", 1));
        REFUSED(syscall(SYS_ioctl, p[0], FIONREAD, a));
        REFUSED(syscall(SYS_epoll_pwait, SYS(epoll_create1(EPOLL_CLOEXEC)), a, 4, 0, NULL, 8) == 0 ? (errno = EFAULT, -1) : -1);
    }
    SYS(close(zero));
}

static void inputs(void)
{
    int s[2], e = (int)SYS(epoll_create1(0)), file = pattern_file(16, 1);
    SYS(socketpair(AF_UNIX, SOCK_DGRAM, 0, s));
    EACH(a) {
        REFUSED(write(sink(), a, 8));
        REFUSED(pwrite(file, a, 8, 0));
        struct iovec v = { a, 8 };
        REFUSED(writev(sink(), &v, 1));
        REFUSED(syscall(SYS_writev, sink(), a, 1));
        REFUSED(syscall(SYS_pwritev, file, &v, 1, 0, 0));
        struct iovec both[2] = { { "good", 4 }, { a, 8 } };
        long n = writev(sink(), both, 2);
        if (n != 4 && !(n == -1 && errno == EFAULT))
            FAIL("%ld bytes of a good and a bad piece at %p", n, a);
        REFUSED(send(s[0], a, 8, 0));
        struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1 };
        REFUSED(sendmsg(s[0], &m, 0));
        struct iovec fine = { "fine", 4 };
        struct msghdr name = { .msg_name = a, .msg_namelen = 16, .msg_iov = &fine, .msg_iovlen = 1 };
        REFUSED(sendmsg(s[0], &name, 0));
        REFUSED(sendto(s[0], "fine", 4, 0, a, 16));
        REFUSED(syscall(SYS_epoll_ctl, e, EPOLL_CTL_ADD, s[1], a));
        REFUSED(syscall(SYS_openat, AT_FDCWD, a, O_RDONLY));
        REFUSED(syscall(SYS_newfstatat, AT_FDCWD, a, &v, 0));
        REFUSED(syscall(SYS_symlink, a, "x"));
        REFUSED(syscall(SYS_memfd_create, a, 0));
        REFUSED(syscall(SYS_nanosleep, a, NULL));
        REFUSED(syscall(SYS_rt_sigprocmask, SIG_BLOCK, a, NULL, 8));
        REFUSED(syscall(SYS_bind, s[0], a, 16));
        REFUSED(syscall(SYS_setsockopt, s[0], SOL_SOCKET, SO_RCVBUF, a, 4));
        REFUSED(syscall(SYS_fcntl, file, F_GETLK, a));
        REFUSED(syscall(SYS_prctl, 15 /* PR_SET_NAME */, a, 0, 0, 0));
        REFUSED(syscall(SYS_futex, a, 0 /* WAIT */, 0, NULL, NULL, 0));
        REFUSED(syscall(SYS_execve, a, NULL, NULL));
    }
    EQUAL(0, write(sink(), (void *)0x080000000000, 0));
}

CASE(outputs_of_main) { outputs(); }
CASE(outputs_of_a_child) { IN_CHILD({ outputs(); }); }
CASE(outputs_under_a_snapshot)
{
    unsigned char *m = map_anonymous(PAGE);
    struct watch w;
    fill(m, PAGE, 30);
    watch_begin(&w, m, PAGE, 30);
    outputs();
    watch_end(&w);
}
CASE(inputs_of_main) { inputs(); }
CASE(inputs_of_a_child) { IN_CHILD({ inputs(); }); }

/* The same calls often enough that they are made without leaving the guest, where that is how it is done. */
CASE(inputs_made_often)
{
    void *a = (void *)0x0a0000000000;
    int file = pattern_file(16, 1);
    for (int i = 0; i < 20000; i++) {
        REFUSED(write(sink(), a, 8));
        REFUSED(pwrite(file, a, 8, 0));
        EQUAL(8, pwrite(file, "all well", 8, 0));
    }
}

static sigjmp_buf back;
static void on_fault(int s) { siglongjmp(back, s); }

/* By loads and stores: what natively is not there. The kernel half, which the guest's kernel needs, is left out: see docs/security.md. */
CASE(loads_and_stores)
{
    static const uintptr_t dead[] = { 0x1000, 0x0a0000000000, 0x300000000000, 0x555555554000, 0x7fffffffe000, 0x800000000000, 0xffff800000000000, 0xfffffffffffff000 };
    signal(SIGSEGV, on_fault);
    for (volatile size_t i = 0; i < sizeof dead / sizeof *dead; i++)
        for (volatile int store = 0; store < 2; store++) {
            if (sigsetjmp(back, 1) == 0) {
                if (store)
                    *(volatile char *)dead[i] = 1;
                else
                    (void)*(volatile char *)dead[i];
                FAIL("%p could be %s", (void *)dead[i], store ? "written" : "read");
            }
        }
    signal(SIGSEGV, SIG_DFL);
}

/* By a jump: the kernel's data, page tables and the frame pool cannot be executed. */
CASE(jumps)
{
    static const uintptr_t dead[] = { 0x1000, 0x080008000000, 0x0800082d4c47, 0x087800000000, 0x088000000000, 0x0a0000000000, 0x300000000000, 0x7fffffffe000 };
    signal(SIGSEGV, on_fault);
    for (volatile size_t i = 0; i < sizeof dead / sizeof *dead; i++)
        if (sigsetjmp(back, 1) == 0) {
            ((void (*)(void))dead[i])();
            FAIL("%p could be executed", (void *)dead[i]);
        }
    signal(SIGSEGV, SIG_DFL);
}

/* ---- descriptors ---- */

static int listed(const char *folder)
{
    DIR *d = opendir(folder);
    int n = 0;
    CHECK(d != NULL);
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (e->d_name[0] != '.' && atoi(e->d_name) != dirfd(d))
            n++;
    closedir(d);
    return n;
}

static void descriptors(void)
{
    SYS(syscall(SYS_close_range, 3, ~0U, 0));
    printf("%d descriptors are listed\n", listed("/proc/self/fd"));
    printf("%d descriptors have information\n", listed("/proc/self/fdinfo"));
    int low = (int)SYS(dup(0)), good = 0;
    SYS(close(low));
    for (int fd = low; fd < 1 << 16; fd++) {
        char name[40], target[10];
        if (fcntl(fd, F_GETFD) != -1 || errno != EBADF)
            FAIL("descriptor %d is open", fd);
        EQUAL(-1, dup(fd));
        EQUAL(EBADF, errno);
        EQUAL(-1, close(fd));
        EQUAL(EBADF, errno);
        if (fd % 64 == 0 || fd > 1000) {
            snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
            EQUAL(-1, readlink(name, target, sizeof target));
            EQUAL(ENOENT, errno);
            EQUAL(-1, open(name, O_RDONLY));
            EQUAL(ENOENT, errno);
        }
        if (fd > 1000)
            fd += 10;
        good++;
    }
    CHECK(good > 1000);
    /* what closes everything leaves the program running */
    SYS(syscall(SYS_close_range, (unsigned)low, ~0U, 0));
    for (int fd = low; fd < 2000; fd++)
        close(fd);
    EQUAL(low, dup(0));
    SYS(close(low));
    *(char *)map_anonymous(1 << 20) = 1;
    IN_CHILD({ _exit(0); });
}

CASE(descriptors_of_main) { descriptors(); }
CASE(descriptors_of_a_child) { IN_CHILD({ descriptors(); fflush(NULL); }); }

CASE(descriptors_cannot_be_replaced)
{
    struct { int fd; } seen[64];
    int n = 0;
    /* dup2 onto any number works or says that it cannot: afterwards everything still runs */
    for (int fd = 3; fd < 1024 && n < 64; fd += 17)
        if (dup2(0, fd) == fd)
            seen[n++].fd = fd;
    CHECK(n > 10);
    for (int i = 0; i < n; i++)
        SYS(close(seen[i].fd));
    IN_CHILD({ _exit(0); });
    for (int fd = 1024; fd < 70000; fd += 501)
        if (dup2(0, fd) == fd)
            SYS(close(fd));
    IN_CHILD({ _exit(0); });
}
