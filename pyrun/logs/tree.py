"""What lies below /var/log/pods: which pods, containers, attempts and rotated files, in the order of their time.

The directory is a node's own and its names come from the kubelet, but a container's author has a say in them: names
that are not of the form are passed over. Files are opened without following a link, and never one that is not regular
(a pipe would hold the reader).
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from ..errors import NotFound, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

POD_LOGS = "/var/log/pods"


@dataclass(frozen=True, slots=True)
class Container:
    """A container's directory of logs."""

    namespace: str
    pod: str
    uid: str
    name: str
    directory: str


@dataclass(frozen=True, slots=True)
class Segment:
    """One file of an attempt (the CRI's number of the container's start). rotated: the kubelet's stamp, "" for the file
    that is written to. compressed: by gzip."""

    path: str
    attempt: int
    rotated: str
    compressed: bool


def collect_containers(root: str) -> list[Container]:
    """All of them, by namespace, pod and name. NotFound where there is no such directory."""
    try:
        pods = sorted(os.listdir(root))
    except OSError as e:
        hint = "--dir names the directory in which a kubelet keeps the logs of pods"
        raise NotFound(f"{root}: {reason(e)}", hint=hint) from None
    return [one for pod in pods for one in _containers(root, pod)]


def _containers(root: str, pod: str) -> Iterator[Container]:
    # A name may hold no underscore, so the form is clear (RFC 1123 labels and subdomains).
    words = pod.split("_")
    if len(words) != 3 or not all(words):
        return
    directory = os.path.join(root, pod)
    for name in _listed(directory):
        path = os.path.join(directory, name)
        if not name.startswith(".") and _is_directory(path):
            yield Container(words[0], words[1], words[2], name, path)


def collect_segments(container: Container) -> list[Segment]:
    """Its files from the oldest to the one that is written to."""
    found = [segment for name in _listed(container.directory) if (segment := _segment(container.directory, name))]
    plain = {segment.path for segment in found if not segment.compressed}
    # While the kubelet compresses a file both are there.
    return sorted(
        (one for one in found if not (one.compressed and one.path.removesuffix(".gz") in plain)),
        key=lambda one: (one.attempt, one.rotated or "~"),
    )


def _segment(directory: str, name: str) -> Segment | None:
    compressed = name.endswith(".gz")
    attempt, dot, rest = name.removesuffix(".gz").partition(".log")
    stamp = rest.removeprefix(".")
    if not dot or not attempt.isdecimal() or (rest and not stamp.replace("-", "").isdecimal()):
        return None
    if compressed and not stamp:
        return None
    return Segment(os.path.join(directory, name), int(attempt), stamp, compressed)


def open_segment(path: str) -> int | None:
    """A descriptor to read it; None where it is gone or is no regular file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return None
    return fd


def _listed(directory: str) -> list[str]:
    """Sorted; nothing for what is gone meanwhile."""
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def _is_directory(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False
