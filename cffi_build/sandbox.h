/* What the sandboxes of pyrun-dataplane, pyrun-dns, pyrun-layer and pyrun-probe are made of. Each is a list of the system
 * calls that its program needs; whatever else it calls kills it. */
#ifndef SANDBOX_H
#define SANDBOX_H

#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#else
#error "pyrun: which AUDIT_ARCH is this?"
#endif

#define ALLOW BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define KILL BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)
#define ARGUMENT(n) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[n]))
#define IS(value, yes, no) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, yes, no)
#define HAS(bits, yes, no) BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, bits, yes, no)
#define CALL(name) IS(__NR_##name, 0, 1), ALLOW

/* How each begins: with the call's number, of this architecture. */
#define BEGIN                                                                                                          \
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)), IS(ARCH, 1, 0), KILL,                     \
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))
/* How each ends, after the jumps that lead to it: memory that is no program's, and nothing else. */
#define UNLESS_EXECUTABLE ARGUMENT(2), HAS(PROT_EXEC, 1, 0), ALLOW, KILL

/* Of no consequence where it isn't allowed to: no_new_privs, and filters without execve, hold as well. */
static inline void drop_bounding(uint32_t keep) {
    for (unsigned long cap = 0; cap <= 63 && prctl(PR_CAPBSET_READ, cap) >= 0; cap++)
        if (cap > 31 || !(keep & 1U << cap))
            prctl(PR_CAPBSET_DROP, cap);
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
}

/* Of those that there are it keeps these, of the first 32. The name of the call that failed; NULL. */
static inline const char *keep_capabilities(uint32_t keep) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {0};
    if (syscall(SYS_capget, &header, data))
        return "capget";
    keep &= data[0].permitted;
    data[0] = (struct __user_cap_data_struct){.effective = keep, .permitted = keep};
    data[1] = (struct __user_cap_data_struct){0};
    return syscall(SYS_capset, &header, data) ? "capset" : NULL;
}

#endif
