/* Stands in for src/redis-server in Redis' own test suite: starts the installed server under Privy, in this process.
 *
 * A program and not a script, because the suite asks ldd about it. PRIVY and SERVER are set when it is compiled.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    char **command = calloc((size_t)argc + 5, sizeof *command);
    if (!command)
        return 127;
    int n = 0;
    command[n++] = "privy";
    command[n++] = "run";
    command[n++] = "--";
    command[n++] = SERVER;
    for (int i = 1; i < argc; i++)
        command[n++] = argv[i];
    /* The server knows by its name that it is to be a Sentinel; here it is told. */
    const char *name = strrchr(argv[0], '/');
    if (strcmp(name ? name + 1 : argv[0], "redis-sentinel") == 0)
        command[n++] = "--sentinel";
    execv(PRIVY, command);
    perror(PRIVY);
    return 127;
}
