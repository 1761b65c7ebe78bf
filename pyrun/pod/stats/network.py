"""The counters of pods' network interfaces, whoever made them.

One thread a request joins each pod's namespace in turn and reads /proc/thread-self/net/dev there, then it ends: a
thread that has been in a pod's namespace is used for nothing else.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass

CLONE_NEWNET = 0x40000000
FILE_BYTES = 1 << 20
PART = 1 << 14
PATIENCE_S = 10.0
_COLUMNS = 16

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Interface:
    name: str
    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_dropped: int


def read_networks(paths: Mapping[str, str]) -> dict[str, list[Interface]]:
    """Key → the interfaces of the network namespace that is pinned at its path, but for lo. One that is gone is left
    out."""
    found: dict[str, list[Interface]] = {}
    if not paths:
        return found

    def work() -> None:
        for key, path in paths.items():
            try:
                found[key] = _read(path)
            except OSError:
                continue

    thread = threading.Thread(target=work, name="netns counters", daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    return dict(found)


def _read(path: str) -> list[Interface]:
    """In the thread that may be anywhere afterwards."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(fd, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(fd)
    fd = os.open("/proc/thread-self/net/dev", os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = b""
        while len(data) < FILE_BYTES and (part := os.read(fd, PART)):
            data += part
    finally:
        os.close(fd)
    return parse_net_dev(data.decode("ascii", "replace"))


def parse_net_dev(text: str) -> list[Interface]:
    """proc_pid_net(5): two lines of headings, then one an interface. Pure."""
    found = []
    for line in text.splitlines()[2:]:
        name, _, rest = line.rpartition(":")  # an alias has a colon in its name
        values = rest.split()
        name = name.strip()
        if not name or name == "lo" or len(values) < _COLUMNS or not all(value.isdecimal() for value in values):
            continue
        n = [int(value) for value in values]
        found.append(Interface(name, n[0], n[1], n[2], n[3], n[8], n[9], n[10], n[11]))
    return found
