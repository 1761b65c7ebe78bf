"""RuntimeDefault as the filter that it becomes: what a program may and may not ask for."""

from __future__ import annotations

import errno
import json
import subprocess

import pytest

from pyrun.oci.load import load_bytes
from pyrun.plan.process.seccomp import ALLOW, plan_seccomp
from pyrun.pod.spec.process import CAPABILITIES
from pyrun.pod.spec.seccomp_default import ALWAYS, WITH, default_profile
from tests.unit.test_seccomp import X86_64, number_of, run

USUAL = list(CAPABILITIES)
EPERM, ENOSYS = 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
NEWUSER, SIGCHLD = 0x10000000, 17
NEWER = """
    cachestat fchmodat2 file_getattr file_setattr futex_requeue futex_wait futex_waitv futex_wake getxattrat listmount
    listxattrat lsm_get_self_attr lsm_list_modules lsm_set_self_attr map_shadow_stack memfd_secret mseal open_tree_attr
    process_mrelease quotactl_fd removexattrat set_mempolicy_home_node setxattrat statmount
"""  # than the headers of the oldest system that this is tested on
ELSEWHERE = "arm_fadvise64_64 arm_sync_file_range epoll_ctl_old epoll_wait_old fstatat64 recv send sync_file_range2"


def compiled(bounding: list[str], arch: str = "x86_64") -> bytes:
    config = {
        "ociVersion": "1.3.0",
        "root": {"path": "r"},
        "linux": {"seccomp": default_profile(bounding, arch)},
    }
    spec = load_bytes(json.dumps(config).encode())
    assert spec.linux is not None
    program = plan_seccomp(spec.linux.seccomp, arch=arch, nnp=False)
    assert program is not None
    return program.bpf


FILTER, ADMIN = compiled(USUAL), compiled([*USUAL, "CAP_SYS_ADMIN"])


def answer(name: str, *args: int, bpf: bytes = FILTER) -> int:
    return run(bpf, X86_64, number_of(name), *args)


@pytest.mark.parametrize(
    "name",
    "mount umount2 pivot_root fsopen move_mount open_tree mount_setattr unshare setns bpf perf_event_open "
    "io_uring_setup userfaultfd add_key request_key keyctl kexec_load kexec_file_load init_module finit_module "
    "delete_module reboot swapon swapoff settimeofday "
    "clock_settime syslog acct quotactl iopl ioperm open_by_handle_at process_vm_readv "
    "process_vm_writev pidfd_getfd kcmp lookup_dcookie nfsservctl vhangup migrate_pages move_pages mbind "
    "set_mempolicy fanotify_init".split(),
)
def test_what_is_refused(name: str) -> None:
    assert answer(name) == EPERM


@pytest.mark.parametrize(
    "name",
    "read write openat execve mmap futex rseq statx pidfd_open pidfd_send_signal close_range epoll_pwait2 memfd_create "
    "landlock_create_ruleset seccomp prctl ptrace socketpair getrandom sched_setattr chroot mknod "
    "inotify_init1".split(),
)
def test_what_is_allowed(name: str) -> None:
    assert answer(name) == ALLOW


def test_no_new_namespace_by_clone() -> None:
    assert answer("clone", SIGCHLD) == ALLOW and answer("clone", 0x3D0F00) == ALLOW, "fork and a thread"
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, NEWUSER, 0x20000000, 0x40000000):
        assert answer("clone", SIGCHLD | flag) == EPERM, hex(flag)
    assert answer("clone3") == ENOSYS, "its flags can't be seen: the C library falls back"
    assert answer("clone", NEWUSER, bpf=ADMIN) == ALLOW and answer("clone3", bpf=ADMIN) == ALLOW


def test_arguments() -> None:
    assert answer("socket", 2) == ALLOW and answer("socket", 16) == ALLOW and answer("socket", 40) == EPERM
    assert answer("personality", 0) == ALLOW and answer("personality", 0xFFFFFFFF) == ALLOW
    assert answer("personality", 0x40000) == EPERM, "READ_IMPLIES_EXEC"


@pytest.mark.parametrize("capability", sorted(WITH))
def test_a_capability_opens_what_it_is_for(capability: str) -> None:
    calls = [name for name in WITH[capability].split() if number_of(name) >= 0]
    bpf = compiled([*USUAL, capability])
    without = compiled([name for name in USUAL if name != capability])
    assert calls
    for name in calls:
        assert answer(name, bpf=bpf) == ALLOW, name
        assert answer(name, bpf=without) in (EPERM, ENOSYS) or name == "clone", name


def test_each_name_is_a_call_of_some_machine() -> None:
    """A mistyped one would be passed over without a word."""
    names = set(ALWAYS) | {name for calls in WITH.values() for name in calls.split()}
    text = subprocess.run(
        ["cc", "-E", "-dM", "-include", "asm/unistd_32.h", "-include", "asm-generic/unistd.h", "-"],
        input="", capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    known = {
        line.split()[1].removeprefix("__NR_").removeprefix("3264_") for line in text.splitlines() if " __NR_" in line
    }
    unknown = {name for name in names if number_of(name) < 0 and name not in known}
    assert unknown <= set(NEWER.split()) | set(ELSEWHERE.split()), "a name of no machine's"


def test_another_machine() -> None:
    assert compiled(USUAL, "aarch64")
