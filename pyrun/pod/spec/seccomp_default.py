"""RuntimeDefault: what a container's program may ask of the kernel, by what the calls are about.

A list of what is allowed, so that a call of tomorrow's kernel is refused until somebody has thought of it. Left out is
what reaches past the container (mounts, modules, clocks, other users' memory, the kernel's log and counters) and what
is large and seldom needed, where most holes were found: bpf, io_uring, userfaultfd, keys. A capability that the
container has opens what it is for, for the kernel asks for that capability anyway.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

EPERM, ENOSYS = 1, 38
AF_VSOCK = 40  # it has no namespace: the hypervisor would be reached
NEW_NAMESPACES = 0x7E020000 | 0x80  # CLONE_NEW*: NS, CGROUP, UTS, IPC, USER, PID, NET; NEWTIME in clone's exit signal

FILES = """
    access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2
    fadvise64 fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync
    flock fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futimesat getcwd getdents getdents64
    ioctl lchown lchown32 link linkat _llseek lseek lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at
    newfstatat open openat openat2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat
    readv rename renameat renameat2 rmdir sendfile sendfile64 splice stat stat64 statfs statfs64 statx symlink symlinkat
    sync sync_file_range sync_file_range2 arm_sync_file_range syncfs tee truncate truncate64 umask unlink unlinkat utime
    utimensat utimensat_time64 utimes vmsplice write writev cachestat arm_fadvise64_64
    getxattr lgetxattr fgetxattr getxattrat setxattr lsetxattr fsetxattr setxattrat listxattr llistxattr flistxattr
    listxattrat removexattr lremovexattr fremovexattr removexattrat file_getattr file_setattr
    inotify_add_watch inotify_init inotify_init1 inotify_rm_watch fanotify_mark
"""
MEMORY = """
    brk mmap mmap2 mprotect mremap msync munmap madvise mincore mlock mlock2 mlockall munlock munlockall membarrier
    memfd_create memfd_secret mseal map_shadow_stack pkey_alloc pkey_free pkey_mprotect remap_file_pages
    process_mrelease
"""
PROCESSES = """
    execve execveat exit exit_group fork vfork wait4 waitid waitpid getpid getppid gettid getpgid getpgrp setpgid getsid
    setsid set_tid_address set_robust_list get_robust_list kill tkill tgkill pidfd_open pidfd_send_signal prctl rseq
    restart_syscall capget capset seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self getcpu uname
    sysinfo times getrusage getrlimit ugetrlimit setrlimit prlimit64 getpriority setpriority ioprio_get ioprio_set
    sched_getaffinity sched_setaffinity sched_getattr sched_setattr sched_getparam sched_setparam sched_getscheduler
    sched_setscheduler sched_get_priority_max sched_get_priority_min sched_rr_get_interval sched_rr_get_interval_time64
    sched_yield futex futex_time64 futex_wait futex_wake futex_requeue futex_waitv set_thread_area get_thread_area
    ptrace
"""
IDS = """
    getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 getresuid getresuid32 getresgid getresgid32
    getgroups getgroups32 setuid setuid32 setgid setgid32 setreuid setreuid32 setregid setregid32 setresuid setresuid32
    setresgid setresgid32 setgroups setgroups32 setfsuid setfsuid32 setfsgid setfsgid32
"""
SIGNALS = """
    rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
    rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack signal sigaction sigpending sigprocmask sigreturn sigsuspend
    pause alarm signalfd signalfd4 eventfd eventfd2
"""
TIME = """
    clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 gettimeofday
    time nanosleep getitimer setitimer timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64
    timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64
    adjtimex
"""
WAITING = """
    poll ppoll ppoll_time64 select _newselect pselect6 pselect6_time64 epoll_create epoll_create1 epoll_ctl
    epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old io_setup io_submit io_cancel io_destroy
    io_getevents io_pgetevents io_pgetevents_time64
"""
TALKING = """
    accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64 recvmsg
    send sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair pipe pipe2 ipc mq_getsetattr mq_notify
    mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget msgrcv
    msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget getrandom
"""
ALWAYS = " ".join((FILES, MEMORY, PROCESSES, IDS, SIGNALS, TIME, WAITING, TALKING)).split()

MOUNTING = (
    "mount umount umount2 pivot_root fsopen fsconfig fsmount fspick move_mount open_tree open_tree_attr mount_setattr"
)
WITH = {
    "CAP_SYS_ADMIN": f"{MOUNTING} statmount listmount clone clone3 unshare setns bpf perf_event_open fanotify_init "
    "quotactl quotactl_fd sethostname setdomainname syslog lookup_dcookie lsm_get_self_attr lsm_set_self_attr "
    "lsm_list_modules",
    "CAP_BPF": "bpf",
    "CAP_PERFMON": "perf_event_open",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "init_module finit_module delete_module",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev",
    "CAP_SYS_RAWIO": "iopl ioperm",
    "CAP_SYS_TIME": "settimeofday stime clock_settime clock_settime64 clock_adjtime clock_adjtime64",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYSLOG": "syslog",
}
ARCHES = {
    "x86_64": (("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"), "arch_prctl modify_ldt"),
    "aarch64": (("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"), "arm_sync_file_range breakpoint cacheflush set_tls"),
}
# What personality(2) may be asked for: Linux, a 32-bit uname (8), no address randomization with neither, and "which".
PERSONALITIES = (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)


def default_profile(bounding: list[str], arch: str) -> dict[str, Any]:
    """linux.seccomp for a container that has these capabilities, on a machine as uname calls it."""
    architectures, more = ARCHES.get(arch, ((), ""))
    names = dict.fromkeys([*ALWAYS, *more.split()])
    for capability, calls in WITH.items():
        if capability in bounding:
            names.update(dict.fromkeys(calls.split()))
    rules: list[dict[str, Any]] = [{"names": list(names), "action": "SCMP_ACT_ALLOW"}]
    rules += [_only(["personality"], 0, value, "SCMP_CMP_EQ") for value in PERSONALITIES]
    rules.append(_only(["socket"], 0, AF_VSOCK, "SCMP_CMP_NE"))
    if "CAP_SYS_ADMIN" not in bounding:
        args = [{"index": 0, "value": NEW_NAMESPACES & ~0x80, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]
        rules.append({"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": args})
        # Its flags lie in memory, which a filter can't read: the C library falls back to clone.
        rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS})
    made: dict[str, Any] = {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": EPERM, "syscalls": rules}
    if architectures:
        made["architectures"] = list(architectures)
    return made


def _only(names: list[str], index: int, value: int, op: str) -> dict[str, Any]:
    return {"names": names, "action": "SCMP_ACT_ALLOW", "args": [{"index": index, "value": value, "op": op}]}
