/* Prints what the program was started with: arguments, environment, and those auxiliary values that do not depend on addresses. */
#define TESTLIB_NO_MAIN
#include "testlib.h"
#include <elf.h>
#include <sys/auxv.h>
#include <sys/prctl.h>

extern char **environ;

int main(int argc, char **argv)
{
    printf("argc %d\n", argc);
    for (int i = 0; i < argc; i++)
        printf("argv[%d] %s\n", i, argv[i]);
    CHECK(argv[argc] == NULL);
    for (char **e = environ; *e; e++)
        if (strncmp(*e, "PRIVY_TEST_RUN=", 15) != 0 && strncmp(*e, "_=", 2) != 0)
            printf("env %s\n", *e);

    CHECK(((uintptr_t)argv & 7) == 0);
    printf("PAGESZ %lu CLKTCK %lu SECURE %lu UID %lu EUID %lu GID %lu EGID %lu\n", getauxval(AT_PAGESZ), getauxval(AT_CLKTCK), getauxval(AT_SECURE),
        getauxval(AT_UID), getauxval(AT_EUID), getauxval(AT_GID), getauxval(AT_EGID));
    printf("PHENT %lu PHNUM %lu EXECFN %s PLATFORM %s\n", getauxval(AT_PHENT), getauxval(AT_PHNUM), (char *)getauxval(AT_EXECFN), (char *)getauxval(AT_PLATFORM));
    CHECK(getauxval(AT_RANDOM) && getauxval(AT_SYSINFO_EHDR) && getauxval(AT_ENTRY) && getauxval(AT_HWCAP));
    const Elf64_Phdr *p = (const Elf64_Phdr *)getauxval(AT_PHDR);
    for (unsigned long i = 0; i < getauxval(AT_PHNUM); i++)
        printf("program header %lu type %x\n", i, p[i].p_type);
    printf("interpreter %s\n", getauxval(AT_BASE) ? "yes" : "no");

    char exe[PATH_MAX] = { 0 }, comm[16] = { 0 };
    SYS(readlink("/proc/self/exe", exe, sizeof exe - 1));
    printf("exe %s\n", exe);
    SYS(prctl(PR_GET_NAME, comm));
    printf("comm %s\n", comm);
    printf("stack alignment %s\n", ((uintptr_t)__builtin_frame_address(0) & 15) == 0 ? "ok" : "wrong");
    return 0;
}
