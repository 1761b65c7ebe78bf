/* What the process gives up before it reads the first byte: file systems but one directory, the network, other programs,
 * most capabilities, most system calls, memory without end. Each holds where another fails: landlock is absent from some
 * kernels, and the system calls and capabilities that unpacking as root needs are strong ones.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/landlock.h>
#include <sys/resource.h>

#include "../sandbox.h"
#include "layer.h"

/* A zstd frame may ask for a window of 128 MiB; libraries and stacks take the rest. */
enum { MEMORY_MOST = 768 << 20, FILES_MOST = 256 };
enum { FS_ALL_1 = (1 << 13) - 1, FS_REFER = 1 << 13, FS_TRUNCATE = 1 << 14 };

static void limit(int what, rlim_t most) {
    struct rlimit old, new = {most, most};
    if (getrlimit(what, &old) == 0 && old.rlim_max < most)
        new.rlim_cur = new.rlim_max = old.rlim_max;
    if (setrlimit(what, &new))
        fail(errno, NULL, "setrlimit");
}

/* ABI 1 forbids links between directories, which layers are full of: as good as none. */
static int restrict_files(int directory) {
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (abi < 2)
        return 0;
    uint64_t all = FS_ALL_1 | FS_REFER | (abi >= 3 ? FS_TRUNCATE : 0);
    struct landlock_ruleset_attr handled = {.handled_access_fs = all};
    int rules = (int)syscall(SYS_landlock_create_ruleset, &handled, sizeof handled, 0);
    if (rules < 0)
        fail(errno, NULL, "landlock_create_ruleset");
    struct landlock_path_beneath_attr beneath = {.allowed_access = all & ~(uint64_t)LANDLOCK_ACCESS_FS_EXECUTE,
                                                 .parent_fd = directory};
    if (syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0))
        fail(errno, NULL, "landlock_add_rule");
    if (syscall(SYS_landlock_restrict_self, rules, 0))
        fail(errno, NULL, "landlock_restrict_self");
    close(rules);
    return (int)abi;
}

/* SYS_ADMIN is for trusted.overlay.opaque, SETFCAP for security.capability. Not MKNOD: the only device that is made is
 * the whiteout, 0:0, which needs none. */
static void drop_capabilities(void) {
    static const unsigned char kept[] = {CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID, CAP_SETFCAP, CAP_SYS_ADMIN};
    uint32_t keep = 0;
    for (size_t i = 0; i < sizeof kept; i++)
        keep |= 1U << kept[i];
    drop_bounding(keep);
    const char *failed = keep_capabilities(keep);
    if (failed)
        fail(errno, NULL, failed);
}

void sandbox_before_threads(struct sandbox *box, int directory) {
    if (syscall(SYS_close_range, DIRECTORY + 1, ~0U, 0))
        fail(errno, NULL, "close_range");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        fail(errno, NULL, "no_new_privs");
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_NOFILE, FILES_MOST);
#ifndef __SANITIZE_ADDRESS__
    limit(RLIMIT_AS, MEMORY_MOST);
#endif
    box->landlock = restrict_files(directory);
    drop_capabilities();
}

/* For all threads: the reader's runs already, so no call that makes one is needed. mmap and mprotect are allowed without
 * PROT_EXEC. openat is refused and no crime: libarchive asks iconv for a conversion, which looks for its modules, and
 * without one keeps the names as they are. */
void sandbox_with_threads(void) {
    struct sock_filter code[] = {
        BEGIN,
        CALL(write), CALL(openat2), CALL(close), CALL(fchown), CALL(fchmod), CALL(utimensat), CALL(read), CALL(futex),
        CALL(newfstatat), CALL(fstat), CALL(fchownat), CALL(symlinkat), CALL(linkat), CALL(mkdirat), CALL(mknodat),
        CALL(unlinkat), CALL(fsetxattr), CALL(pwrite64), CALL(ftruncate), CALL(lseek), CALL(getdents64),
        CALL(renameat2), CALL(syncfs), CALL(readlinkat), CALL(flistxattr), CALL(fgetxattr),
        CALL(fadvise64),
        CALL(munmap), CALL(mremap), CALL(brk), CALL(madvise), CALL(clock_gettime), CALL(sched_yield),
        CALL(rt_sigprocmask), CALL(rt_sigreturn), CALL(set_robust_list), CALL(rseq), CALL(gettid), CALL(getpid),
        CALL(exit), CALL(exit_group),
        IS(__NR_openat, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EACCES),
        IS(__NR_mmap, 1, 0),
        IS(__NR_mprotect, 0, 3),
        UNLESS_EXECUTABLE,
    };
    struct sock_fprog program = {.len = sizeof code / sizeof *code, .filter = code};
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program))
        fail(errno, NULL, "seccomp");
}
