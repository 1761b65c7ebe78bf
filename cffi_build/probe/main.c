/* pyrun-probe UID GID: descriptor 3 is the socket to the agent, with which it ends, and 4 the memory that both have mapped. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "probe.h"

enum { MEMORY = 4 };

struct shared *shared;

void die(const char *what, int error) {
    char line[200];
    const int n = snprintf(line, sizeof line, "pyrun-probe: %s%s%s\n", what, error ? ": " : "", error ? strerror(error) : "");
    if (write(2, line, n > 0 ? (size_t)n : 0) < 0)
        _exit(2);
    _exit(1);
}

int main(int argc, char **argv) {
    if (argc != 3)
        die("usage: pyrun-probe UID GID, by the agent", 0);
    signal(SIGPIPE, SIG_IGN);
    if (syscall(SYS_close_range, MEMORY + 1, ~0U, 0))
        die("close_range", errno);
    shared = mmap(NULL, SLOTS * sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, MEMORY, 0);
    if (shared == MAP_FAILED)
        die("mmap", errno);
    close(MEMORY);
    prepare();
    sandbox((unsigned)strtoul(argv[1], NULL, 10), (unsigned)strtoul(argv[2], NULL, 10));
    loop();
}
