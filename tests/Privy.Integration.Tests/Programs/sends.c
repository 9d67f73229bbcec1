/* Small writes to connections, as a server makes them: they may be made a little later than they return, and nobody may be able to tell. The first thread is
 * the server; its clients are threads that wait in blocking calls. SIGPIPE is ignored, as servers do. */
#include "testlib.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

void before_case(void) { signal(SIGPIPE, SIG_IGN); }

/* A connection over the loopback interface: the server's end does not wait. */
static void connection(int *server, int *client)
{
    int listener = (int)SYS(socket(AF_INET, SOCK_STREAM, 0));
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof address;
    SYS(bind(listener, (struct sockaddr *)&address, length));
    SYS(listen(listener, 8));
    SYS(getsockname(listener, (struct sockaddr *)&address, &length));
    *client = (int)SYS(socket(AF_INET, SOCK_STREAM, 0));
    SYS(connect(*client, (struct sockaddr *)&address, length));
    *server = (int)SYS(accept4(listener, NULL, NULL, SOCK_NONBLOCK));
    int one = 1;
    SYS(setsockopt(*server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one));
    SYS(close(listener));
}

/* ---- a server with many clients ---- */

enum { clients = 24, requests = 400, late = 80, together = 8, longest = 9000 };
struct request { uint32_t client, number, length; };

/* Some are slow: they ask for much at once, and receive it late. */
static int is_slow(uint32_t client) { return client % 6 == 5; }
static uint32_t requests_of(uint32_t client) { return is_slow(client) ? late : requests; }

static void receive_all(int fd, void *to, size_t length)
{
    for (size_t got = 0; got < length;) {
        ssize_t n = SYS(read(fd, (char *)to + got, length - got));
        if (n == 0)
            FAIL("end of the stream after %zu of %zu bytes", got, length);
        got += (size_t)n;
    }
}

struct client { pthread_t thread; int fd; uint32_t index; };

static void *client_loop(void *argument)
{
    struct client *c = argument;
    static __thread unsigned char answer[longest];
    struct request some[together];
    uint32_t count = is_slow(c->index) ? together : 4;
    for (uint32_t i = 0; i < requests_of(c->index); i += count) {
        for (uint32_t j = 0; j < count; j++)
            some[j] = (struct request){ c->index, i + j, 1 + (uint32_t)(mix(c->index * 1000 + i + j) % longest) };
        EQUAL(count * sizeof some[0], write(c->fd, some, count * sizeof some[0]));
        if (is_slow(c->index))
            sleep_ms(20);
        for (uint32_t j = 0; j < count; j++) {
            receive_all(c->fd, answer, some[j].length);
            HOLDS(answer, 0, some[j].length, c->index * 100000UL + i + j);
        }
    }
    return NULL;
}

struct served { int fd; size_t have; char in[4 * sizeof(struct request)]; unsigned char *rest; size_t rest_length; };

/* As much as there is room for, by each kind of call in turn. */
static size_t try_write(int fd, const unsigned char *bytes, size_t length, uint32_t kind)
{
    struct iovec parts[2] = { { (void *)bytes, length / 3 }, { (void *)(bytes + length / 3), length - length / 3 } };
    ssize_t n = kind % 8 == 6 ? writev(fd, parts, 2) : kind % 8 == 7 ? send(fd, bytes, length, MSG_NOSIGNAL) : write(fd, bytes, length);
    if (n == -1) {
        EQUAL(EAGAIN, errno);
        return 0;
    }
    return (size_t)n;
}

static void wait_for(int epoll, struct served *s, uint32_t events)
{
    struct epoll_event event = { events, { .ptr = s } };
    SYS(epoll_ctl(epoll, EPOLL_CTL_MOD, s->fd, &event));
}

static void answer(int epoll, struct served *s, const unsigned char *bytes, size_t length, uint32_t kind)
{
    size_t sent = s->rest_length != 0 ? 0 : try_write(s->fd, bytes, length, kind);
    if (sent == length)
        return;
    s->rest = realloc(s->rest, s->rest_length + length - sent);
    memcpy(s->rest + s->rest_length, bytes + sent, length - sent);
    s->rest_length += length - sent;
    wait_for(epoll, s, EPOLLIN | EPOLLOUT);
}

CASE(every_client_gets_its_answers_in_order)
{
    static struct client client[clients];
    static struct served served[clients];
    static unsigned char bytes[longest];
    int epoll = (int)SYS(epoll_create1(0));
    for (uint32_t i = 0; i < clients; i++) {
        connection(&served[i].fd, &client[i].fd);
        client[i].index = i;
        struct epoll_event event = { EPOLLIN, { .ptr = &served[i] } };
        SYS(epoll_ctl(epoll, EPOLL_CTL_ADD, served[i].fd, &event));
        EQUAL(0, pthread_create(&client[i].thread, NULL, client_loop, &client[i]));
    }
    for (uint32_t answered = 0, open = clients; open > 0;) {
        struct epoll_event event[clients];
        int n = (int)SYS(epoll_wait(epoll, event, clients, 10000));
        if (n == 0)
            FAIL("no client asks, %u answered", answered);
        for (int i = 0; i < n; i++) {
            struct served *s = event[i].data.ptr;
            if ((event[i].events & EPOLLOUT) != 0 && s->rest_length != 0) {
                size_t sent = try_write(s->fd, s->rest, s->rest_length, 0);
                memmove(s->rest, s->rest + sent, s->rest_length -= sent);
                if (s->rest_length == 0)
                    wait_for(epoll, s, EPOLLIN);
            }
            if ((event[i].events & EPOLLIN) == 0)
                continue;
            ssize_t got = read(s->fd, s->in + s->have, sizeof s->in - s->have);
            if (got == -1) {
                EQUAL(EAGAIN, errno);
                continue;
            }
            s->have += (size_t)got;
            while (s->have >= sizeof(struct request)) {
                struct request r;
                memcpy(&r, s->in, sizeof r);
                memmove(s->in, s->in + sizeof r, s->have -= sizeof r);
                for (uint32_t j = 0; j < r.length; j++)
                    bytes[j] = pattern(r.client * 100000UL + r.number, j);
                answer(epoll, s, bytes, r.length, r.number);
                answered++;
                if (r.number == requests_of(r.client) - 1)
                    open--;
            }
        }
    }
    /* What is left of the slow ones' answers. */
    for (int left = 1; left != 0;) {
        left = 0;
        for (int i = 0; i < clients; i++) {
            struct served *s = &served[i];
            if (s->rest_length == 0)
                continue;
            size_t sent = try_write(s->fd, s->rest, s->rest_length, 0);
            memmove(s->rest, s->rest + sent, s->rest_length -= sent);
            left += s->rest_length != 0;
        }
    }
    for (int i = 0; i < clients; i++) {
        EQUAL(0, pthread_join(client[i].thread, NULL));
        SYS(close(client[i].fd));
        SYS(close(served[i].fd));
        free(served[i].rest);
    }
    SYS(close(epoll));
}

/* ---- one connection, once the writes to it are put off ---- */

struct receiver { pthread_t thread; int fd; size_t received; int error; volatile size_t seen; volatile int hold; };

static void *receive_to_the_end(void *argument)
{
    struct receiver *r = argument;
    unsigned char block[4096];
    for (;;) {
        while (r->hold)
            usleep(100);
        ssize_t n = read(r->fd, block, sizeof block);
        if (n <= 0) {
            r->error = n == 0 ? 0 : errno;
            return NULL;
        }
        HOLDS(block, r->received, (size_t)n, 1);
        r->received += (size_t)n;
        r->seen = r->received;
    }
}

/* So many small writes of a stream's bytes that the descriptor is known for them, among calls that keep the server busy. */
static size_t write_stream(int fd, size_t from, size_t bytes, size_t piece)
{
    static unsigned char block[16384];
    char none;
    int quiet[2];
    SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, quiet));
    for (size_t sent = 0; sent < bytes;) {
        size_t length = bytes - sent < piece ? bytes - sent : piece;
        for (size_t j = 0; j < length; j++)
            block[j] = pattern(1, from + sent + j);
        ssize_t n = write(fd, block, length);
        if (n == -1) {
            EQUAL(EAGAIN, errno);
            struct pollfd room = { fd, POLLOUT, 0 };
            SYS(poll(&room, 1, 1000));
            continue;
        }
        sent += (size_t)n;
        if (sent / piece % 16 == 0)
            for (int i = 0; i < 20; i++)
                EQUAL(-1, read(quiet[0], &none, 1));
    }
    SYS(close(quiet[0]));
    SYS(close(quiet[1]));
    return from + bytes;
}

static void start(struct receiver *r, int *server)
{
    *r = (struct receiver){ 0 };
    connection(server, &r->fd);
    EQUAL(0, pthread_create(&r->thread, NULL, receive_to_the_end, r));
}

static void finish(struct receiver *r, size_t expected)
{
    EQUAL(0, pthread_join(r->thread, NULL));
    EQUAL(expected, r->received);
    EQUAL(0, r->error);
    SYS(close(r->fd));
}

CASE(all_of_it_arrives_before_the_end)
{
    for (int round = 0; round < 20; round++) {
        struct receiver r;
        int fd;
        start(&r, &fd);
        size_t sent = write_stream(fd, 0, 300000 + (size_t)round * 7001, 333 + (size_t)round * 100);
        if (round % 2 == 0) {
            SYS(shutdown(fd, SHUT_WR));
            finish(&r, sent);
            SYS(close(fd));
        } else {
            SYS(close(fd));
            finish(&r, sent);
        }
    }
}

CASE(it_arrives_while_the_server_computes)
{
    struct receiver r;
    int fd;
    start(&r, &fd);
    size_t sent = write_stream(fd, 0, 200000, 100);
    for (int i = 0; i < 200; i++) {
        unsigned char more[100];
        for (size_t j = 0; j < sizeof more; j++)
            more[j] = pattern(1, sent + j);
        EQUAL(sizeof more, write(fd, more, sizeof more));
        sent += sizeof more;
        SPIN_UNTIL(r.seen == sent);
    }
    SYS(close(fd));
    finish(&r, sent);
}

CASE(a_full_connection_takes_no_more_and_loses_nothing)
{
    for (int i = 0; i < 30; i++) {
        struct receiver r;
        int fd, room = 32768;
        unsigned char piece[700];
        start(&r, &fd);
        SYS(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room));
        size_t sent = write_stream(fd, 0, 40000 + (size_t)i * 100, 100);
        r.hold = 1;
        for (size_t limit = sent + (32 << 20);;) {
            for (size_t j = 0; j < sizeof piece; j++)
                piece[j] = pattern(1, sent + j);
            ssize_t n = write(fd, piece, sizeof piece);
            if (n == -1) {
                EQUAL(EAGAIN, errno);
                break;
            }
            if ((sent += (size_t)n) > limit)
                FAIL("there is no end to what a connection takes that nobody receives");
        }
        if (i % 3 == 0)
            SYS(shutdown(fd, SHUT_WR));
        if (i % 3 == 1)
            SYS(close(fd));
        r.hold = 0;
        if (i % 3 == 2) {
            WAIT_UNTIL(r.seen == sent);
            sent = write_stream(fd, sent, 3000, 100);
        }
        if (i % 3 != 1)
            SYS(close(fd));
        finish(&r, sent);
    }
}

static void *write_alike(void *argument)
{
    int *fd = argument;
    write_stream(fd[0], (size_t)fd[1], 4000, 1000);
    return NULL;
}

CASE(another_thread_writes_behind_it)
{
    struct receiver r;
    int fd;
    start(&r, &fd);
    size_t sent = write_stream(fd, 0, 200000, 100);
    for (int i = 0; i < 100; i++) {
        sent = write_stream(fd, sent, 2000, 100);
        int argument[2] = { fd, (int)sent };
        pthread_t thread;
        EQUAL(0, pthread_create(&thread, NULL, write_alike, argument));
        EQUAL(0, pthread_join(thread, NULL));
        sent += 4000;
    }
    SYS(close(fd));
    finish(&r, sent);
}

static volatile int turn;

static void *close_at_turn(void *argument)
{
    SPIN_UNTIL(turn == 1);
    SYS(close(*(int *)argument));
    turn = 2;
    return NULL;
}

CASE(another_thread_closes_and_the_number_is_used_again)
{
    for (int i = 0; i < 40; i++) {
        struct receiver r, next;
        int fd, other;
        pthread_t thread;
        turn = 0;
        start(&r, &fd);
        EQUAL(0, pthread_create(&thread, NULL, close_at_turn, &fd));
        size_t sent = write_stream(fd, 0, 60000, 50);
        static unsigned char last[64];
        for (size_t j = 0; j < sizeof last; j++)
            last[j] = pattern(1, sent + j);
        /* No call of this thread comes between the write and the other's close. */
        EQUAL(sizeof last, write(fd, last, sizeof last));
        turn = 1;
        SPIN_UNTIL(turn == 2);
        start(&next, &other);
        size_t more = write_stream(other, 0, 5000, 50);
        SYS(close(other));
        finish(&next, more);
        finish(&r, sent + sizeof last);
        EQUAL(0, pthread_join(thread, NULL));
    }
}

CASE(who_writes_to_himself_reads_it_at_once)
{
    int server, client;
    connection(&server, &client);
    SYS(fcntl(client, F_SETFL, O_NONBLOCK));
    for (uint64_t i = 0; i < 20000; i++) {
        uint64_t in = 0;
        EQUAL(8, write(server, &i, 8));
        EQUAL(8, read(client, &in, 8));
        EQUAL(i, in);
    }
    SYS(close(server));
    SYS(close(client));
}

CASE(a_peer_that_is_gone_is_an_error_soon)
{
    for (int i = 0; i < 20; i++) {
        int server, client;
        struct linger at_once = { 1, 0 };
        connection(&server, &client);
        char bytes[100] = { 0 }, room[20000];
        for (int n = 0; n < 300; n++) {
            EQUAL(100, write(server, bytes, 100));
            if (n % 100 == 99)
                receive_all(client, room, 10000);
        }
        if (i % 2 == 0)
            SYS(setsockopt(client, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once));
        SYS(close(client));
        int writes = 0;
        /* getppid lets what was put off be sent, as any other call does. */
        while (write(server, bytes, 100) == 100 && writes < 1000) {
            getppid();
            writes++;
        }
        CHECK(writes < 1000);
        CHECK(errno == EPIPE || errno == ECONNRESET);
        EQUAL(-1, write(server, bytes, 100));
        EQUAL(EPIPE, errno);
        SYS(close(server));
    }
}

CASE(bad_addresses_are_the_writers)
{
    struct receiver r;
    int fd;
    start(&r, &fd);
    size_t sent = write_stream(fd, 0, 100000, 100);
    char *two = map_anonymous(2 * PAGE), *volatile low = (char *)8, *volatile high = (char *)0x7fffffffffff0000;
    SYS(mprotect(two + PAGE, PAGE, PROT_NONE));
    for (int i = 0; i < 10; i++) {
        EQUAL(-1, write(fd, two + PAGE, 100));
        EQUAL(EFAULT, errno);
        EQUAL(-1, write(fd, low, 100));
        EQUAL(EFAULT, errno);
        EQUAL(-1, write(fd, high, 100));
        EQUAL(EFAULT, errno);
        EQUAL(0, write(fd, two, 0));
        sent = write_stream(fd, sent, 3000, 100);
    }
    SYS(close(fd));
    finish(&r, sent);
}

CASE(forks_in_between_send_nothing_twice)
{
    struct receiver r;
    int fd;
    start(&r, &fd);
    size_t sent = write_stream(fd, 0, 100000, 100);
    for (int i = 0; i < 30; i++) {
        sent = write_stream(fd, sent, 1500, 100);
        pid_t pid = (pid_t)SYS(fork());
        if (pid == 0) {
            close(fd);
            _exit(7);
        }
        sent = write_stream(fd, sent, 1500, 100);
        expect_exit(pid, 7);
    }
    SYS(close(fd));
    finish(&r, sent);
}

/* ---- reads after events, in every way there is ---- */

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static volatile int reader_turn;
static volatile ssize_t reader_result;
static int reader_fd;
static unsigned char reader_block[4096];

static void *read_at_turn(void *argument)
{
    (void)argument;
    for (;;) {
        SPIN_UNTIL(reader_turn != 0);
        if (reader_turn == 2)
            return NULL;
        reader_result = read(reader_fd, reader_block, sizeof reader_block);
        reader_turn = 0;
    }
}

enum { longest_piece = 40000 };
struct sender { pthread_t thread; int fd; size_t bytes, piece; };

static void *send_in_pieces(void *argument)
{
    struct sender *s = argument;
    unsigned char block[longest_piece], answer[64];
    for (size_t sent = 0; sent < s->bytes;) {
        size_t length = 1 + mix(sent) % s->piece;
        if (length > s->bytes - sent)
            length = s->bytes - sent;
        for (size_t j = 0; j < length; j++)
            block[j] = pattern(2, sent + j);
        for (size_t done = 0; done < length;)
            done += (size_t)SYS(write(s->fd, block + done, length - done));
        sent += length;
        /* What the server says to most events: it is not to have too much at once. */
        struct pollfd said = { s->fd, POLLIN, 0 };
        SYS(poll(&said, 1, 3));
        while (recv(s->fd, answer, sizeof answer, MSG_DONTWAIT) > 0) {}
    }
    SYS(shutdown(s->fd, SHUT_WR));
    while (SYS(read(s->fd, answer, sizeof answer)) != 0) {}
    return NULL;
}

CASE(what_was_received_is_read_once_whoever_reads_how)
{
    struct sender s = { .bytes = 2500000, .piece = 3000 };
    int fd, epoll = (int)SYS(epoll_create1(0));
    pthread_t reader;
    connection(&fd, &s.fd);
    EQUAL(0, pthread_create(&s.thread, NULL, send_in_pieces, &s));
    EQUAL(0, pthread_create(&reader, NULL, read_at_turn, NULL));
    struct epoll_event event = { EPOLLIN, { .u64 = 0x123456789abcULL } };
    SYS(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
    unsigned char *block = map_anonymous(3 * PAGE);
    SYS(mprotect(block + 2 * PAGE, PAGE, PROT_NONE));
    size_t received = 0;
    for (uint32_t round = 0;; round++) {
        unsigned char peeked[100];
        struct iovec parts[2] = { { block + 100, 50 }, { block, 77 } };
        int there, copy;
        ssize_t n, looked;
        EQUAL(1, SYS(epoll_wait(epoll, &event, 1, 20000)));
        EQUAL(0x123456789abcULL, event.data.u64);
        if (round % 16 != 2)
            EQUAL(8, write(fd, "answer 8", 8));
        switch (round % 16) {
        default:
            n = read(fd, block, 2 * PAGE);
            break;
        case 3:
            n = read(fd, block, 7);
            break;
        case 5:
            SYS(ioctl(fd, FIONREAD, &there));
            n = read(fd, block, there == 0 ? 1 : (size_t)there > 2 * PAGE ? 2 * PAGE : (size_t)there);
            if (there != 0 && (size_t)there <= 2 * PAGE)
                EQUAL(there, n);
            break;
        case 7:
            looked = recv(fd, peeked, sizeof peeked, MSG_PEEK);
            n = read(fd, block, 2 * PAGE);
            CHECK(n >= looked);
            CHECK(memcmp(peeked, block, (size_t)looked) == 0);
            break;
        case 9:
            n = readv(fd, parts, 2);
            if (n > 50)
                memmove(block + 150, block, (size_t)n - 50);
            memmove(block, block + 100, (size_t)n);
            break;
        case 11:
            /* 0 where there is only the end to be read. Late, as it makes what follows be read as it always was. */
            n = round < 600 ? 0 : read(fd, block + 2 * PAGE, PAGE);
            CHECK(n == 0 || (n == -1 && errno == EFAULT));
            n = read(fd, block, 2 * PAGE);
            break;
        case 13:
            /* Late: what a second thread has to do with is read as it always was from then on. */
            if (round < 700) {
                n = read(fd, block, PAGE);
                break;
            }
            reader_fd = fd;
            reader_turn = 1;
            SPIN_UNTIL(reader_turn == 0);
            n = reader_result;
            memcpy(block, reader_block, n < 0 ? 0 : (size_t)n);
            break;
        case 15:
            if (round < 1000) {
                n = recv(fd, block, 2 * PAGE, 0);
                break;
            }
            copy = (int)SYS(dup(fd));
            n = read(copy, block, 2 * PAGE);
            SYS(close(copy));
        }
        if (n == -1)
            FAIL("round %u", round);
        if (n == 0)
            break;
        HOLDS(block, received, (size_t)n, 2);
        received += (size_t)n;
    }
    EQUAL(s.bytes, received);
    SYS(close(fd));
    EQUAL(0, pthread_join(s.thread, NULL));
    reader_turn = 2;
    EQUAL(0, pthread_join(reader, NULL));
    SYS(close(s.fd));
    SYS(close(epoll));
}

CASE(what_was_received_stays_while_the_program_computes)
{
    enum { streams = 10, each = 500000 };
    struct sender s[streams];
    int fd[streams], open = streams, epoll = (int)SYS(epoll_create1(0));
    size_t received[streams] = { 0 };
    pthread_t reader;
    reader_turn = 0;
    EQUAL(0, pthread_create(&reader, NULL, read_at_turn, NULL));
    for (uint32_t i = 0; i < streams; i++) {
        /* Some send more than is received ahead. */
        s[i] = (struct sender){ .bytes = each, .piece = i % 3 == 0 ? longest_piece : 3000 };
        connection(&fd[i], &s[i].fd);
        struct epoll_event event = { EPOLLIN, { .u32 = i } };
        SYS(epoll_ctl(epoll, EPOLL_CTL_ADD, fd[i], &event));
        EQUAL(0, pthread_create(&s[i].thread, NULL, send_in_pieces, &s[i]));
    }
    static const size_t rooms[] = { 16384, 20000, 5000 };
    unsigned char *block = map_anonymous(5 * PAGE);
    uint32_t reads = 0;
    while (open > 0) {
        struct epoll_event events[streams];
        int count = (int)SYS(epoll_wait(epoll, events, streams, 20000));
        CHECK(count > 0);
        for (int k = 0; k < count; k++) {
            uint32_t i = events[k].data.u32;
            /* All of them together take longer than anything is put off. */
            double end = now_ms() + 0.3;
            while (now_ms() < end) {}
            ssize_t n;
            if (i == 4 && reads > 500) {
                /* What another thread reads is read as it always was from then on, on this connection. */
                reader_fd = fd[i];
                reader_turn = 1;
                SPIN_UNTIL(reader_turn == 0);
                n = reader_result;
                memcpy(block, reader_block, n < 0 ? 0 : (size_t)n);
            } else {
                n = read(fd[i], block, rooms[reads % 3]);
            }
            if (n == -1)
                FAIL("read %u, of connection %u", reads, i);
            HOLDS(block, received[i], (size_t)n, 2);
            received[i] += (size_t)n;
            reads++;
            if (n != 0) {
                EQUAL(8, write(fd[i], "answer 8", 8));
                continue;
            }
            EQUAL(each, received[i]);
            SYS(close(fd[i]));
            EQUAL(0, pthread_join(s[i].thread, NULL));
            SYS(close(s[i].fd));
            open--;
        }
    }
    reader_turn = 2;
    EQUAL(0, pthread_join(reader, NULL));
    SYS(close(epoll));
}

CASE(a_wait_for_events_ends_at_its_time)
{
    int fd, client, epoll = (int)SYS(epoll_create1(0));
    connection(&fd, &client);
    struct epoll_event event = { EPOLLIN, { .fd = fd } };
    SYS(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
    for (int i = 0; i < 60; i++) {
        char byte = (char)i, back;
        EQUAL(1, write(client, &byte, 1));
        EQUAL(1, SYS(epoll_wait(epoll, &event, 1, 20000)));
        EQUAL(1, read(fd, &back, 1));
        EQUAL(byte, back);
        EQUAL(1, write(fd, &back, 1));
        /* The second one, too. */
        EQUAL(0, SYS(epoll_wait(epoll, &event, 1, 15)));
        EQUAL(0, SYS(epoll_wait(epoll, &event, 1, 5)));
        EQUAL(1, read(client, &back, 1));
        EQUAL(byte, back);
    }
    SYS(close(fd));
    SYS(close(client));
    SYS(close(epoll));
}

CASE(snapshots_keep_what_a_read_overwrites)
{
    struct sender s = { .bytes = 400000, .piece = 3000 };
    int fd, epoll = (int)SYS(epoll_create1(0));
    connection(&fd, &s.fd);
    EQUAL(0, pthread_create(&s.thread, NULL, send_in_pieces, &s));
    struct epoll_event event = { EPOLLIN, { .fd = fd } };
    SYS(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
    enum { pages = 16 };
    unsigned char *block = map_anonymous(pages * PAGE);
    size_t received = 0;
    pid_t pid = 0;
    for (uint32_t round = 0;; round++) {
        if (round % 40 == 20) {
            if (pid != 0)
                expect_exit(pid, 5);
            fflush(NULL);
            pid = (pid_t)SYS(fork());
            if (pid == 0) {
                static unsigned char first[pages * PAGE];
                memcpy(first, block, sizeof first);
                for (int look = 0; look < 10; look++) {
                    if (memcmp(first, block, sizeof first) != 0)
                        FAIL("look %d: the child sees its memory change", look);
                    usleep(300);
                }
                _exit(5);
            }
        }
        EQUAL(1, SYS(epoll_wait(epoll, &event, 1, 20000)));
        EQUAL(4, write(fd, "more", 4));
        unsigned char *to = block + round % pages * PAGE;
        ssize_t n = SYS(read(fd, to, PAGE));
        if (n == 0)
            break;
        HOLDS(to, received, (size_t)n, 2);
        received += (size_t)n;
    }
    EQUAL(s.bytes, received);
    if (pid != 0)
        expect_exit(pid, 5);
    SYS(close(fd));
    EQUAL(0, pthread_join(s.thread, NULL));
    SYS(close(s.fd));
    SYS(close(epoll));
}

/* The process ends right after its last write, without closing anything. */
CASE(the_end_of_the_process_loses_nothing)
{
    int server, client;
    connection(&server, &client);
    fflush(NULL);
    pid_t pid = (pid_t)SYS(fork());
    if (pid == 0) {
        close(client);
        size_t sent = write_stream(server, 0, 50000, 100);
        (void)sent;
        _exit(3);
    }
    SYS(close(server));
    struct receiver r = { .fd = client };
    receive_to_the_end(&r);
    EQUAL(50000, r.received);
    expect_exit(pid, 3);
    SYS(close(client));
}
