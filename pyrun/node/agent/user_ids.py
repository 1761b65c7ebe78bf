"""PURE but for what is read of the machine: the users that a pod with hostUsers: false has for its own.

65536 ids of the node that no other pod has, from 65536 on, as a kubelet gives them (kubernetes pkg/kubelet/userns).
≠ a kubelet: those that /etc/subuid and /etc/subgid give to somebody are left out, as their containers would share them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ... import cri_api as v1
from ...errors import Unavailable
from ...pod.pod import Pod as Sandbox

LENGTH = 1 << 16
LAST = (1 << 32) - LENGTH  # its last id is no user: setresuid(2) takes it for "leave it"
FILES = ("/etc/subuid", "/etc/subgid")


def first_free(used: Iterable[range]) -> int:
    """Unavailable where there is none."""
    taken = {block for ids in used if ids for block in range(ids.start // LENGTH, (ids.stop - 1) // LENGTH + 1)}
    for block in range(1, LAST // LENGTH):
        if block not in taken:
            return block * LENGTH
    raise Unavailable("hostUsers: false: no 65536 ids are left that nobody has", hint="see /etc/subuid, /etc/subgid")


def given_to_people(text: str) -> list[range]:
    """NAME:FIRST:COUNT, as subuid(5) has it; a line that is none gives nothing to anybody, and those of the name
    kubelet are for pods."""
    found = []
    for line in text.splitlines():
        name, _, words = line.partition(":")
        first, _, count = words.partition(":")
        if name != "kubelet" and first.isdecimal() and count.isdecimal():
            found.append(range(int(first), min(int(first) + int(count), 1 << 32)))
    return found


def ids_of_people() -> list[range]:
    """Those that programs of people without privilege map, podman for one."""
    found: list[range] = []
    for path in FILES:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                found += given_to_people(file.read())
        except FileNotFoundError:
            continue
    return found


def ids_of_sandbox(pod: Sandbox) -> list[range]:
    """Of any pod of the runtime, whoever made it."""
    given = pod.config.linux.security_context.namespace_options.userns_options
    return [range(m.host_id, m.host_id + m.length) for side in (given.uids, given.gids) for m in side]


def mapping(first: int) -> Any:
    return v1.IDMapping(host_id=first, container_id=0, length=LENGTH)
