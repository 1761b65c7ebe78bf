"""What the host has, read once: the only module that reads the host for planning.

Planners get a Facts and read nothing themselves, so the same config and the same Facts always give the same plan.
collect_facts() reads a handful of small files in /proc and /sys; it does no system call that changes anything.
"""

from __future__ import annotations

import posix

from .errors import PyrunError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN, CAP_MKNOD = 6, 7, 21, 27
INITIAL_USERNS = 0xEFFFFFFD  # its inode (linux/proc_ns.h)


class Facts:
    """The host, as far as plans depend on it.

    pid: the process that is to carry the plan out. kernel: (major, minor). arch: as uname has it. euid, egid. caps:
    effective capability mask. setgroups: our user namespace, or the one to join, allows setgroups(2). in_userns: we
    are not in the initial user namespace. cgroup_mount: where cgroup2 is mounted (None: nowhere). cgroup_own: our own
    cgroup below it. controllers: those of its root. lsm: names of active LSMs. max_hard: hard limits of ours by RLIMIT
    number. memfd: how pyrun-init is loaded (Clone3.load). last_cap.
    newuidmap, newgidmap: the setuid helpers, where a runtime without root may need them.
    Only for a config that asks for such things (facts_rare.py): net_devices, name -> (index, flags); net_addresses,
    the kernel's replies to a dump of all; resctrl_mount; resctrl_schemata of the container's group, None where there
    is none; cgroup_delegate, the files of a cgroup that go with it to another owner.
    """

    __slots__ = (
        "arch",
        "caps",
        "cgroup_delegate",
        "cgroup_mount",
        "cgroup_own",
        "controllers",
        "egid",
        "euid",
        "in_userns",
        "init_path",
        "kernel",
        "last_cap",
        "lsm",
        "max_hard",
        "memfd",
        "net_addresses",
        "net_devices",
        "newgidmap",
        "newuidmap",
        "pid",
        "resctrl_mount",
        "resctrl_schemata",
        "rootless",
        "setgroups",
    )

    def __init__(self, **values: object) -> None:
        self.pid = 0
        self.kernel: tuple[int, int] = (6, 1)
        self.arch = "x86_64"
        self.euid = 0
        self.egid = 0
        self.caps = (1 << 41) - 1
        self.last_cap = 40
        self.in_userns = False
        self.rootless = False
        self.setgroups = True
        self.cgroup_mount: str | None = "/sys/fs/cgroup"
        self.cgroup_own = "/"
        self.controllers: frozenset[str] = frozenset()
        self.lsm: frozenset[str] = frozenset()
        self.max_hard: dict[int, int] = {}
        self.memfd = 1
        self.newuidmap: str | None = None
        self.newgidmap: str | None = None
        self.init_path = "pyrun-init"
        self.net_devices: dict[str, tuple[int, int]] = {}
        self.net_addresses = b""
        self.cgroup_delegate: tuple[str, ...] = ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads")
        self.resctrl_mount: str | None = None
        self.resctrl_schemata: str | None = None
        for name, value in values.items():
            setattr(self, name, value)

    def copy(self) -> Facts:
        return Facts(**{name: getattr(self, name) for name in self.__slots__})

    def has_cap(self, cap: int) -> bool:
        return bool(self.caps >> cap & 1)


def is_there(path: str) -> bool:
    """Whether there is something of this name, be it a symlink that leads nowhere."""
    try:
        posix.lstat(path)
    except OSError:
        return False
    return True


def read_text(path: str, limit: int = 1 << 20) -> str:
    """A small file's text; "" when it can't be read."""
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return ""
    try:
        data, size = b"", 4096  # a sysctl's reader has the kernel clear as many bytes as it offers room
        while len(data) < limit:
            part = posix.read(fd, size)
            if not part:
                break
            data += part
            size = 4096 if len(part) < size else 65536
        return data.decode("utf-8", "surrogateescape")
    except OSError:
        return ""
    finally:
        posix.close(fd)


_constants: dict[str, str] = {}


def read_constant(path: str) -> str:
    """A file's text, which is the same as long as this kernel runs: read once by a process."""
    text = _constants.get(path, "")
    if not text:
        text = _constants[path] = read_text(path)
    return text


def cgroup2_mount(mountinfo: str) -> str | None:
    """Where cgroup2 is mounted: the last one that is not hidden by a later mount on the same place
    (proc_pid_mountinfo(5))."""
    found = None
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        point = left.split(" ")[4] if right else ""
        if right.startswith("cgroup2 "):
            if found is None or point == "/sys/fs/cgroup":
                found = point
        elif found is not None and (point == found or found.startswith(point.rstrip("/") + "/")) and point != "/":
            found = None
    return found.replace("\\040", " ") if found else None


def _own_cgroup(text: str) -> str:
    for line in text.splitlines():
        if line.startswith("0::"):
            return line[3:]
    return "/"


def cap_mask_of(status: str, key: str) -> int:
    """CapEff: and its like of a /proc/PID/status."""
    at = status.find(key)
    return int(status[at + len(key) :].split(None, 1)[0], 16) if at >= 0 else 0


def _in_userns(proc: str) -> bool:
    """Its map does not tell: that of a child may be the very same (systemd's PrivateUsers=full)."""
    try:
        return posix.stat(proc + "/ns/user").st_ino != INITIAL_USERNS
    except FileNotFoundError:  # a kernel without user namespaces
        return False


def _effective_id(status: str, key: str) -> int:
    return int(status.partition("\n" + key)[2].split(None, 2)[1])


def _memfd_mode(kernel: tuple[int, int]) -> int:
    if kernel < (6, 3):
        return 0
    return 2 if read_text("/proc/sys/vm/memfd_noexec").strip() == "2" else 1


def collect_facts(
    rootless: bool | None = None,
    pid: int | None = None,
    *,
    status: str = "",
    mounts: Callable[[], str | None] | None = None,
    making: bool = True,
) -> Facts:
    """Reads the host. rootless: True or False to say so, None to find out (no root, or root in a user namespace
    without ids). pid: another process than we that is to carry the plan out; it is in our namespaces and our root.
    status: its /proc/PID/status, where the caller has read it. mounts: says where cgroup2 is mounted, of a caller who
    hears of changes. making: a cgroup; else what that takes is left out, cgroup_own and controllers. PyrunError without
    a /proc: everything would seem other than it is."""
    proc = f"/proc/{pid or 'self'}"
    uname = posix.uname()
    release = uname.release.split("-")[0].split(".")
    status = status or read_text(proc + "/status")
    if not status:
        raise PyrunError("/proc is not mounted, or is something else", hint="mount -t proc proc /proc")
    mount = mounts() if mounts is not None else cgroup2_mount(read_text(proc + "/mountinfo", 8 << 20))
    kernel = (int(release[0]), int(release[1]))
    in_userns = _in_userns(proc)
    euid = _effective_id(status, "Uid:")
    return Facts(
        pid=pid or posix.getpid(),
        kernel=kernel,
        arch=uname.machine,
        euid=euid,
        egid=_effective_id(status, "Gid:"),
        caps=cap_mask_of(status, "CapEff:"),
        last_cap=int(read_constant("/proc/sys/kernel/cap_last_cap") or 40),
        in_userns=in_userns,
        rootless=(euid != 0 or in_userns) if rootless is None else rootless,
        setgroups=not in_userns or read_text(proc + "/setgroups").strip() != "deny",
        cgroup_mount=mount,
        cgroup_own=_own_cgroup(read_text(proc + "/cgroup")) if making else "/",
        controllers=frozenset(read_text(mount + "/cgroup.controllers").split()) if mount and making else frozenset(),
        lsm=frozenset(read_constant("/sys/kernel/security/lsm").strip().split(",")) - {""},
        max_hard=_hard_limits(read_text(proc + "/limits")),
        memfd=_memfd_mode(kernel),
        newuidmap=_find("newuidmap", euid),
        newgidmap=_find("newgidmap", euid),
        init_path=__file__.rpartition("/")[0] + "/bin/pyrun-init",
    )


def _find(helper: str, euid: int) -> str | None:
    """The setuid helper that writes id maps; root has no need of it."""
    for place in ("/usr/bin/", "/bin/", "/usr/local/bin/", "/usr/sbin/") if euid != 0 else ():
        try:
            posix.stat(place + helper)
        except OSError:
            continue
        return place + helper
    return None


def _hard_limits(text: str) -> dict[int, int]:
    """Hard limits by RLIMIT number, from /proc/PID/limits, where they stand in that order, in the third column (the
    resource module would have to be imported)."""
    hard = [line[47:67].split()[0] for line in text.splitlines()[1:]]
    return {number: (1 << 64) - 1 if word == "unlimited" else int(word) for number, word in enumerate(hard)}
