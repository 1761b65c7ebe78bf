/* pyrun-dataplane: carries connections and datagrams to the endpoints that Python chose for them.
 *
 * pyrun-dataplane UID GID: descriptor 3 is a SEQPACKET socket that listens, over which everything else comes (control.c). It answers on
 * standard output with "ready\n" once it is all that it will ever be. It ends by itself when it was told to retire and nothing is left,
 * else by SIGTERM or SIGKILL; that who started it has gone is no reason.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dp.h"

enum { CONTROL = 3 };

/* Not dprintf(), which asks for the descriptor's position: the sandbox kills who does. */
void say(const char *format, ...) {
    char line[256] = "pyrun-dataplane: ";
    size_t n = strlen(line);
    va_list more;
    va_start(more, format);
    int added = vsnprintf(line + n, sizeof line - n - 1, format, more);
    va_end(more);
    if (added > 0)
        n += (size_t)added < sizeof line - n - 1 ? (size_t)added : sizeof line - n - 2;
    line[n++] = '\n';
    if (write(STDERR_FILENO, line, n) < 0)
        return; /* nobody hears it */
}

void fail(int error, const char *what) {
    say("%s: %s", what, strerror(error));
    _exit(1);
}

static uint32_t number(const char *text) {
    char *end;
    errno = 0;
    unsigned long v = strtoul(text, &end, 10);
    if (errno || !*text || *end || v > UINT32_MAX - 1)
        fail(EINVAL, text);
    return (uint32_t)v;
}

int main(int argc, char **argv) {
    if (argc != 3)
        fail(EINVAL, "usage: pyrun-dataplane UID GID");
    uint32_t uid = number(argv[1]), gid = number(argv[2]);
    signal(SIGPIPE, SIG_IGN);
    hash_bytes("", 0); /* its secret */
    limits_init();
    loop_init();
    if (!control_init(CONTROL))
        fail(errno, "descriptor 3");
    sandbox(uid, gid);
    if (write(STDOUT_FILENO, "ready\n", 6) != 6)
        fail(errno, "standard output");
    close(STDIN_FILENO);
    close(STDOUT_FILENO);
    loop_run();
    return 0;
}
