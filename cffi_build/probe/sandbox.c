/* What the process gives up before the first probe: its user, every capability, every file, most system calls. */
#define _GNU_SOURCE
#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "../sandbox.h"
#include "probe.h"

static void drop_user(unsigned uid, unsigned gid) {
    drop_bounding(0);
    if (geteuid() == 0 && (setgroups(0, NULL) || setresgid(gid, gid, gid) || setresuid(uid, uid, uid)))
        die("become the user", errno);
    const char *failed = keep_capabilities(0);
    if (failed)
        die(failed, errno);
}

/* Sockets of TCP that connect; memory for malloc(). */
static void filter_calls(void) {
    struct sock_filter code[] = {
        BEGIN,
#ifdef __NR_epoll_wait
        CALL(epoll_wait),
#endif
        CALL(epoll_pwait), CALL(epoll_ctl), CALL(connect), CALL(sendto), CALL(recvfrom), CALL(close), CALL(clock_gettime),
        CALL(munmap), CALL(mremap), CALL(brk), CALL(madvise), CALL(write), CALL(getrandom), CALL(rt_sigreturn),
        CALL(restart_syscall), CALL(exit), CALL(exit_group),
        IS(__NR_socket, 0, 9),
        ARGUMENT(0),
        IS(AF_INET, 1, 0),
        IS(AF_INET6, 0, 4),
        ARGUMENT(1),
        IS(SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, 2),
        ARGUMENT(2),
        IS(0, 1, 0),
        KILL,
        ALLOW,
        IS(__NR_mmap, 0, 3),
        UNLESS_EXECUTABLE,
    };
    struct sock_fprog program = {.len = sizeof code / sizeof *code, .filter = code};
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program))
        die("seccomp", errno);
}

void sandbox(unsigned uid, unsigned gid) {
    const struct rlimit none = {0, 0};
    if (setrlimit(RLIMIT_CORE, &none))
        die("setrlimit", errno);
    drop_user(uid, gid);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL)) /* one that is stopped does not read that the agent is gone; after the user, as that resets it */
        die("prctl", errno);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
        die("prctl", errno);
    filter_calls();
}
