/* What the process gives up before it takes the first byte: root, every capability but two, files, programs, most system calls. It has
 * no thread, so that what is set here holds for all of it. */
#define _GNU_SOURCE
#include <errno.h>
#include <grp.h>
#include <sys/resource.h>

#include "../sandbox.h"
#include "dp.h"

/* NET_RAW: sockets with a client's address (IP_TRANSPARENT). NET_BIND_SERVICE: sockets of services below port 1024, of UDP and SCTP. */
enum { KEPT = 1U << CAP_NET_BIND_SERVICE | 1U << CAP_NET_RAW };

static void become(uint32_t uid, uint32_t gid) {
    if (geteuid() != 0)
        return; /* who starts us without root gets a proxy without its clients' addresses */
    drop_bounding(0);
    if (uid == 0)
        return;
    if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0))
        fail(errno, "keepcaps");
    if (setgroups(0, NULL) || setresgid(gid, gid, gid) || setresuid(uid, uid, uid))
        fail(errno, "setresuid");
    prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0);
}

static void filter(void) {
    struct sock_filter code[] = {
        BEGIN,
        CALL(recvfrom), CALL(sendto), CALL(splice), CALL(epoll_pwait),
#ifdef __NR_epoll_wait
        CALL(epoll_wait),
#endif
        CALL(epoll_ctl), CALL(close), CALL(accept4), CALL(listen), CALL(getsockname), CALL(setsockopt), CALL(connect), CALL(bind), CALL(shutdown),
        CALL(getsockopt), CALL(recvmmsg), CALL(sendmmsg), CALL(recvmsg), CALL(sendmsg), CALL(pipe2), CALL(fcntl), CALL(clock_gettime),
        CALL(brk), CALL(munmap), CALL(mremap), CALL(madvise), CALL(fstat), CALL(newfstatat), CALL(memfd_create), CALL(ftruncate),
        CALL(pread64), CALL(dup), CALL(getpid), CALL(getrandom), CALL(rt_sigreturn), CALL(exit_group), CALL(write), CALL(restart_syscall), CALL(futex),
        IS(__NR_socket, 0, 10), /* of the internet: TCP, UDP, SCTP, and no raw one */
        ARGUMENT(0),
        IS(AF_INET, 1, 0),
        IS(AF_INET6, 0, 6),
        ARGUMENT(1),
        HAS(0xf & ~(SOCK_STREAM | SOCK_DGRAM), 4, 0),
        ARGUMENT(2),
        IS(0, 1, 0),
        IS(IPPROTO_SCTP, 0, 1),
        ALLOW,
        KILL,
        IS(__NR_mmap, 1, 0),
        IS(__NR_mprotect, 0, 3),
        UNLESS_EXECUTABLE,
    };
    struct sock_fprog program = {.len = sizeof code / sizeof *code, .filter = code};
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program))
        fail(errno, "seccomp");
}

void sandbox(uint32_t uid, uint32_t gid) {
    const struct rlimit none = {0, 0};
    if (setrlimit(RLIMIT_CORE, &none))
        fail(errno, "setrlimit");
    become(uid, gid);
    const char *failed = keep_capabilities(KEPT);
    if (failed)
        fail(errno, failed);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
        fail(errno, "no_new_privs");
    filter();
}
