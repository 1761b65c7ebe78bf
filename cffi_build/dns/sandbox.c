/* What the process gives up before the first query: its user, every capability, every file, most system calls. */
#define _GNU_SOURCE
#include <errno.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "dns.h"

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#else
#error "pyrun-dns: which AUDIT_ARCH is this?"
#endif

static void drop_user(unsigned uid, unsigned gid) {
    for (unsigned long cap = 0; cap <= 63 && prctl(PR_CAPBSET_READ, cap) >= 0; cap++)
        prctl(PR_CAPBSET_DROP, cap);
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (geteuid() == 0 && (setgroups(0, NULL) || setresgid(gid, gid, gid) || setresuid(uid, uid, uid)))
        die("become the user", errno);
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {0};
    if (syscall(SYS_capset, &header, none))
        die("capset", errno);
}

#define CALL(name) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_##name, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

/* mmap without PROT_EXEC: the table and malloc(). No call that makes a file, a socket, a process or a thread. */
static void filter_calls(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
#ifdef __NR_epoll_wait
        CALL(epoll_wait),
#endif
        CALL(epoll_pwait), CALL(recvmmsg), CALL(sendmmsg), CALL(sendmsg), CALL(recvmsg), CALL(sendto), CALL(recvfrom),
        CALL(accept4), CALL(epoll_ctl), CALL(close), CALL(clock_gettime), CALL(munmap), CALL(mremap), CALL(brk), CALL(madvise),
        CALL(getsockname), CALL(getsockopt), CALL(setsockopt), CALL(fcntl), CALL(fstat), CALL(newfstatat), CALL(write),
        CALL(getpid), CALL(getrandom), CALL(rt_sigreturn), CALL(restart_syscall), CALL(exit), CALL(exit_group),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_mmap, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
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
