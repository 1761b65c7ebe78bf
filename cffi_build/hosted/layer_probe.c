/* What pyrun-layer would be stopped at: layers/sandbox.c around one attempt, named by the argument. → its errno, as the
 * exit status; 0 where nothing stopped it. Descriptor 3 is the directory. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "../layers/layer.h"

static long attempt(const char *what) {
    struct open_how how = {.flags = O_RDONLY};
    struct open_how write = {.flags = O_WRONLY | O_CREAT, .mode = 0600};
    struct open_how made = {.flags = O_WRONLY | O_CREAT | O_EXCL, .mode = 0600, .resolve = RESOLVE_IN_ROOT};
    char *const none[] = {NULL};
    if (strcmp(what, "nothing") == 0)
        return syscall(SYS_openat2, DIRECTORY, "made", &made, sizeof made);
    if (strcmp(what, "read") == 0)
        return syscall(SYS_openat2, AT_FDCWD, "/etc/passwd", &how, sizeof how);
    if (strcmp(what, "read-up") == 0)
        return syscall(SYS_openat2, DIRECTORY, "../outside/secret", &how, sizeof how);
    if (strcmp(what, "write") == 0)
        return syscall(SYS_openat2, DIRECTORY, "../outside/new", &write, sizeof write);
    if (strcmp(what, "unlink") == 0)
        return unlinkat(DIRECTORY, "../outside/secret", 0);
    if (strcmp(what, "mkdir") == 0)
        return mkdirat(DIRECTORY, "../outside/made", 0700);
    if (strcmp(what, "link-in") == 0)
        return linkat(DIRECTORY, "../outside/secret", DIRECTORY, "stolen", 0);
    if (strcmp(what, "device") == 0)
        return mknodat(DIRECTORY, "null", S_IFCHR | 0666, makedev(1, 3));
    if (strcmp(what, "openat") == 0)
        return openat(DIRECTORY, "made", O_RDONLY);
    if (strcmp(what, "socket") == 0)
        return socket(AF_INET, SOCK_STREAM, 0);
    if (strcmp(what, "exec") == 0)
        return execve("/bin/true", none, none);
    if (strcmp(what, "fork") == 0)
        return fork();
    if (strcmp(what, "code") == 0)
        return mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0;
    if (strcmp(what, "ptrace") == 0)
        return ptrace(PTRACE_ATTACH, getpid(), 0, 0);
    if (strcmp(what, "kill") == 0)
        return syscall(SYS_kill, 1, 0);
    if (strcmp(what, "memory") == 0)
        return mmap(NULL, 1UL << 30, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0;
    errno = EINVAL;
    return -1;
}

int main(int argc, char **argv) {
    struct sandbox box;
    sandbox_before_threads(&box, DIRECTORY);
    sandbox_with_threads();
    return argc == 2 && attempt(argv[1]) >= 0 ? 0 : errno;
}
