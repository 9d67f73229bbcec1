/* System calls that are made often from the same place: Privy may change the code there so that they need no SYSCALL. The program must not notice but by reading its own code. Each case first
 * makes its calls often enough. */
#include "testlib.h"
#include <arpa/inet.h>
#include <asm/prctl.h>
#include <elf.h>
#include <link.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <ucontext.h>

struct registers { uint64_t rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15, flags, red_zone[2]; };

/* A function that loads all registers and flags, writes to the ends of its red zone, makes a call, and stores what it then finds. Before the call there is padding that nothing runs through. */
#define SITE(name, load) \
    extern void name(const struct registers *before, struct registers *after); \
    extern const char name##_load[], name##_syscall[], name##_after[], name##_pad[], name##_pad_end[]; \
    __asm__(".text\n.p2align 9\n.globl " #name "\n.type " #name ", @function\n" #name ":\n.cfi_startproc\n" \
        "push %rbx\npush %rbp\npush %r12\npush %r13\npush %r14\npush %r15\npush %rsi\n" \
        "mov %rdi, %rax\npushq 120(%rax)\npopfq\n" \
        "mov 8(%rax), %rbx\nmov 24(%rax), %rdx\nmov 32(%rax), %rsi\nmov 40(%rax), %rdi\nmov 48(%rax), %rbp\nmov 56(%rax), %r8\nmov 64(%rax), %r9\nmov 72(%rax), %r10\n" \
        "mov 88(%rax), %r12\nmov 96(%rax), %r13\nmov 104(%rax), %r14\nmov 112(%rax), %r15\n" \
        "movq $0x5eed, -8(%rsp)\nmovq $0x7eed, -128(%rsp)\n" \
        "jmp 2f\n.globl " #name "_pad\n" #name "_pad:\n.byte 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90\n.p2align 4\n.globl " #name "_pad_end\n" #name "_pad_end:\n2:\n" \
        ".globl " #name "_load\n" #name "_load:\n" load "\n.globl " #name "_syscall\n" #name "_syscall:\nsyscall\n.globl " #name "_after\n" #name "_after:\n" \
        "lea -256(%rsp), %rsp\npushfq\ncld\n" \
        "push %r15\npush %r14\npush %r13\npush %r12\npush %r11\npush %r10\npush %r9\npush %r8\npush %rbp\npush %rdi\npush %rsi\npush %rdx\npush %rcx\npush %rbx\npush %rax\n" \
        "mov 384(%rsp), %rdi\nmov %rsp, %rsi\nmov $16, %ecx\nrep movsq\n" \
        "mov 376(%rsp), %rax\nmov %rax, (%rdi)\nmov 256(%rsp), %rax\nmov %rax, 8(%rdi)\n" \
        "lea 392(%rsp), %rsp\npop %r15\npop %r14\npop %r13\npop %r12\npop %rbp\npop %rbx\nret\n.cfi_endproc\n.size " #name ", . - " #name "\n")

SITE(site_getpid, "mov $39, %eax");
SITE(site_gettid, "mov $186, %eax");
SITE(site_read, "xor %eax, %eax");
SITE(site_other, "mov $39, %eax");

enum { often = 300, carry = 1, parity = 4, adjust = 0x10, zero = 0x40, sign = 0x80, trap = 0x100, direction = 0x400, overflow = 0x800 };
static const uint64_t status = carry | parity | adjust | zero | sign | overflow;

static uint64_t call(void (*site)(const struct registers *, struct registers *), uint64_t rdi, uint64_t rsi, uint64_t rdx)
{
    struct registers before = { .rdi = rdi, .rsi = rsi, .rdx = rdx, .flags = 0x202 }, after;
    site(&before, &after);
    return after.rax;
}

/* What the stub answers the host only hears of by the next call that leaves the guest. */
static void heat(void (*site)(const struct registers *, struct registers *))
{
    for (int i = 0; i < often; i++) {
        (void)call(site, (uint64_t)-1, 0, 0);
        (void)getppid();
    }
}

static void check_registers(void (*site)(const struct registers *, struct registers *), const char *next, int is_read, uint64_t seed)
{
    struct registers before, after;
    for (size_t i = 0; i < sizeof before / 8; i++)
        ((uint64_t *)&before)[i] = mix(seed * 32 + i);
    if (is_read) {
        before.rdi = (uint64_t)-1;
        before.rsi = (uint64_t)&before;
        before.rdx = 8;
    }
    before.flags = 0x202 | (mix(seed) & (status | direction));
    site(&before, &after);
    EQUAL(is_read ? -EBADF : getpid(), after.rax);
    EQUAL(before.rbx, after.rbx);
    EQUAL(before.rdx, after.rdx);
    EQUAL(before.rsi, after.rsi);
    EQUAL(before.rdi, after.rdi);
    EQUAL(before.rbp, after.rbp);
    EQUAL(before.r8, after.r8);
    EQUAL(before.r9, after.r9);
    EQUAL(before.r10, after.r10);
    EQUAL(before.r12, after.r12);
    EQUAL(before.r13, after.r13);
    EQUAL(before.r14, after.r14);
    EQUAL(before.r15, after.r15);
    EQUAL(0x5eed, after.red_zone[0]);
    EQUAL(0x7eed, after.red_zone[1]);
    EQUAL((uint64_t)next, after.rcx);
    EQUAL(after.flags, after.r11);
    /* XOR sets them, but for one of which it does not say how. */
    uint64_t known = is_read ? ~(uint64_t)adjust : ~(uint64_t)0;
    uint64_t expected = is_read ? (before.flags & ~status) | zero | parity : before.flags;
    EQUAL(expected & known, after.flags & known);
}

CASE(registers_and_flags_survive)
{
    heat(site_getpid);
    heat(site_read);
    for (uint64_t i = 0; i < 20000; i++)
        check_registers(site_getpid, site_getpid_after, 0, i);
    for (uint64_t i = 0; i < 2000; i++)
        check_registers(site_read, site_read_after, 1, i);
}

CASE(results_and_errors_of_the_library)
{
    int fd[2];
    char bytes[64];
    SYS(pipe2(fd, O_NONBLOCK));
    for (int i = 0; i < 4 * often; i++) {
        EQUAL(5, write(fd[1], "hello", 5));
        EQUAL(5, read(fd[0], bytes, sizeof bytes));
        CHECK(memcmp(bytes, "hello", 5) == 0);
        EQUAL(-1, read(fd[0], bytes, sizeof bytes));
        EQUAL(EAGAIN, errno);
        EQUAL(-1, read(fd[1], bytes, sizeof bytes));
        EQUAL(EBADF, errno);
        EQUAL(-1, syscall(SYS_write, fd[1], 8, 1));
        EQUAL(EFAULT, errno);
        EQUAL(0, lseek(fd[0], 0, SEEK_SET) == 0);
        EQUAL(ESPIPE, errno);
    }
}

/* ---- a server ---- */

enum { connections = 6, rounds = 3000 };
static void *ask(void *argument)
{
    int fd = *(int *)argument;
    char answer[32];
    for (int i = 0; i < rounds; i++) {
        char text[32];
        int n = snprintf(text, sizeof text, "%d", i);
        EQUAL(n, write(fd, text, (size_t)n));
        EQUAL(n + 1, read(fd, answer, sizeof answer));
        CHECK(answer[0] == '=' && memcmp(answer + 1, text, (size_t)n) == 0);
    }
    SYS(shutdown(fd, SHUT_WR));
    return NULL;
}

CASE(a_server_answers)
{
    signal(SIGPIPE, SIG_IGN);
    int listener = (int)SYS(socket(AF_INET, SOCK_STREAM, 0)), epoll = (int)SYS(epoll_create1(0)), client[connections];
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof address;
    SYS(bind(listener, (struct sockaddr *)&address, length));
    SYS(listen(listener, connections));
    SYS(getsockname(listener, (struct sockaddr *)&address, &length));
    pthread_t threads[connections];
    for (int i = 0; i < connections; i++) {
        client[i] = (int)SYS(socket(AF_INET, SOCK_STREAM, 0));
        SYS(connect(client[i], (struct sockaddr *)&address, length));
        int fd = (int)SYS(accept4(listener, NULL, NULL, SOCK_NONBLOCK));
        struct epoll_event event = { EPOLLIN, { .fd = fd } };
        SYS(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
        EQUAL(0, pthread_create(&threads[i], NULL, ask, &client[i]));
    }
    for (int open = connections; open > 0;) {
        struct epoll_event events[connections];
        int n = (int)SYS(epoll_wait(epoll, events, connections, 20000));
        CHECK(n > 0);
        for (int i = 0; i < n; i++) {
            char text[64] = "=";
            ssize_t got = SYS(read(events[i].data.fd, text + 1, sizeof text - 1));
            if (got == 0) {
                SYS(close(events[i].data.fd));
                open--;
                continue;
            }
            EQUAL(got + 1, write(events[i].data.fd, text, (size_t)got + 1));
        }
    }
    for (int i = 0; i < connections; i++)
        EQUAL(0, pthread_join(threads[i], NULL));
}

/* ---- signals ---- */

static struct { uint64_t start, end; } code[64];
static int pieces, unnamed;

static void find_code(void)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[600];
    pieces = unnamed = 0;
    while (fgets(line, sizeof line, maps)) {
        uint64_t start, end;
        char rights[8], name[300] = "";
        if (sscanf(line, "%lx-%lx %7s %*s %*s %*s %299s", &start, &end, rights, name) < 3 || rights[2] != 'x' || pieces == 64)
            continue;
        code[pieces].start = start;
        code[pieces++].end = end;
        unnamed += name[0] == 0;
    }
    fclose(maps);
}

static int is_code(uint64_t rip)
{
    for (int i = 0; i < pieces; i++)
        if (rip >= code[i].start && rip < code[i].end)
            return 1;
    return 0;
}

#define IN(rip, name) ((rip) >= (uint64_t)name##_pad && (rip) < (uint64_t)name##_pad_end)
static volatile sig_atomic_t handled, odd, stop;
static int own_pipe[2];
static pid_t own_pid, own_tid;
static uint64_t stack_top;

static void on_signal(int signal, siginfo_t *info, void *argument)
{
    (void)signal, (void)info;
    int saved = errno;
    ucontext_t *context = argument;
    uint64_t rip = (uint64_t)context->uc_mcontext.gregs[REG_RIP], rsp = (uint64_t)context->uc_mcontext.gregs[REG_RSP];
    char c = 0;
    if (!is_code(rip) || IN(rip, site_getpid) || IN(rip, site_gettid) || IN(rip, site_read))
        odd |= 1;
    if (rsp >= stack_top || rsp < stack_top - (1 << 20))
        odd |= 2;
    if ((pid_t)call(site_getpid, 0, 0, 0) != own_pid || (pid_t)call(site_gettid, 0, 0, 0) != own_tid)
        odd |= 4;
    if (write(own_pipe[1], "s", 1) != 1 || read(own_pipe[0], &c, 1) != 1 || c != 's')
        odd |= 8;
    handled++;
    errno = saved;
}

static void *send_signals(void *argument)
{
    (void)argument;
    for (unsigned i = 0; !stop; i++) {
        (void)syscall(SYS_tgkill, own_pid, own_tid, SIGUSR1);
        for (unsigned j = 0; j < mix(i) % 4000; j++)
            __builtin_ia32_pause();
    }
    return NULL;
}

CASE(signals_at_any_instruction)
{
    struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART };
    int fd[2], fails[2];
    char bytes[16];
    pthread_t sender;
    SYS(pipe(own_pipe));
    SYS(pipe(fd));
    SYS(pipe2(fails, O_NONBLOCK));
    own_pid = getpid();
    own_tid = (pid_t)syscall(SYS_gettid);
    stack_top = (uint64_t)__builtin_frame_address(0) + 65536;
    find_code();
    heat(site_getpid);
    heat(site_gettid);
    heat(site_read);
    SYS(sigaction(SIGUSR1, &action, NULL));
    SYS(sigaction(SIGALRM, &action, NULL));
    struct itimerval often_enough = { { 0, 700 }, { 0, 700 } }, never = { 0 };
    /* The timer's are for this thread alone. */
    sigset_t timer;
    (void)sigemptyset(&timer);
    (void)sigaddset(&timer, SIGALRM);
    (void)pthread_sigmask(SIG_BLOCK, &timer, NULL);
    EQUAL(0, pthread_create(&sender, NULL, send_signals, NULL));
    (void)pthread_sigmask(SIG_UNBLOCK, &timer, NULL);
    SYS(setitimer(ITIMER_REAL, &often_enough, NULL));
    double end = now() + 2;
    for (uint64_t i = 0; now() < end || handled < 200; i++) {
        for (int j = 0; j < 200; j++) {
            EQUAL(own_pid, call(site_getpid, 0, 0, 0));
            EQUAL(own_tid, call(site_gettid, 0, 0, 0));
        }
        check_registers(site_getpid, site_getpid_after, 0, i);
        check_registers(site_read, site_read_after, 1, i);
        EQUAL(3, write(fd[1], "abc", 3));
        EQUAL(3, read(fd[0], bytes, sizeof bytes));
        CHECK(memcmp(bytes, "abc", 3) == 0);
        EQUAL(-1, read(fails[0], bytes, sizeof bytes));
        EQUAL(EAGAIN, errno);
        if (odd)
            FAIL("a handler found something odd: %d", odd);
    }
    stop = 1;
    SYS(setitimer(ITIMER_REAL, &never, NULL));
    EQUAL(0, pthread_join(sender, NULL));
    signal(SIGUSR1, SIG_IGN);
    signal(SIGALRM, SIG_IGN);
}

/* ---- single steps ---- */

enum { steps = 400 };
static uint64_t stepped[steps];
static volatile int step_count;

static void on_step(int signal, siginfo_t *info, void *argument)
{
    (void)signal, (void)info;
    ucontext_t *context = argument;
    if (step_count < steps)
        stepped[step_count] = (uint64_t)context->uc_mcontext.gregs[REG_RIP];
    if (++step_count == steps)
        context->uc_mcontext.gregs[REG_EFL] &= ~trap;
}

static void step_over(void (*site)(const struct registers *, struct registers *), const char *load, const char *syscall, uint64_t expected)
{
    struct registers before = { .rdi = (uint64_t)-1, .flags = 0x202 | trap | carry }, after;
    step_count = 0;
    site(&before, &after);
    __asm__ volatile("pushfq\nandq $~0x100, (%%rsp)\npopfq" ::: "cc", "memory");
    EQUAL(expected, after.rax);
    int found = 0;
    for (int i = 0; i + 1 < step_count && i + 1 < steps; i++) {
        CHECK(is_code(stepped[i]));
        found |= stepped[i] == (uint64_t)load && stepped[i + 1] == (uint64_t)syscall;
    }
    CHECK(found);
}

CASE(single_steps)
{
    struct sigaction action = { .sa_sigaction = on_step, .sa_flags = SA_SIGINFO };
    heat(site_getpid);
    heat(site_read);
    find_code();
    EQUAL(0, unnamed);
    SYS(sigaction(SIGTRAP, &action, NULL));
    for (int i = 0; i < 5; i++) {
        step_over(site_getpid, site_getpid_load, site_getpid_syscall, (uint64_t)getpid());
        step_over(site_read, site_read_load, site_read_syscall, (uint64_t)-EBADF);
    }
}

/* ---- who else runs the code ---- */

static void child_calls(pid_t parent, pid_t grandparent)
{
    int fd[2];
    char c;
    pid_t self = (pid_t)syscall(SYS_getpid);
    CHECK(self != parent && self != grandparent);
    EQUAL(parent, getppid());
    SYS(pipe(fd));
    for (int i = 0; i < often; i++) {
        EQUAL(self, call(site_getpid, 0, 0, 0));
        EQUAL(self, call(site_gettid, 0, 0, 0));
        EQUAL(1, write(fd[1], "c", 1));
        EQUAL(1, call(site_read, (uint64_t)fd[0], (uint64_t)&c, 1));
        EQUAL(-EBADF, call(site_read, (uint64_t)-1, 0, 0));
    }
}

CASE(children_on_the_same_sites)
{
    pid_t self = getpid();
    heat(site_getpid);
    heat(site_gettid);
    heat(site_read);
    for (int i = 0; i < 30; i++) {
        pid_t child = (pid_t)SYS(fork());
        if (child == 0) {
            child_calls(self, 0);
            pid_t parent = getpid();
            if (i % 5 == 0) {
                pid_t grandchild = (pid_t)SYS(fork());
                if (grandchild == 0) {
                    child_calls(parent, self);
                    _exit(0);
                }
                expect_exit(grandchild, 0);
            }
            _exit(0);
        }
        for (int j = 0; j < often; j++)
            EQUAL(self, call(site_getpid, 0, 0, 0));
        /* New sites become due while a snapshot reads the code. */
        heat(site_other);
        expect_exit(child, 0);
    }
}

static void *call_too(void *argument)
{
    pid_t self = (pid_t)syscall(SYS_gettid);
    (void)argument;
    for (uint64_t i = 0; !stop; i++) {
        EQUAL(self, call(site_gettid, 0, 0, 0));
        check_registers(site_getpid, site_getpid_after, 0, i);
    }
    return NULL;
}

CASE(threads_on_the_same_sites)
{
    pthread_t threads[2];
    pid_t self = getpid();
    stop = 0;
    for (int i = 0; i < 2; i++)
        EQUAL(0, pthread_create(&threads[i], NULL, call_too, NULL));
    heat(site_getpid);
    heat(site_gettid);
    for (double end = now() + 1; now() < end;) {
        for (int i = 0; i < 1000; i++)
            EQUAL(self, call(site_gettid, 0, 0, 0));
        check_registers(site_getpid, site_getpid_after, 0, 1);
    }
    stop = 1;
    for (int i = 0; i < 2; i++)
        EQUAL(0, pthread_join(threads[i], NULL));
}

/* ---- the base of GS ---- */

static uint64_t gs_base(void)
{
    uint64_t value = 0x5555;
    SYS(syscall(SYS_arch_prctl, ARCH_GET_GS, &value));
    return value;
}

static uint64_t gs_word(void)
{
    uint64_t value;
    __asm__ volatile("mov %%gs:0, %0" : "=r"(value));
    return value;
}

static void *new_thread(void *argument) { return (void *)(gs_base() + (uint64_t)argument); }

CASE(a_base_of_gs)
{
    static uint64_t own[8] = { 0x1234 }, other[8] = { 0x5678 };
    pid_t self = getpid();
    void *result;
    pthread_t thread;
    EQUAL(0, gs_base());
    heat(site_getpid);
    EQUAL(0, gs_base());
    IN_CHILD(EQUAL(0, gs_base()));
    EQUAL(0, pthread_create(&thread, NULL, new_thread, (void *)1));
    EQUAL(0, pthread_join(thread, &result));
    EQUAL(1, (uint64_t)result);
    for (int i = 0; i < 20; i++) {
        uint64_t *mine = i % 2 ? own : other;
        SYS(syscall(SYS_arch_prctl, ARCH_SET_GS, mine));
        for (int j = 0; j < often; j++)
            EQUAL(self, call(site_getpid, 0, 0, 0));
        EQUAL((uint64_t)mine, gs_base());
        EQUAL(mine[0], gs_word());
        IN_CHILD({ EQUAL((uint64_t)mine, gs_base()); EQUAL(mine[0], gs_word()); EQUAL(getpid(), call(site_getpid, 0, 0, 0)); });
        SYS(syscall(SYS_arch_prctl, ARCH_SET_GS, 0));
        EQUAL(0, gs_base());
        for (int j = 0; j < often; j++)
            EQUAL(self, call(site_getpid, 0, 0, 0));
    }
}

/* ---- code that comes and goes ---- */

static struct dl_phdr_info program;

static int first_object(struct dl_phdr_info *info, size_t size, void *argument)
{
    (void)size, (void)argument;
    program = *info;
    return 1;
}

/* The program's own file once more, at another place. */
static void map_again(char *at)
{
    int fd = (int)SYS(open("/proc/self/exe", O_RDONLY));
    for (int i = 0; i < program.dlpi_phnum; i++) {
        const ElfW(Phdr) *h = &program.dlpi_phdr[i];
        if (h->p_type != PT_LOAD)
            continue;
        uint64_t start = h->p_vaddr & ~(PAGE - 1);
        int rights = (h->p_flags & PF_R ? PROT_READ : 0) | (h->p_flags & PF_W ? PROT_WRITE : 0) | (h->p_flags & PF_X ? PROT_EXEC : 0);
        CHECK(mmap(at + start, h->p_vaddr + h->p_filesz - start, rights, MAP_PRIVATE | MAP_FIXED, fd, (off_t)(h->p_offset & ~(PAGE - 1))) != MAP_FAILED);
    }
    SYS(close(fd));
}

CASE(code_that_comes_and_goes)
{
    enum { span = 1 << 20 };
    pid_t self = getpid();
    (void)dl_iterate_phdr(first_object, NULL);
    char *at = mmap(NULL, span, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED);
    void (*site)(const struct registers *, struct registers *) = (void (*)(const struct registers *, struct registers *))(at + ((uint64_t)site_other - program.dlpi_addr));
    char *load = at + ((uint64_t)site_other_load - program.dlpi_addr), *page = (char *)((uint64_t)load & ~(PAGE - 1));
    for (int i = 0; i < 4; i++) {
        map_again(at);
        heat(site);
        EQUAL(self, call(site, 0, 0, 0));
        /* getppid in place of getpid */
        SYS(mprotect(page, PAGE, PROT_READ | PROT_WRITE));
        memcpy(load, "\xb8\x6e\x00\x00\x00", 5);
        SYS(mprotect(page, PAGE, PROT_READ | PROT_EXEC));
        EQUAL(getppid(), call(site, 0, 0, 0));
        heat(site);
        EQUAL(getppid(), call(site, 0, 0, 0));
        /* as in the file */
        SYS(madvise(page, PAGE, MADV_DONTNEED));
        EQUAL(self, call(site, 0, 0, 0));
        heat(site);
        EQUAL(self, call(site, 0, 0, 0));
        /* Moved: what jumps there would lead elsewhere. */
        IN_CHILD({
            char *moved = mremap(page, PAGE, 2 * PAGE, MREMAP_MAYMOVE);
            CHECK(moved != MAP_FAILED);
            EQUAL(getpid(), call((void (*)(const struct registers *, struct registers *))(moved + ((char *)site - page)), 0, 0, 0));
        });
        char *moved = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(mremap(page, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, moved) == moved);
        EQUAL(self, call((void (*)(const struct registers *, struct registers *))(moved + ((char *)site - page)), 0, 0, 0));
        SYS(munmap(moved, PAGE));
        SYS(mmap(at, span, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED ? -1 : 0);
    }
    SYS(munmap(at, span));
}

/* The addresses at the ends of what a program may map are as free, or as little, as any other: nothing that it finds there changes what its calls do. */
CASE(all_that_is_free_is_unmapped)
{
    heat(site_getpid);
    heat(site_read);
    find_code();
    EQUAL(0, unnamed);
    char *low = (char *)((uint64_t)site_getpid & ~(uint64_t)0xffffffff), *high = (char *)(((uint64_t)&find_code | 0xffffffffff) + 1 - PAGE);
    (void)munmap(low, PAGE);
    (void)munmap(high, PAGE);
    for (int i = 0; i < often; i++) {
        EQUAL(getpid(), call(site_getpid, 0, 0, 0));
        EQUAL(-EBADF, call(site_read, (uint64_t)-1, 0, 0));
    }
}
