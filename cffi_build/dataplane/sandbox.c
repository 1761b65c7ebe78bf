/* What the process gives up before it takes the first byte: root, every capability but two, files, programs, most system calls. It has
 * no thread, so that what is set here holds for all of it. */
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

#include "dp.h"

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#else
#error "pyrun-dataplane: which AUDIT_ARCH is this?"
#endif

/* NET_RAW: sockets with a client's address (IP_TRANSPARENT). NET_BIND_SERVICE: sockets of services below port 1024, of UDP and SCTP. */
static void keep_capabilities(void) {
    static const unsigned char kept[] = {CAP_NET_BIND_SERVICE, CAP_NET_RAW};
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {0};
    if (syscall(SYS_capget, &header, data))
        fail(errno, "capget");
    uint32_t keep = 0, had = data[0].permitted;
    for (size_t i = 0; i < sizeof kept; i++)
        keep |= 1U << kept[i];
    data[0] = (struct __user_cap_data_struct){.effective = had & keep, .permitted = had & keep};
    data[1] = (struct __user_cap_data_struct){0};
    if (syscall(SYS_capset, &header, data))
        fail(errno, "capset");
}

static void drop_bounding(void) {
    for (unsigned long cap = 0; cap <= 63 && prctl(PR_CAPBSET_READ, cap) >= 0; cap++)
        prctl(PR_CAPBSET_DROP, cap);
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
}

static void become(uint32_t uid, uint32_t gid) {
    if (geteuid() != 0)
        return; /* who starts us without root gets a proxy without its clients' addresses */
    drop_bounding();
    if (uid == 0)
        return;
    if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0))
        fail(errno, "keepcaps");
    if (setgroups(0, NULL) || setresgid(gid, gid, gid) || setresuid(uid, uid, uid))
        fail(errno, "setresuid");
    prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0);
}

#define ALLOW BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define KILL BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)
#define CALL(name) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_##name, 0, 1), ALLOW
#define ARGUMENT(n) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[n]))

static void filter(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0),
        KILL,
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        CALL(recvfrom), CALL(sendto), CALL(splice), CALL(epoll_pwait),
#ifdef __NR_epoll_wait
        CALL(epoll_wait),
#endif
        CALL(epoll_ctl), CALL(close), CALL(accept4), CALL(listen), CALL(getsockname), CALL(setsockopt), CALL(connect), CALL(bind), CALL(shutdown),
        CALL(getsockopt), CALL(recvmmsg), CALL(sendmmsg), CALL(recvmsg), CALL(sendmsg), CALL(pipe2), CALL(fcntl), CALL(clock_gettime),
        CALL(brk), CALL(munmap), CALL(mremap), CALL(madvise), CALL(fstat), CALL(newfstatat), CALL(memfd_create), CALL(ftruncate),
        CALL(pread64), CALL(dup), CALL(getpid), CALL(getrandom), CALL(rt_sigreturn), CALL(exit_group), CALL(write), CALL(restart_syscall), CALL(futex),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_socket, 0, 10), /* of the internet: TCP, UDP, SCTP, and no raw one */
        ARGUMENT(0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_INET, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_INET6, 0, 6),
        ARGUMENT(1),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0xf & ~(SOCK_STREAM | SOCK_DGRAM), 4, 0),
        ARGUMENT(2),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_SCTP, 0, 1),
        ALLOW,
        KILL,
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_mmap, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_mprotect, 0, 3),
        ARGUMENT(2),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 1, 0),
        ALLOW,
        KILL,
    };
    struct sock_fprog program = {.len = sizeof code / sizeof *code, .filter = code};
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program))
        fail(errno, "seccomp");
}

void sandbox(uint32_t uid, uint32_t gid) {
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    become(uid, gid);
    keep_capabilities();
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
        fail(errno, "no_new_privs");
    filter();
}
