"""Plans of exec kept for the launcher, in the container's own state directory: delete takes them away with it.

An entry is one of cache.py's, with holes for the path of the pid file. That it is right is proved by planning again:
first its conditions are read, then everything that plans are made from, and the second plan must be the first one but
for the holes. So what changed in between is seen now, or is no longer as the conditions have it. An entry has the
whole process in it, its environment too, as config.json beside it has: only root may read either.
"""

from __future__ import annotations

import posix

from ..plan.lifecycle import KEPT_EXECS
from .cache import (
    HEADER,
    MAGIC,
    PID_FILE,
    PID_FILE_NEW,
    SAME_FILE,
    Entry,
    collect_conditions,
    find_places,
    version_of,
)
from .create import is_old
from .exec_again import Planned, put_beside, read_beside
from .store import Container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MOST_BYTES = 1 << 18


def keep(c: Container, directory: int, key: bytes, first: Planned, plan: Callable[[str | None], Planned]) -> bool:
    """Writes the entry. False where it can't be."""
    mount = first.facts.cgroup_mount
    if mount is None:
        return False
    config = c.directory + "/config.json"
    conditions = collect_conditions(mount, first.facts.init_path, exec_only=True)
    # What has changed since it was loaded is not what it was planned by.
    if not all(is_old(path) for kind, path, _ in conditions if kind == SAME_FILE):
        return False
    conditions.append((SAME_FILE, config, version_of(config)))
    second = plan(other_path(first.request.pid_file))
    entry = make_entry(key, first, second)
    if entry is None:
        return False
    entry.conditions = conditions
    data = entry.pack()
    return len(data) <= MOST_BYTES and put_beside(directory, _slot(directory, key), data)


def make_entry(key: bytes, first: Planned, second: Planned) -> Entry | None:
    """The entry for a plan and the same plan with other_path(). None where they differ in more than the holes."""
    a, b = first.plan.encode(), second.plan.encode()
    holes: list[tuple[int, int]] = []
    old, new = first.request.pid_file, second.request.pid_file
    if old and new:
        kinds = zip((PID_FILE, PID_FILE_NEW), _names(old), _names(new), strict=True)
        holes = [(at, kind) for kind, x, y in kinds for at in find_places(a, x, b, y)]
    if (old and old == new) or len(a) != len(b) or fill(a, holes, new) != b:
        return None
    return Entry(key, a, holes, (0, 0), (0, 0))


def fill(plan: bytes, holes: list[tuple[int, int]], pid_file: str | None) -> bytes:
    """The plan for another pid file, as the launcher fills it."""
    values = dict(zip((PID_FILE, PID_FILE_NEW), _names(pid_file or ""), strict=True))
    out = bytearray(plan)
    for at, kind in holes:
        out[at : at + len(values[kind])] = values[kind]
    return bytes(out)


def _names(path: str) -> tuple[bytes, bytes]:
    """The path, and the name under which it is written (plan/exec.py)."""
    head, slash, tail = path.encode("utf-8", "surrogateescape").rpartition(b"/")
    return head + slash + tail, head + slash + b"." + tail + b".new"


def other_path(path: str | None) -> str | None:
    """A path of the same length that is different in every byte but for the slashes."""
    if path is None:
        return None
    data = path.encode("utf-8", "surrogateescape")
    return "".join("/" if byte == 47 else "y" if byte == 120 else "x" for byte in data)


def _slot(directory: int, key: bytes) -> str:
    """Where the entry goes: in place of its like, or of none, or of the oldest."""
    ages: list[tuple[int, str]] = []
    for name in KEPT_EXECS:
        data = read_beside(directory, name)
        if data is None:
            ages.append((0, name))
        elif key_in(data) == key:
            return name
        else:
            ages.append((posix.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime_ns, name))
    return min(ages)[1]


def key_in(data: bytes) -> bytes:
    """The key of an entry; nothing where it is none."""
    if len(data) < HEADER.size or not data.startswith(MAGIC):
        return b""
    _, at, size, *_ = HEADER.unpack_from(data)
    return data[at : at + size]
