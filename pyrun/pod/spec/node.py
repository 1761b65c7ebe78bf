"""What of this node a container's config.json depends on, read once before it is planned, and only what it needs.

Settings are the daemon's; Node is made for one request and collects its warnings.
"""

from __future__ import annotations

import os
import stat

from ...errors import InvalidArgument, PyrunError, reason
from ...facts import Facts, read_text
from .apparmor import NAME, load_default
from .draft import check_path, refuse
from .propagation import PRIVATE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .cdi import Edits

PROFILE_BYTES = 1 << 20
MOST_DEVICES = 16384
APPARMOR_PROFILES = "/sys/kernel/security/apparmor/profiles"
NOT_HOST_DEVICES = ("/dev/pts", "/dev/shm", "/dev/fd", "/dev/mqueue", "/dev/console", "/dev/.lxc", "/dev/.lxd-mounts")


class Settings:
    """strict_limits: a limit whose controller is missing is an error. default_seccomp: a container that names no
    profile gets RuntimeDefault, and else none, as the kubelet expects. rlimits: RLIMIT_NAME -> (soft, hard), for
    each container. cdi_dirs: where the specs of devices are; a later one wins. cgroup_driver: who makes cgroups."""

    __slots__ = ("cdi_dirs", "cgroup_driver", "default_seccomp", "rlimits", "strict_limits")

    def __init__(
        self,
        *,
        strict_limits: bool = False,
        default_seccomp: bool = False,
        rlimits: dict[str, tuple[int, int]] | None = None,
        cdi_dirs: tuple[str, ...] = ("/etc/cdi", "/var/run/cdi"),
        cgroup_driver: str = "cgroupfs",
    ) -> None:
        self.strict_limits = strict_limits
        self.default_seccomp = default_seccomp
        self.rlimits = rlimits or {}
        self.cdi_dirs = cdi_dirs
        self.cgroup_driver = cgroup_driver


class HostDevice:
    """A device of the host: path; type c or b; numbers; permission bits; owners."""

    __slots__ = ("gid", "major", "minor", "mode", "path", "type", "uid")

    def __init__(
        self, path: str, type: str, major: int, minor: int, mode: int = 0o666, uid: int = 0, gid: int = 0
    ) -> None:
        self.path = path
        self.type = type
        self.major = major
        self.minor = minor
        self.mode = mode
        self.uid = uid
        self.gid = gid


class Node:
    """facts, settings. hostname: the node's. oom_score_adj: ours, below which only CAP_SYS_RESOURCE goes. swap: the
    kernel counts it. page_sizes: of huge pages, as cgroups name them. apparmor: names of the profiles that are
    loaded, None without AppArmor. devices: host path -> the device, or those in that directory. host_devices: all, for
    a privileged container. profiles: path of a localhost seccomp profile -> its bytes. mountinfo, real_paths: where a
    mount wants propagation. cdi: what the specs of the CDI devices say. warnings: what was left out."""

    __slots__ = (
        "apparmor",
        "cdi",
        "devices",
        "facts",
        "host_devices",
        "hostname",
        "mountinfo",
        "oom_score_adj",
        "page_sizes",
        "profiles",
        "real_paths",
        "settings",
        "swap",
        "warnings",
    )

    def __init__(self, facts: Facts, settings: Settings | None = None, **values: Any) -> None:
        self.facts = facts
        self.settings = settings or Settings()
        self.hostname = "localhost"
        self.oom_score_adj = 0
        self.swap = True
        self.page_sizes: frozenset[str] = frozenset()
        self.apparmor: frozenset[str] | None = None
        self.devices: dict[str, list[HostDevice]] = {}
        self.host_devices: list[HostDevice] = []
        self.profiles: dict[str, bytes] = {}
        self.mountinfo = ""
        self.real_paths: dict[str, str] = {}
        self.cdi: list[Edits] = []
        self.warnings: list[str] = []
        for name, value in values.items():
            setattr(self, name, value)

    def has(self, controller: str, place: str) -> bool:
        """Whether a limit of this controller's can be set; else it is left out."""
        if controller in self.facts.controllers:
            return True
        self.left_out(place, f"the {controller} controller is not available on this node")
        return False

    def left_out(self, place: str, text: str) -> None:
        if self.settings.strict_limits:
            refuse(place, text, hint="the daemon has strict_limits")
        self.warnings.append(f"{place} is left out: {text}")


def collect_node(facts: Facts, config: Any, settings: Settings | None = None, *, imagine: bool = False) -> Node:
    """Reads what this ContainerConfig needs. InvalidArgument where a device or profile of it is not there. imagine: the
    plan is only to be shown, so nothing is loaded into the kernel for it."""
    node = Node(facts, settings, hostname=os.uname().nodename)
    node.oom_score_adj = int(read_text("/proc/self/oom_score_adj").strip() or 0)
    context = config.linux.security_context
    if config.linux.resources.memory_limit_in_bytes or config.linux.resources.memory_swap_limit_in_bytes:
        node.swap = os.path.exists(f"{_a_cgroup(facts)}/memory.swap.max")
    if config.linux.resources.hugepage_limits:
        node.page_sizes = _page_sizes()
    if "apparmor" in facts.lsm:
        node.apparmor = _loaded() | {NAME} if imagine else _apparmor(node)
    for index, given in enumerate(config.devices):
        node.devices[given.host_path] = _devices(f"devices.{index}.host_path", given.host_path)
    if context.privileged:
        node.host_devices = all_devices()
    path = localhost_profile(context)
    if path is not None:
        node.profiles[path] = _read_profile(path)
    if any(m.propagation != PRIVATE for m in config.mounts):
        node.mountinfo = read_text("/proc/self/mountinfo", 16 << 20)
        node.real_paths = {
            m.host_path: os.path.realpath(m.host_path) for m in config.mounts if m.propagation != PRIVATE
        }
    if config.CDI_devices:
        from .cdi import collect_edits

        node.cdi = collect_edits([device.name for device in config.CDI_devices], node.settings.cdi_dirs)
    return node


def _apparmor(node: Node) -> frozenset[str]:
    """The profiles that are loaded; ours is, if it can be."""
    loaded = _loaded()
    if NAME in loaded:
        return loaded
    try:
        return _loaded() if load_default() else loaded
    except PyrunError as error:
        node.warnings.append(error.text)
        return loaded


def _loaded() -> frozenset[str]:
    lines = read_text(APPARMOR_PROFILES, 16 << 20).splitlines()
    return frozenset(line.rpartition(" (")[0] for line in lines)


def localhost_profile(context: Any) -> str | None:
    """The path of the seccomp profile that a container brings."""
    if context.HasField("seccomp"):
        return check_path("linux.security_context.seccomp.localhost_ref", _ref(context)) if _is_local(context) else None
    old: str = context.seccomp_profile_path
    if not old.startswith("localhost/"):
        return None
    return check_path("linux.security_context.seccomp_profile_path", old[len("localhost/") :])


def _is_local(context: Any) -> bool:
    return bool(context.seccomp.profile_type == 2)  # SecurityProfile.Localhost


def _ref(context: Any) -> str:
    """Old kubelets and crictl put localhost/ in front of it."""
    ref: str = context.seccomp.localhost_ref
    return ref.removeprefix("localhost/") if ref.startswith("localhost//") else ref


def _a_cgroup(facts: Facts) -> str:
    """One that is not the root, which has no limits."""
    mount = facts.cgroup_mount or "/sys/fs/cgroup"
    if facts.cgroup_own.strip("/"):
        return f"{mount.rstrip('/')}{facts.cgroup_own}"
    try:
        with os.scandir(mount) as entries:
            return next((entry.path for entry in entries if entry.is_dir(follow_symlinks=False)), mount)
    except OSError:
        return mount


def _page_sizes() -> frozenset[str]:
    try:
        names = os.listdir("/sys/kernel/mm/hugepages")
    except OSError:
        return frozenset()
    return frozenset(
        page_size(int(name[10:-2]) << 10) for name in names if name.endswith("kB") and name[10:-2].isdigit()
    )


def page_size(size: int) -> str:
    """2097152 -> 2MB: the largest unit that divides it (hugetlb_cgroup.c, mem_fmt)."""
    for unit, shift in (("GB", 30), ("MB", 20), ("KB", 10)):
        if size >= 1 << shift:
            return f"{size >> shift}{unit}"
    return f"{size}B"


def _read_profile(path: str) -> bytes:
    place = "linux.security_context.seccomp.localhost_ref"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise InvalidArgument(f"{place}: {path}: {reason(error)}") from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            refuse(place, f"{path} is no regular file")
        data = os.read(fd, PROFILE_BYTES + 1)
    finally:
        os.close(fd)
    if len(data) > PROFILE_BYTES:
        refuse(place, f"{path} is larger than 1 MiB")
    return data


def _device(path: str) -> HostDevice | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    kind = {stat.S_IFCHR: "c", stat.S_IFBLK: "b"}.get(stat.S_IFMT(found.st_mode))
    if kind is None:
        return None
    numbers = os.major(found.st_rdev), os.minor(found.st_rdev)
    return HostDevice(path, kind, *numbers, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)


def _devices(place: str, path: str) -> list[HostDevice]:
    """A device, or all below a directory, as peers take that."""
    path = "/" + check_path(place, path).strip("/")
    device = _device(path)
    if device is not None:
        return [device]
    try:
        is_dir = stat.S_ISDIR(os.stat(path).st_mode)
    except OSError as error:
        raise InvalidArgument(f"{place}: {path}: {reason(error)}") from None
    return all_devices(path) if is_dir else []


def all_devices(root: str = "/dev") -> list[HostDevice]:
    """Every device below a directory, but the terminals and what is each container's own. No symlink is followed."""
    found: list[HostDevice] = []
    waiting = [root]
    while waiting and len(found) < MOST_DEVICES:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in sorted(entries, key=lambda e: e.name):
                    if entry.path in NOT_HOST_DEVICES or entry.is_symlink():
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif (device := _device(entry.path)) is not None:
                        found.append(device)
        except OSError:
            continue
    return found
