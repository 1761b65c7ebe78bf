"""Facts for configs that have linux.netDevices or linux.intelRdt, or a writable cgroup: the devices and addresses of
the host, resctrl, and what of a cgroup can be delegated.

Apart from facts.py, because few need them and every create pays for what it imports. Like facts.py it changes nothing.
"""

from __future__ import annotations

import posix
from _struct import Struct

from .facts import Facts, read_text
from .oci.model import IntelRdt, Spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

AF_INET, SOCK_DGRAM, AF_NETLINK, SOCK_RAW = 2, 2, 16, 3
SIOCGIFFLAGS = 0x8913
RTM_GETADDR, NLM_F_REQUEST_DUMP, NLMSG_DONE = 22, 0x301, 3
_HEADER = Struct("=IHHII")


def collect_rare(facts: Facts, spec: Spec, container: str, *, imagine: bool = False) -> None:
    """Fills in what the spec asks for; nothing for most. imagine: for a plan that is only shown, devices and resctrl
    are taken to be there."""
    linux = spec.linux
    for namespace in linux.namespaces if linux is not None else ():
        if namespace.type == "user" and namespace.path is not None:
            facts.setgroups = collect_setgroups(namespace.path)
    delegate = read_text("/sys/kernel/cgroup/delegate").split()
    if delegate:
        facts.cgroup_delegate = tuple(delegate)
    if linux is not None and linux.net_devices:
        facts.net_devices = dict.fromkeys(linux.net_devices, (2, 0)) if imagine else {}
        facts.net_devices |= collect_devices(linux.net_devices)
        facts.net_addresses = collect_addresses()
    if linux is not None and linux.intel_rdt is not None:
        facts.resctrl_mount = resctrl_mount() or ("/sys/fs/resctrl" if imagine else None)
        facts.resctrl_schemata = collect_schemata(facts.resctrl_mount, linux.intel_rdt, container)
        if imagine and facts.resctrl_schemata is None and linux.intel_rdt.clos_id and not linux.intel_rdt.schemata:
            facts.resctrl_schemata = ""


def collect_setgroups(path: str) -> bool:
    """Whether the user namespace of this path allows setgroups(2). Only a process in it can tell: taken to be so where
    the path is none of a process's."""
    process = path.removesuffix("/ns/user")
    return process == path or read_text(process + "/setgroups").strip() != "deny"


def collect_devices(names: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Index and flags (netdevice(7)) of the devices of these names that are there."""
    import _socket
    import fcntl

    found = {}
    sock = _socket.socket(AF_INET, SOCK_DGRAM)
    try:
        for name in names:
            try:
                index = _socket.if_nametoindex(name)
                raw = name.encode("utf-8", "surrogateescape")
                reply = fcntl.ioctl(sock.fileno(), SIOCGIFFLAGS, raw[:15].ljust(40, b"\0"))
            except (OSError, ValueError):
                continue
            found[name] = (index, int.from_bytes(reply[16:18], "little"))
    finally:
        sock.close()
    return found


def collect_addresses() -> bytes:
    """The kernel's replies to a dump of all addresses, one after the other (rtnetlink(7))."""
    import _socket

    sock = _socket.socket(AF_NETLINK, SOCK_RAW, 0)
    try:
        sock.send(_HEADER.pack(24, RTM_GETADDR, NLM_F_REQUEST_DUMP, 1, 0) + bytes(8))
        replies = b""
        while True:
            reply = sock.recv(1 << 16)
            replies += reply
            if not reply or _is_last(reply):
                return replies
    finally:
        sock.close()


def _is_last(reply: bytes) -> bool:
    at = 0
    while at + _HEADER.size <= len(reply):
        length, kind, *_ = _HEADER.unpack_from(reply, at)
        if kind == NLMSG_DONE or length < _HEADER.size:
            return True
        at += (length + 3) & ~3
    return False


def resctrl_mount() -> str | None:
    """Where resctrl is mounted; None: nowhere."""
    for line in read_text("/proc/self/mountinfo", 8 << 20).splitlines():
        left, _, right = line.partition(" - ")
        if right.startswith("resctrl "):
            return left.split(" ")[4].replace("\\040", " ")
    return None


def collect_schemata(mount: str | None, rdt: IntelRdt, container: str) -> str | None:
    """What the container's group says, None where it is not there."""
    group = container if rdt.clos_id is None else rdt.clos_id.strip("/")
    if mount is None or not _is_directory(f"{mount}/{group}"):
        return None
    return read_text(f"{mount}/{group}/schemata")


def _is_directory(path: str) -> bool:
    try:
        return posix.stat(path).st_mode & 0o170000 == 0o040000
    except OSError:
        return False
