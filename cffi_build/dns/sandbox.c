/* What the process gives up before the first query: its user, every capability, every file, most system calls. */
#define _GNU_SOURCE
#include <errno.h>
#include <grp.h>
#include <sys/resource.h>

#include "../sandbox.h"
#include "dns.h"

static void drop_user(unsigned uid, unsigned gid) {
    drop_bounding(0);
    if (geteuid() == 0 && (setgroups(0, NULL) || setresgid(gid, gid, gid) || setresuid(uid, uid, uid)))
        die("become the user", errno);
    const char *failed = keep_capabilities(0);
    if (failed)
        die(failed, errno);
}

/* mmap without PROT_EXEC: the table and malloc(). No call that makes a file, a socket, a process or a thread. */
static void filter_calls(void) {
    struct sock_filter code[] = {
        BEGIN,
#ifdef __NR_epoll_wait
        CALL(epoll_wait),
#endif
        CALL(epoll_pwait), CALL(recvmmsg), CALL(sendmmsg), CALL(sendmsg), CALL(recvmsg), CALL(sendto), CALL(recvfrom),
        CALL(accept4), CALL(epoll_ctl), CALL(close), CALL(clock_gettime), CALL(munmap), CALL(mremap), CALL(brk), CALL(madvise),
        CALL(getsockname), CALL(getsockopt), CALL(setsockopt), CALL(fcntl), CALL(fstat), CALL(newfstatat), CALL(write),
        CALL(getpid), CALL(getrandom), CALL(rt_sigreturn), CALL(restart_syscall), CALL(exit), CALL(exit_group),
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
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
        die("prctl", errno);
    filter_calls();
}
