/* Small writes of a forked child to a file of its own: collected or not, the file and what anybody can see of it are the same. */
#include "testlib.h"
#include <sys/resource.h>
#include <sys/time.h>

#define RECORD 700
static char path[] = "./writes.out";

static void record(unsigned char *to, long i) { fill(to, RECORD, 5000 + (uint64_t)i); }

static int create(void) { return (int)SYS(open(path, O_RDWR | O_CREAT | O_TRUNC, 0600)); }

static void append(int fd, long from, long count)
{
    unsigned char bytes[RECORD];
    for (long i = from; i < from + count; i++) {
        record(bytes, i);
        EQUAL(RECORD, write(fd, bytes, RECORD));
    }
}

/* The file holds `count` records and nothing else; with `at_least` it may hold more, the last one in part. */
static void holds(long count, int at_least)
{
    int fd = (int)SYS(open(path, O_RDONLY));
    long size = SYS(lseek(fd, 0, SEEK_END));
    if (at_least ? size < count * RECORD : size != count * RECORD)
        FAIL("the file has %ld bytes, not %ld", size, count * RECORD);
    unsigned char bytes[RECORD], want[RECORD];
    for (long i = 0; i < size / RECORD; i++) {
        EQUAL(RECORD, pread(fd, bytes, RECORD, i * RECORD));
        record(want, i);
        if (memcmp(bytes, want, RECORD) != 0)
            FAIL("record %ld is wrong", i);
    }
    SYS(close(fd));
}

CASE(all_there_after_exit)
{
    IN_CHILD(append(create(), 0, 5000));
    holds(5000, 0);
}

CASE(all_there_after_close)
{
    IN_CHILD(int fd = create(); append(fd, 0, 3001); SYS(close(fd)); holds(3001, 0));
}

CASE(seen_through_another_descriptor)
{
    IN_CHILD(
        int fd = create();
        for (int i = 1; i <= 40; i++) {
            append(fd, (i - 1) * 50, 50);
            holds(i * 50, 0);
            EQUAL(i * 50 * RECORD, lseek(fd, 0, SEEK_CUR));
        });
}

CASE(rewritten_in_place)
{
    IN_CHILD(
        int fd = create();
        append(fd, 0, 100);
        unsigned char bytes[RECORD];
        memset(bytes, 0, RECORD);
        EQUAL(RECORD, pwrite(fd, bytes, RECORD, 50 * RECORD));
        append(fd, 100, 100);
        record(bytes, 50);
        SYS(lseek(fd, 50 * RECORD, SEEK_SET));
        EQUAL(RECORD, write(fd, bytes, RECORD));
        SYS(lseek(fd, 0, SEEK_END));
        append(fd, 200, 100);
        SYS(ftruncate(fd, 250 * RECORD)));
    holds(250, 0);
}

CASE(two_files_in_turn)
{
    IN_CHILD(
        int one = create(), other = (int)SYS(open("./writes.other", O_WRONLY | O_CREAT | O_TRUNC, 0600));
        for (int i = 0; i < 300; i++) {
            append(one, i, 1);
            append(other, i * 7, 7);
        });
    holds(300, 0);
    SYS(rename("./writes.other", path));
    holds(2100, 0);
}

CASE(a_second_descriptor_for_it)
{
    IN_CHILD(
        int fd = create();
        append(fd, 0, 100);
        int twin = (int)SYS(dup(fd));
        for (int i = 0; i < 200; i++)
            append(i & 1 ? fd : twin, 100 + i, 1));
    holds(300, 0);
}

CASE(mapped)
{
    IN_CHILD(
        int fd = create();
        append(fd, 0, 100);
        unsigned char want[RECORD], *map = mmap(NULL, 1000 * RECORD, PROT_READ, MAP_SHARED, fd, 0);
        CHECK(map != MAP_FAILED);
        for (int i = 100; i < 400; i++) {
            append(fd, i, 1);
            record(want, i);
            CHECK(memcmp(map + (long)i * RECORD, want, RECORD) == 0);
        });
    holds(400, 0);
}

CASE(child_of_the_child_goes_on)
{
    IN_CHILD(
        int fd = create();
        append(fd, 0, 333);
        pid_t pid = (pid_t)SYS(fork());
        if (pid == 0) {
            append(fd, 333, 333);
            _exit(9);
        }
        expect_exit(pid, 9);
        append(fd, 666, 334));
    holds(1000, 0);
}

CASE(told_by_pipe)
{
    int ready[2];
    SYS(pipe(ready));
    fflush(NULL);
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0) {
        int fd = create();
        for (int i = 0; i < 60; i++) {
            append(fd, i * 20, 20);
            EQUAL(1, write(ready[1], "r", 1));
        }
        _exit(12);
    }
    for (int i = 1; i <= 60; i++) {
        char c;
        EQUAL(1, read(ready[0], &c, 1));
        holds(i * 20, 1);
    }
    expect_exit(pid, 12);
    holds(1200, 0);
}

CASE(seen_while_the_child_computes)
{
    int go[2];
    SYS(pipe(go));
    fflush(NULL);
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0) {
        int fd = create();
        append(fd, 0, 200);
        EQUAL(1, write(go[1], "g", 1));
        append(fd, 200, 3);
        for (volatile long i = 0;; i++) {}
    }
    char c;
    EQUAL(1, read(go[0], &c, 1));
    struct stat s;
    WAIT_UNTIL(stat(path, &s) == 0 && s.st_size == 203 * RECORD);
    SYS(kill(pid, SIGKILL));
    int status;
    EQUAL(pid, waitpid(pid, &status, 0));
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    holds(203, 0);
}

CASE(killed_while_writing)
{
    for (int round = 0; round < 10; round++) {
        int go[2];
        SYS(pipe(go));
        fflush(NULL);
        pid_t pid = (pid_t)SYS(fork());
        if (pid == 0) {
            int fd = create();
            append(fd, 0, 100);
            EQUAL(1, write(go[1], "g", 1));
            for (long i = 100;; i++)
                append(fd, i, 1);
        }
        char c;
        EQUAL(1, read(go[0], &c, 1));
        usleep(1000 * round);
        SYS(kill(pid, round & 1 ? SIGKILL : SIGTERM));
        EQUAL(pid, waitpid(pid, NULL, 0));
        holds(100, 1);
        SYS(close(go[0]));
        SYS(close(go[1]));
    }
}

static volatile long alarms;
static void on_alarm(int signal) { (void)signal; alarms++; }

CASE(under_signals)
{
    IN_CHILD(
        struct sigaction action = { .sa_handler = on_alarm, .sa_flags = SA_RESTART };
        SYS(sigaction(SIGALRM, &action, NULL));
        struct itimerval often = { { 0, 500 }, { 0, 500 } };
        SYS(setitimer(ITIMER_REAL, &often, NULL));
        append(create(), 0, 30000));
    holds(30000, 0);
}

CASE(from_pages_never_touched)
{
    IN_CHILD(
        int fd = create();
        append(fd, 0, 10);
        unsigned char *zeros = map_anonymous(200 * PAGE);
        for (int i = 0; i < 190; i++)
            EQUAL(RECORD, write(fd, zeros + i * PAGE + PAGE - 100, RECORD));
        EQUAL(200 * RECORD, lseek(fd, 0, SEEK_END));
        unsigned char back[RECORD];
        for (int i = 10; i < 200; i++) {
            EQUAL(RECORD, pread(fd, back, RECORD, i * RECORD));
            for (int j = 0; j < RECORD; j++)
                EQUAL(0, back[j]);
        });
}

CASE(bad_addresses)
{
    IN_CHILD(
        int fd = create();
        append(fd, 0, 20);
        char *closed = mmap(NULL, 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        char *volatile bad[] = { (char *)8, closed, (char *)0x7fffffffffff, (char *)0x8000000000001000, (char *)0x080000000000, (char *)-5 };
        for (int round = 0; round < 3; round++)
            for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
                EQUAL(-1, write(fd, bad[i], 100));
                EQUAL(EFAULT, errno);
                append(fd, 20 + round * 60 + (int)i * 10, 10);
            });
    holds(200, 0);
}

CASE(no_room)
{
    struct rlimit before, limit;
    SYS(signal(SIGXFSZ, SIG_IGN) == SIG_ERR ? -1 : 0);
    SYS(getrlimit(RLIMIT_FSIZE, &before));
    limit = before;
    limit.rlim_cur = 50 * RECORD;
    SYS(setrlimit(RLIMIT_FSIZE, &limit));
    IN_CHILD(
        int fd = create();
        append(fd, 0, 50);
        unsigned char bytes[RECORD];
        record(bytes, 50);
        EQUAL(-1, write(fd, bytes, RECORD));
        EQUAL(EFBIG, errno));
    SYS(setrlimit(RLIMIT_FSIZE, &before));
    holds(50, 0);
}

CASE(with_shared_memory)
{
    volatile long *written = map_shared(PAGE);
    fflush(NULL);
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0) {
        int fd = create();
        for (long i = 1; i <= 2000; i++) {
            append(fd, i - 1, 1);
            *written = i;
        }
        _exit(3);
    }
    for (long seen = 0; seen < 2000;) {
        seen = *written;
        struct stat s;
        if (seen > 0) {
            SYS(stat(path, &s));
            CHECK(s.st_size >= seen * RECORD);
        }
    }
    expect_exit(pid, 3);
    holds(2000, 0);
}
