"""Ways out, by the step that failed and its errno: the half-line behind `hint:`.

Each says what is the matter and what to do about it. A step's own hints come first, then those for its errno alone;
where nothing useful can be said there is none. In a text {name} is an operand of the step. What hangs on the host or on
the rest of the plan is read (facts_refused.py) and not guessed.
"""

from __future__ import annotations

from ...facts import read_text
from ...facts_refused import euid as euid
from ...facts_refused import has_cap, no_right, no_such_call, no_userns
from ...oci.names import NAMESPACES
from ..model import steps as s

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

EPERM, ENOENT, EIO, E2BIG, ENOEXEC, EBADF, EAGAIN, ENOMEM, EACCES, EBUSY = 1, 2, 5, 7, 8, 9, 11, 12, 13, 16
EEXIST, EXDEV, ENODEV, ENOTDIR, EISDIR, EINVAL, ENFILE, EMFILE, ENOTTY, ETXTBSY = 17, 18, 19, 20, 21, 22, 23, 24, 25, 26
EFBIG = 27
ENOSPC, EROFS, EPIPE, ERANGE, ENAMETOOLONG, ENOSYS, ENOTEMPTY, ELOOP = 28, 30, 32, 34, 36, 38, 39, 40

ELIBBAD, EUSERS, EOPNOTSUPP, ECONNREFUSED, ETIMEDOUT, EDQUOT, ECHILD, ESTALE = 80, 87, 95, 111, 110, 122, 10, 116

CAP_SYS_ADMIN, NGROUPS_MAX = 21, 65536

_ROOTLESS_CGROUP = (
    "this user may not change that cgroup; let systemd delegate one: systemd-run --user --scope -p Delegate=yes pyrun …"
)
_LIMITS = "outside of its cgroup the container's limits would not hold; "
_PROCESSES = "too many processes: a pids limit, RLIMIT_NPROC of the user, or the sysctl kernel.pid_max"
_NAMESPACES = "there are too many namespaces of one kind: see the limits in /proc/sys/user/max_*_namespaces"
_NOT_MAPPED = "the id has no place in the container's user namespace: add it to linux.{kind}Mappings"
_FULL = "the disk of --root is full, or has no inodes left: nothing was made"

_SILENT = "it neither went on nor failed: was its cgroup frozen, or does a mount wait for a server?"
HINTS: dict[tuple[type[s.Step], int], str] = {
    (s.OpenTree, ENOENT): "the bind source {path} does not exist on the host",
    (s.OpenTree, ENOTDIR): "a part of the bind source's path is not a directory",
    (s.OpenTree, EACCES): "the user who runs pyrun may not enter the directories above the bind source",
    (s.OpenTree, EPERM): "only root, or root in a user namespace of its own with a mount namespace, may clone a mount",
    (s.OpenTree, EINVAL): "the source lies on an unbindable mount, or one of another mount namespace",
    (s.MoveMount, ENOENT): "the mount point has gone since it was opened: does something change the root file system?",
    (s.MoveMount, ENOTDIR): "one of source and mount point is a directory and the other a file",
    (s.MoveMount, EINVAL): (
        "the mount point lies on a shared mount that would pass this mount on, or outside of the container"
    ),
    (s.MountSetattr, EINVAL): "the file system can't be idmapped, the kernel does not know one of these attributes, or "
    "what is to be remounted is no mount",
    (s.MountSetattr, EBADF): "the bind source is not there, or the container's ids may not go there",
    (s.MountSetattr, EPERM): "the mount has flags from outside this user namespace, which may not be taken off in it",
    (s.MountSetattr, EBUSY): "files are open for writing on it, so it can't be made read-only now",
    (s.Fsopen, ENODEV): "the kernel has no file system {fstype}: is its module loaded? see /proc/filesystems",
    (s.Fsopen, EPERM): "this user namespace may not mount {fstype}",
    (s.Fsconfig, EINVAL): "the file system does not take this option or its value",
    (s.Fsconfig, EPERM): "this user namespace may not make this file system; bind it from the host instead",
    (s.Fsconfig, ENOENT): "the source is not there",
    (s.Fsconfig, EBUSY): "the source is in use by another mount with other options",
    (s.Fsconfig, ENODEV): "the kernel lacks what this option asks for",
    (s.Fsmount, EPERM): (
        "in a user namespace proc and sysfs want one that is wholly visible outside; in a nested one bind "
        "/proc or /sys"
    ),
    (s.Fsmount, EBUSY): "the file system is in use with other options",
    (s.Mount, EINVAL): "the file system does not take these options",
    (s.Mount, ENODEV): "the kernel has no file system {fstype}: is its module loaded? see /proc/filesystems",
    (s.Mount, EPERM): "this user namespace may not mount {fstype}",
    (s.MakeTarget, EROFS): (
        "the mount point is not in the image, and the root file system can't be written: make {path} in the "
        "image"
    ),
    (s.MakeTarget, EACCES): (
        "root of the container's user namespace may not write there: who owns the root file system?"
    ),
    (s.MakeTarget, ELOOP): "the path leads through symlinks in a circle, or through one where none may be",
    (s.MakeTarget, ENOTDIR): "a part of {path} is a file in the image",
    (s.MakeTarget, EXDEV): "the path leads out of the root file system",
    (s.Mknodat, EPERM): "this user namespace may not make device nodes; bind the host's instead",
    (s.Mknodat, EEXIST): "the image has something else at /dev/{name}",
    (s.CheckType, ENOTDIR): "one of source and mount point is a directory and the other a file",
    (s.CheckType, EISDIR): "one of source and mount point is a directory and the other a file",
    (s.CheckType, ENODEV): "the host has another device there",
    (s.CheckDevice, ENODEV): "the image has put something else there (CVE-2025-31133)",
    (s.CheckFs, EXDEV): "something else is mounted there: it must be a real one (CVE-2019-16884)",
    (s.CheckNs, ENOTTY): "the path is of a file that is no namespace: /proc/PID/ns/* and what is bound from there are",
    (s.CheckNs, EINVAL): "the path is of a namespace of another type than config.json says",
    (s.CheckNs, EBUSY): "it is the host's own mount namespace: leave it out of linux.namespaces to share the host's",
    (s.CheckEmpty, ENOTEMPTY): (
        "processes run in that cgroup: does another container use it? give linux.cgroupsPath another value"
    ),
    (s.CheckEmpty, EBUSY): (
        "it, or a cgroup above it, is frozen, so nothing could begin in it: write 0 to its cgroup.freeze"
    ),
    (s.Await, ETIMEDOUT): _SILENT,
    (s.AwaitPid, ETIMEDOUT): _SILENT,
    (s.WaitExec, ETIMEDOUT): _SILENT,
    (s.SavePid, ESTALE): "somebody deleted the container while it was being made",
    (s.RemoveCgroup, EBUSY): (
        "a process in it does not end even by SIGKILL: it may wait for a disk or a network file system"
    ),
    (s.PivotRoot, EINVAL): "the root must be a mount of its own, and its parent not shared",
    (s.CopyUp, EPERM): "tmpcopyup is to copy a device, and none may be made in a user namespace or by the device rules",
    (s.CopyUp, ENOSPC): "the tmpfs is too small for what it is to hold: raise its size= option",
    (s.Clone3, EAGAIN): _PROCESSES,
    (s.Clone3, ENOMEM): "out of memory, or the PID namespace has no init any more",
    **{
        (step, errno): hint
        for step in (s.Clone3, s.Clone3Init)
        for errno, hint in (
            (EBUSY, "the cgroup hands controllers to its children, so no process may be in it itself"),
            (EOPNOTSUPP, "the cgroup is threaded, or below a threaded one"),
            (ENODEV, "the cgroup has been removed meanwhile"),
        )
    },
    (s.Clone3, EACCES): (
        "this user may not put a process into that cgroup, or memfds may not be executed (sysctl "
        "vm.memfd_noexec)"
    ),
    (s.Clone3, ENOENT): "the file {image} is missing: reinstall pyrun",
    (s.Clone3Init, EAGAIN): _PROCESSES,
    (s.Clone3Init, ENOSPC): _NAMESPACES,
    (s.Clone3Init, EUSERS): _NAMESPACES,
    (s.Clone3Init, EINVAL): "the kernel was built without one of these namespaces",
    (s.Clone3Init, ENOMEM): "out of memory, or the PID namespace to join has no init any more",
    (s.Unshare, ENOSPC): _NAMESPACES,
    (s.Unshare, EUSERS): _NAMESPACES,
    (s.Unshare, EINVAL): "the kernel was built without this namespace",
    (s.Setns, EINVAL): "the path is of a namespace of another type, or already left by its last process",
    (s.Setns, EPERM): "that namespace belongs to a user namespace in which pyrun has no rights",
    (s.Setresuid, EINVAL): _NOT_MAPPED.replace("{kind}", "uid"),
    (s.Setresgid, EINVAL): _NOT_MAPPED.replace("{kind}", "gid"),
    (s.Setgroups, EINVAL): _NOT_MAPPED.replace("{kind}", "gid"),
    (s.Setgroups, EPERM): (
        "the user namespace does not allow supplementary groups: its gid map was written without privilege"
    ),
    (s.Setrlimit, EPERM): "a hard limit above our own takes CAP_SYS_RESOURCE",
    (s.Setrlimit, EINVAL): "the soft limit is above the hard one, or above what the kernel allows",
    (s.Capbset, EPERM): "dropping from the bounding set takes CAP_SETPCAP",
    (s.Ambient, EPERM): "an ambient capability must be permitted and inheritable as well",
    (s.Seccomp, EINVAL): "the kernel does not take this filter or one of its flags",
    (s.Seccomp, EACCES): "without noNewPrivileges a filter takes CAP_SYS_ADMIN",
    (s.Seccomp, ENOMEM): "all filters of a process together are too long",
    (s.Personality, EINVAL): "the kernel does not know this personality",
    (s.SchedSetattr, EPERM): "real-time and higher priority take CAP_SYS_NICE",
    (s.SchedSetattr, EINVAL): "the policy does not take these values (sched(7))",
    (s.SchedSetattr, EBUSY): "there is not enough CPU time left for this deadline",
    (s.IoprioSet, EPERM): "the class rt takes CAP_SYS_ADMIN or CAP_SYS_NICE",
    (s.SchedSetaffinity, EINVAL): "none of these CPUs is there, or the cpuset leaves none of them",
    (s.SetMempolicy, EINVAL): "the memory nodes are not there, or the mode does not take them",
    (s.SetMempolicy, ENOSYS): "the kernel was built without NUMA",
    (s.KeyctlSession, EDQUOT): (
        "this user has too many keys: raise /proc/sys/kernel/keys/maxkeys, or use --no-new-keyring of create and run"
    ),
    **dict.fromkeys(
        ((s.KeyctlSession, EPERM), (s.KeyctlSession, EACCES)),
        "a seccomp profile or security module around pyrun refuses keyctl(2): allow it there, or use --no-new-keyring "
        "of create and run, which leaves the container the caller's keys",
    ),
    (s.FindExecutable, ENOENT): "it is not in the image, or not on the PATH that process.env sets",
    (s.FindExecutable, EACCES): "the file is not executable for this user, or lies on a mount with noexec",
    (s.FindExecutable, ENOTDIR): "a part of its path is a file",
    (s.Execve, ENOENT): (
        "the file exists but its interpreter or dynamic loader does not: see its first line, or file(1) and "
        "ldd(1)"
    ),
    (s.Execve, ENOEXEC): "it is neither a program for this machine nor a script that begins with #!",
    (s.Execve, EACCES): "the file or its interpreter is not executable for this user, or lies on a mount with noexec",
    (s.Execve, E2BIG): "the arguments and the environment are too long together",
    (s.Execve, ETXTBSY): "somebody has it open for writing",
    (s.Execve, ELIBBAD): "its interpreter or dynamic loader is damaged, or of another machine",
    (s.Execve, EPERM): "it lies on a mount with nosuid, or a security module forbids it",
    (s.Execve, EAGAIN): "the user has more processes than RLIMIT_NPROC allows",
    (s.Execve, ENOMEM): "the memory limit is too low to start it",
    (s.Chdir, ENOENT): "make {path} in the image, or change process.cwd",
    (s.Chdir, ENOTDIR): "process.cwd is a file in the image",
    (s.Chdir, EACCES): "the process's user may not enter process.cwd",
    (s.Chdir, EPERM): "that directory lies outside of the container's root (CVE-2024-21626)",
    (s.Spawn, ENOENT): "there is no such file: {path}",
    (s.Spawn, EACCES): "the file is not executable: {path}",
    (s.Spawn, ENOEXEC): "it is neither a program for this machine nor a script that begins with #!",
    (s.Spawn, ETIMEDOUT): "it was killed; its timeout in config.json is in seconds",
    (s.BpfProgLoad, EPERM): "device rules take CAP_BPF or CAP_SYS_ADMIN outside of user namespaces",
    (s.BpfProgLoad, EINVAL): "the kernel was built without CONFIG_CGROUP_BPF",
    (s.BpfProgAttach, EPERM): (
        "device rules take CAP_NET_ADMIN and CAP_BPF outside of user namespaces, or the parent cgroup allows "
        "no more of them"
    ),
    (s.Netlink, ENODEV): "there is no such network device in pyrun's network namespace",
    (s.Netlink, EEXIST): "a device of this name is in the container's network namespace already",
    (s.Netlink, EPERM): "it takes CAP_NET_ADMIN in the network namespace: only a new one is the container's own",
    (s.Netlink, EINVAL): "this device can't leave its network namespace",
    (s.Openpt, ENOENT): "a terminal needs a devpts at /dev/pts: see mounts of `pyrun spec`",
    (s.Openpt, ENOSPC): "there are too many terminals: see /proc/sys/kernel/pty/max",
    (s.Connect, ENOENT): "nobody has made that socket: who listens must be there first",
    (s.Connect, ECONNREFUSED): "nobody listens on that socket any more",
    (s.Connect, EAGAIN): "who listens on that socket has not accepted for 10 s: is it stopped?",
    (s.Connect, EACCES): "this user may not write to that socket",
    (s.SavePid, ENOENT): (
        "this /proc does not show the container's process: is it mounted with hidepid=, or another PID namespace's?"
    ),
    (s.SendFd, EPIPE): "who listened has gone away",
    (s.SendFd, EAGAIN): "who listens on that socket has not read for 10 s: is it stopped?",
    (s.CreateFile, ENOSPC): _FULL,
    (s.Mkfifoat, ENOSPC): _FULL,
    (s.PidFile, ENOSPC): "the disk of --pid-file is full",
    (s.PidFile, ENOENT): "the directory of --pid-file is not there",
    (s.PidFile, EACCES): "this user may not write to the directory of --pid-file",
    (s.PidFile, EROFS): "the directory of --pid-file can't be written",
    (s.PidfdGetfd, EPERM): "a security module forbids it: see /proc/sys/kernel/yama/ptrace_scope",
    (s.Sethostname, EINVAL): "a host name has at most 64 bytes",
    (s.Sethostname, EPERM): "without a uts namespace of its own the container can't have a host name",
    (s.Setdomainname, EPERM): "without a uts namespace of its own the container can't have a domain name",
}  # fmt: skip

FOR_ERRNO = {
    ENOSPC: "the disk or a limit of the kernel is exhausted",
    EDQUOT: "the disk quota of this user is exhausted",
    EFBIG: "a limit on the size of files is too low: raise `ulimit -f`",
    EMFILE: "pyrun has too many open files: raise `ulimit -n`",
    ENFILE: "the system has too many open files: see /proc/sys/fs/file-max",
    ENOMEM: "out of memory",
    EAGAIN: _PROCESSES,
    EROFS: "the file system can't be written",
    EIO: "the disk or file system has a fault: see dmesg",
    ELOOP: "the path leads through symlinks in a circle, or through one where none may be",
}


class Around:
    """The rest of the plan, as far as hints depend on it: filtered, the program has a seccomp profile; userns, its
    namespaces are those of a user namespace."""

    __slots__ = ("filtered", "userns")

    def __init__(self, steps: Iterable[s.Step]) -> None:
        self.filtered = self.userns = False
        for step in steps:
            self.filtered |= isinstance(step, s.Seccomp)
            kinds = step.args.get("flags" if isinstance(step, s.Unshare) else "nstype", 0)
            if isinstance(step, (s.Unshare, s.Setns)) and isinstance(kinds, int):
                self.userns |= bool(kinds & NAMESPACES["user"])


def find(step: s.Step, errno: int, operands: dict[str, str], substep: int, around: Around) -> str | None:
    """The hint for a step that failed with errno; operands: as text, to be named in it."""
    special = _special(step, errno, substep) or _refused(step, errno, around)
    if special:
        return special
    own = HINTS.get((type(step), errno))
    if own is not None:
        filled = own
        for name, value in {**{k: str(v) for k, v in step.args.items()}, **operands}.items():
            filled = filled.replace("{" + name + "}", value)
        return filled
    if errno in (EPERM, EACCES) and euid() != 0:
        way = "" if around.userns else ", or a container with a user namespace (pyrun spec --rootless)"
        return f"you are not root (uid {euid()}): use sudo{way}"
    if errno == ENOSYS:
        return no_such_call()
    return FOR_ERRNO.get(errno) or (no_right() if errno == EPERM else None)


def _refused(step: s.Step, errno: int, around: Around) -> str | None:
    """Who refused, where that can be told."""
    if isinstance(step, s.Unshare) and errno == EPERM and step.args["flags"] == NAMESPACES["user"]:
        return no_userns()
    if isinstance(step, s.Clone3Init) and errno == EPERM and not around.userns and not has_cap(CAP_SYS_ADMIN):
        return "only root may make these namespaces: add a user namespace (pyrun spec --rootless), or use sudo"
    if isinstance(step, s.Execve) and around.filtered and errno in (ENOSYS, EPERM, EACCES):
        if errno == ENOSYS:  # the kernel never says so of execve(2)
            return "the seccomp profile refuses execve: allow it in linux.seccomp"
        return f"the seccomp profile refuses execve, or {HINTS[s.Execve, errno]}"
    if isinstance(step, s.Setgroups) and errno == EINVAL and len(step.args["groups"]) > NGROUPS_MAX:  # type: ignore[arg-type]
        return f"a process has at most {NGROUPS_MAX} groups"
    if isinstance(step, s.Mkdirat) and not step.at and errno in (EACCES, EPERM) and euid() != 0:
        above = str(step.args["path"]).rpartition("/")[0]
        return f"this user may not write to {above}: set XDG_RUNTIME_DIR, or name a directory of yours with --root"
    return None


def _special(step: s.Step, errno: int, substep: int) -> str | None:
    """Hints that depend on more than the class: which file is opened or written, and in whose place."""
    at = step.at or ""
    if isinstance(step, s.Clone3Init) and errno == EACCES:
        return _cgroup_privilege()
    if isinstance(step, s.Clone3):
        return _clone_hint(errno, substep)
    if isinstance(step, s.Openat2) and errno == ENOENT:
        if at.startswith("/linux/namespaces"):
            return "there is no such namespace: has the process ended that it belongs to?"
        if at.startswith("/root"):
            return "the root file system is not there; a relative root.path is below the bundle"
    if isinstance(step, s.Mkdirat) and at == "/linux/cgroupsPath" and errno in (EACCES, EPERM, EROFS):
        return "the cgroup file system is read-only here" if errno == EROFS else _cgroup_privilege()
    if isinstance(step, s.Mkdirat) and not at and errno in (ENOSPC, EROFS):
        return _FULL if errno == ENOSPC else "name a directory that can be written to, with --root"
    if isinstance(step, s.FindExecutable) and errno == ENOENT and "/" in str(step.args["name"]):
        return "there is no such file in the image"
    if isinstance(step, s.WriteFile):
        return _write_hint(step, errno, str(step.args["path"]), at)
    if isinstance(step, s.Execve) and errno in (EACCES, EPERM) and "selinux" in read_text("/sys/kernel/security/lsm"):
        return f"{HINTS[s.Execve, errno]}, or SELinux does not let it become process.selinuxLabel (see the audit log)"
    return None


def _clone_hint(errno: int, substep: int) -> str | None:
    """substep: 0 loads pyrun-init, 1 and 2 make the socket and the plan's memfd, 3 clones, 4 executes."""
    if substep == 4 and errno == EACCES:
        return "memfds may not be executed here: see the sysctl vm.memfd_noexec, or a security module's log"
    if substep == 3 and errno in (EACCES, EPERM):
        return _cgroup_privilege()
    return None


def _cgroup_privilege() -> str:
    return (
        _ROOTLESS_CGROUP
        if euid() != 0
        else "this cgroup belongs to another user namespace or is delegated to someone else"
    )


def _write_hint(step: s.WriteFile, errno: int, path: str, at: str) -> str | None:
    name = path.rpartition("/")[2]
    if name == "cgroup.subtree_control":
        return {
            ENOENT: "a controller is not available there: see cgroup.controllers in the same directory",
            EBUSY: (
                "processes run in that cgroup itself, so it can't hand controllers to its children "
                "(cgroups(7), no internal processes)"
            ),
            EACCES: _cgroup_privilege(), EPERM: _cgroup_privilege(), EOPNOTSUPP: "that cgroup is threaded",
        }.get(errno)  # fmt: skip
    if name == "cgroup.procs":
        return {
            EBUSY: "the cgroup hands controllers to its children, so no process may be in it itself",
            EOPNOTSUPP: "the cgroup is threaded, or below a threaded one",
            ENODEV: "the cgroup has been removed meanwhile",
            EACCES: _LIMITS + _cgroup_privilege(), EPERM: _LIMITS + _cgroup_privilege(),
        }.get(errno)  # fmt: skip
    if at.startswith("/linux/resources"):
        controller = name.partition(".")[0]
        return {
            ENOENT: f"the controller {controller} is not enabled for this cgroup, or the kernel has no {name}",
            EINVAL: "the kernel does not take this value", ERANGE: "the value is out of range",
            EBUSY: "more than that is in use already", ENODEV: "there is no such device",
            EOPNOTSUPP: "the kernel or the device's scheduler has no such limit",
            EACCES: _cgroup_privilege(), EPERM: _cgroup_privilege(),
        }.get(errno)  # fmt: skip
    if name in ("uid_map", "gid_map", "setgroups"):
        return {
            EPERM: (
                "without privilege only the own id can be mapped; ranges of /etc/subuid need newuidmap "
                "(package uidmap)"
            ),
            EINVAL: "ranges must not overlap, and there are at most 340 of them",
        }.get(errno)  # fmt: skip
    if name == "oom_score_adj" and errno in (EACCES, EPERM):
        return "a value below our own takes CAP_SYS_RESOURCE"
    if name == "timens_offsets" and errno == ERANGE:
        return "the clock would run before the boot, or too far ahead"
    if name == "timens_offsets" and errno in (EACCES, EPERM):
        return "setting clocks takes CAP_SYS_TIME in the user namespace"
    if at.startswith("/linux/sysctl"):
        return {
            ENOENT: "the kernel has no such sysctl in this namespace", EINVAL: "the kernel does not take this value",
            EACCES: "it may not be set from a container", EPERM: "it may not be set from a container", EROFS: (
                "it may not be set from a container"
            ),
        }.get(errno)  # fmt: skip
    if at.endswith("apparmorProfile"):
        return "AppArmor is not on here, or the profile is not loaded: see aa-status"
    if at.endswith("selinuxLabel"):
        return "SELinux is not on here, or does not know this label (process.selinuxLabel, exec --process-label)"
    return None
