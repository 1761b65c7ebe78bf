"""What lies below /var/log/pods: which pods, containers, attempts and rotated files, in the order of their time; and
what of that `pyrun collect` has sealed in its own directory, in the same places.

The directory is a node's own and its names come from the kubelet, but a container's author has a say in them: names
that are not of the form are passed over. Files are opened without following a link, and never one that is not regular
(a pipe would hold the reader).
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, replace

from ..errors import NotFound, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

POD_LOGS = "/var/log/pods"
# Where `pyrun collect` keeps sealed files, and below what in there.
LOG_STORE = "/var/lib/pyrun-logs"
BLOCKS = "blocks"


# (attempt, stamp or "~") of a file: places are in the order of time.
Place = tuple[int, str]
BEFORE_ALL: Place = (-1, "")


@dataclass(frozen=True, slots=True)
class Logs:
    """root: the directory of pods' logs. store: of `pyrun collect`, "" where nobody seals."""

    root: str
    store: str = ""

    def containers(self) -> list[Container]:
        return collect_containers(self.root, self.store)


@dataclass(frozen=True, slots=True)
class Container:
    """A container's directory of logs, and the one of its sealed files ("": nobody seals). Either may not be there.
    attempt: of this one alone, where it is given."""

    namespace: str
    pod: str
    uid: str
    name: str
    directory: str
    sealed: str = ""
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """One file of an attempt (the CRI's number of the container's start). rotated: the kubelet's stamp, "" for the file
    that is written to. compressed: by gzip. sealed: a block (block.py)."""

    path: str
    attempt: int
    rotated: str
    compressed: bool
    sealed: bool = False

    @property
    def place(self) -> Place:
        return self.attempt, self.rotated or "~"


def default_store(root: str) -> str:
    """The store of who names none: the usual one with the usual directory of logs; "" otherwise."""
    return LOG_STORE if root == POD_LOGS else ""


def collect_containers(root: str, store: str = "") -> list[Container]:
    """All of them, by namespace, pod and name. store: of `pyrun collect`; those count as well of which there is nothing
    but sealed files. NotFound where there is no directory of logs."""
    blocks = os.path.join(store, BLOCKS) if store else ""
    try:
        pods = os.listdir(root)
    except OSError as e:
        if not blocks or not os.path.isdir(blocks):
            hint = "--dir names the directory in which a kubelet keeps the logs of pods"
            raise NotFound(f"{root}: {reason(e)}", hint=hint) from None
        pods = []
    kept = set(_listed(blocks)) if blocks else set()
    return [one for pod in sorted({*pods, *kept}) for one in _containers(root, pod, blocks)]


def _containers(root: str, pod: str, blocks: str) -> Iterator[Container]:
    # A name may hold no underscore, so the form is clear (RFC 1123 labels and subdomains).
    words = pod.split("_")
    if len(words) != 3 or not all(words):
        return
    directory, sealed = os.path.join(root, pod), os.path.join(blocks, pod) if blocks else ""
    names = {name for name in _listed(directory) if _is_directory(os.path.join(directory, name))}
    kept = set(_listed(sealed)) if sealed else set()
    for name in sorted(names | kept):
        if not name.startswith("."):
            path = os.path.join(directory, name)
            yield Container(words[0], words[1], words[2], name, path, os.path.join(sealed, name) if sealed else "")


def collect_segments(container: Container) -> list[Segment]:
    """Its files from the oldest to the one that is written to. Of a file that is there in several forms (while it is
    sealed, or a kubelet compresses it) one counts: a sealed one is complete, and one that is compressed may not be."""
    # The sealed ones are listed last: what is sealed in between is there twice, and not missing.
    found = [one for name in _listed(container.directory) if (one := parse_segment(container.directory, name))]
    if container.sealed:
        found += [one for name in _listed(container.sealed) if (one := _sealed(container.sealed, name))]
    best: dict[tuple[int, str], Segment] = {}
    for one in sorted(found, key=lambda one: (one.sealed, not one.compressed)):
        best[one.place] = one
    return [best[place] for place in sorted(best) if container.attempt in (None, best[place].attempt)]


def parse_segment(directory: str, name: str) -> Segment | None:
    """None: it is no log's name."""
    compressed = name.endswith(".gz")
    attempt, dot, rest = name.removesuffix(".gz").partition(".log")
    stamp = rest.removeprefix(".")
    if not dot or not attempt.isdecimal() or (rest and not stamp.replace("-", "").isdecimal()):
        return None
    if compressed and not stamp:
        return None
    return Segment(os.path.join(directory, name), int(attempt), stamp, compressed)


def _sealed(directory: str, name: str) -> Segment | None:
    found = parse_segment(directory, name.removesuffix(".zst")) if name.endswith(".zst") else None
    if found is None or found.compressed or not found.rotated:
        return None
    return Segment(os.path.join(directory, name), found.attempt, found.rotated, compressed=False, sealed=True)


def open_segment(container: Container, segment: Segment) -> tuple[int, Segment] | None:
    """A descriptor to read it, and what it is by now: it may have been sealed meanwhile. None where it is gone."""
    fd = open_log(segment.path)
    if fd is None and segment.rotated and container.sealed and not segment.sealed:
        name = f"{segment.attempt}.log.{segment.rotated}.zst"
        segment = replace(segment, path=os.path.join(container.sealed, name), compressed=False, sealed=True)
        fd = open_log(segment.path)
    return None if fd is None else (fd, segment)


def open_log(path: str) -> int | None:
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
