"""What the pods' network needs of the node: forwarding, its links' MTU, whether it has an address of its own.

A machine that forwards is a router, so turning it on is said aloud. With IPv6 there is a trap: a link that learns its
route from router advertisements stops to when the machine forwards, unless accept_ra is 2.
"""

from __future__ import annotations

import os
import socket

from ...errors import FailedPrecondition, reason
from ...facts import read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SYS = "/proc/sys/net"
FORWARDING = {4: f"{SYS}/ipv4/ip_forward", 6: f"{SYS}/ipv6/conf/all/forwarding"}
DEFAULT_MTU = 1500


def has_ipv6() -> bool:
    return read_text(f"{SYS}/ipv6/conf/all/disable_ipv6").strip() == "0"


def forwards(version: int) -> bool:
    return read_text(FORWARDING[version]).strip() not in ("", "0")


def start_forwarding(version: int, warn: Callable[[str], None]) -> None:
    """FailedPrecondition where it can't be turned on."""
    if forwards(version):
        return
    if version == 6:
        _keep_router_advertisements(warn)
    try:
        _write(FORWARDING[version], "1")
    except OSError as e:
        raise FailedPrecondition(
            f"{FORWARDING[version]} is 0 and can't be set: {reason(e)}",
            hint=f"pods reach each other and the outside only by a node that forwards IPv{version}",
        ) from None
    warn(f"turned on forwarding of IPv{version} ({FORWARDING[version][len('/proc/sys/') :]} = 1): pods need it")


def _keep_router_advertisements(warn: Callable[[str], None]) -> None:
    base = f"{SYS}/ipv6/conf"
    for name in sorted(os.listdir(base)) if os.path.isdir(base) else ():
        if name in ("all", "default", "lo") or name.startswith("pyr"):
            continue
        if read_text(f"{base}/{name}/accept_ra").strip() == "1":
            try:
                _write(f"{base}/{name}/accept_ra", "2")
            except OSError:
                continue
            warn(f"net.ipv6.conf.{name}.accept_ra = 2: it is to learn its route still when the node forwards")


def _write(path: str, value: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def uplink_mtu() -> int:
    """That of the link with the default route; 1500 where there is none."""
    for line in read_text("/proc/net/route").splitlines()[1:]:
        words = line.split()
        if len(words) > 7 and words[1] == words[7] == "00000000":
            return max(1280, min(65535, _mtu_of(words[0]) or DEFAULT_MTU))
    return DEFAULT_MTU


def _mtu_of(name: str) -> int:
    """By ioctl: /sys may be another network namespace's."""
    import fcntl
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            found = fcntl.ioctl(s, 0x8921, struct.pack("16sI12x", name.encode()[:15], 0))  # SIOCGIFMTU
        except OSError:
            return 0
    return int(struct.unpack("16sI12x", found)[1])


def has_ipv4_address() -> bool:
    """Whether the node has an IPv4 address that is no pod's business: then the kernel speaks to pods by it."""
    local = read_text("/proc/net/fib_trie")
    at, lines = "", local.splitlines()
    for line in lines:
        if "|-- " in line:
            at = line.rpartition("|-- ")[2].strip()
        elif "/32 host LOCAL" in line and not at.startswith("127.") and at != "169.254.1.1":
            return True
    return False
