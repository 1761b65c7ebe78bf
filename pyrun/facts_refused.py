"""What the host says of a refusal, read when a step has failed: so that a hint says what is so, not what might be."""

from __future__ import annotations

import posix

from .facts import CAP_SYS_ADMIN, cap_mask_of, read_text

NEEDED = (5, 14)


def euid() -> int:
    """Whose rights we have."""
    words = read_text("/proc/self/status").partition("\nUid:")[2].split(None, 2)
    return int(words[1]) if len(words) > 1 else 0


def has_cap(cap: int) -> bool:
    return bool(cap_mask_of(read_text("/proc/self/status"), "CapEff:") >> cap & 1)


def is_filtered() -> bool:
    """A seccomp filter holds for pyrun itself: it runs in a container or service that has one."""
    return "\nSeccomp:\t2" in read_text("/proc/self/status")


def sysctl(name: str) -> str:
    """The value; "" where the kernel has no such one."""
    return read_text("/proc/sys/" + name.replace(".", "/")).strip()


def no_right() -> str:
    """Why even root may not (EPERM)."""
    every = (1 << int(sysctl("kernel.cap_last_cap") or 40) + 1) - 1
    if every & ~cap_mask_of(read_text("/proc/self/status"), "CapEff:"):
        return "it takes a capability that pyrun has not got here, though it may be root"
    if is_filtered():
        return "a seccomp filter under which pyrun itself runs refuses it, or a security module does: see its log"
    return "a security module refuses it: see its log"


def no_such_call() -> str:
    """Why there is no such system call (ENOSYS)."""
    if is_filtered():
        return "a seccomp filter under which pyrun itself runs refuses the system call"
    release = posix.uname().release
    version = tuple(int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit())
    if version < NEEDED:
        return f"this kernel is {release}; pyrun needs Linux {NEEDED[0]}.{NEEDED[1]}"
    return "this kernel was built without the system call"


def no_userns() -> str:
    """Why the kernel makes us no user namespace (EPERM; clone(2), CLONE_NEWUSER)."""
    chroot = "pyrun runs in a chroot, where the kernel makes no user namespaces: use pivot_root(8) in its place"
    if is_chrooted():
        return chroot
    for name, off in (("kernel.unprivileged_userns_clone", "0"), ("kernel.apparmor_restrict_unprivileged_userns", "1")):
        if sysctl(name) == off and euid() != 0:
            return f"user namespaces are switched off for users here: the sysctl {name} is {off}"
    if is_filtered():
        return "a seccomp filter under which pyrun itself runs allows no user namespaces"
    modules = {"selinux", "bpf"} & set(read_text("/sys/kernel/security/lsm").strip().split(","))
    if has_cap(CAP_SYS_ADMIN):  # so nothing else is left
        return f"{chroot}, or see the log of {' and '.join(sorted(modules))}" if modules else chroot
    return "our own ids have no place in the user namespace that we are in, or a security module forbids it"


def is_chrooted() -> bool:
    """A process above us has another root in the same mount namespace."""
    mine, namespace, pid = _root("self"), _mount_namespace("self"), _parent("self")
    while pid not in ("", "0"):
        if _mount_namespace(pid) == namespace and _root(pid) not in (None, mine):
            return True
        pid = _parent(pid)
    return False


def _root(pid: str) -> tuple[int, str] | None:
    """Inode and mount of a process's root; None where we may not know."""
    try:
        fd = posix.open(f"/proc/{pid}/root", posix.O_RDONLY | posix.O_CLOEXEC | posix.O_DIRECTORY)
    except OSError:
        return None
    mount = read_text(f"/proc/self/fdinfo/{fd}").partition("mnt_id:")[2].partition("\n")[0].strip()
    inode = posix.fstat(fd).st_ino
    posix.close(fd)
    return inode, mount


def _mount_namespace(pid: str) -> str | None:
    try:
        return posix.readlink(f"/proc/{pid}/ns/mnt")
    except OSError:
        return None


def _parent(pid: str) -> str:
    return read_text(f"/proc/{pid}/status").partition("\nPPid:")[2].partition("\n")[0].strip()
