"""Whether an exec may come again: only what has come twice is worth a kept plan (exec_kept.py).

An engine's health check is the same process in the same container every few seconds; what somebody types comes once,
and must not pay. So the first time leaves only a note of its key. The key is all that the plan was made from but for
what the entry's conditions hold: the command line, the process, and what the container was then.
cffi_build/launcher/exec.c makes the same from what it finds.
"""

from __future__ import annotations

import posix

from ..errors import PyrunError
from ..facts import Facts
from ..oci import names
from ..oci.model import Process, Spec
from ..plan.exec import Target
from ..plan.lifecycle import EXEC_NOTES, KEPT_EXECS
from ..plan.model.request import Request
from ..plan.model.steps import Connect, Dup, PidfdGetfd, SchedSetaffinity, Yield
from . import record as rec
from .store import Container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..plan.model.plan import Plan
    from .exec import Options

NOTE_SIZE, MOST_NOTES = 8, 16
LARGEST_KEY = 1 << 16
_PRIME = (1 << 64) - 59
# What of a Request is in the key, or follows from the record.
_IN_KEY = ("bundle", "id", "keyring", "pid_file")
_BY_FILE = frozenset(("process", "detach", "pid-file"))
_BY_WORDS = frozenset(("detach", "pid-file", "cwd", "env", "user"))
_NOT_REPLAYED = (Connect, Dup, PidfdGetfd, SchedSetaffinity, Yield)


class Planned:
    """An exec that is planned: by what, and the plan. content: of --process."""

    __slots__ = ("content", "facts", "plan", "process", "request", "spec", "target")

    def __init__(
        self,
        spec: Spec,
        process: Process,
        facts: Facts,
        target: Target,
        request: Request,
        plan: Plan,
        content: bytes | None,
    ) -> None:
        self.content = content
        self.spec = spec
        self.process = process
        self.facts = facts
        self.target = target
        self.request = request
        self.plan = plan


def keep_for_launcher(
    c: Container, root: str, o: Options, done: Planned, again: Callable[[str | None], Planned]
) -> None:
    """Notes an exec that has succeeded, or keeps its plan where it is noted. again: plans the same with another
    --pid-file. That nothing can be kept is no error."""
    if not worth_keeping(o, done) or not _is_deleted_with_it(c):
        return
    try:
        key = key_of(c, root, o, done)
        if len(key) > LARGEST_KEY:
            return
        directory = posix.open(c.directory, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
        try:
            if _was_noted(directory, key):
                from .exec_kept import keep

                keep(c, directory, key, done, again)
        finally:
            posix.close(directory)
    except (OSError, PyrunError, StopIteration):  # as in cache.keep()
        return


def worth_keeping(o: Options, done: Planned) -> bool:
    """Whether the launcher could ever use it: it knows few options, and nothing that needs an answer."""
    facts, target, linux = done.facts, done.target, done.spec.linux
    if not (o.given <= (_BY_FILE if o.process else _BY_WORDS)) or (o.process and o.command):
        return False
    if facts.euid != 0 or facts.rootless or facts.in_userns or done.process.terminal:
        return False
    if target.chroot or not target.namespaces & names.NAMESPACES["mount"] or (linux and linux.intel_rdt):
        return False
    plain = Request()
    if any(getattr(done.request, name) != getattr(plain, name) for name in Request.__slots__ if name not in _IN_KEY):
        return False
    if any(isinstance(step, _NOT_REPLAYED) for lane in done.plan.lanes[:1] for step in lane):
        return False
    return facts.cgroup_mount is not None and (facts.cgroup_mount + "/").startswith("/sys/fs/cgroup/")


def _is_deleted_with_it(c: Container) -> bool:
    """Whether the container's delete knows of these files: its create may have been that of an older version."""
    plan = c.record.blob("delete")
    return all(f"/{name}\0".encode() in plan for name in (EXEC_NOTES, *KEPT_EXECS))


def key_of(c: Container, root: str, o: Options, done: Planned) -> bytes:
    """The launcher makes the same."""
    target = done.target
    words: list[object] = ["exec detach" if o.detach else "exec", root, c.id, len(_bytes(o.pid_file or ""))]
    words += [
        target.pid,
        target.start,
        _sum_of(c),
        target.namespaces,
        "" if target.setgroups else "deny",
        target.cgroup_line,
    ]
    if done.content is not None:
        words.append("file")
    else:
        user = ("", "") if o.user is None else ("user", o.user)
        words += ["words", o.cwd or "", *user, len(o.env), *o.env, *o.command]
    return b"".join(_bytes(str(word)) + b"\0" for word in words) + (done.content or b"")


def _bytes(word: str) -> bytes:
    return word.encode("utf-8", "surrogateescape")


def _sum_of(c: Container) -> int:
    """The checksum of the record as it is now: its cgroup and its flags are in the plan."""
    fd = posix.open(c.directory + "/record", posix.O_RDONLY | posix.O_NONBLOCK | posix.O_CLOEXEC)
    try:
        value: int = rec.SUM.unpack(posix.pread(fd, rec.SUM.size, rec.SUM_AT))[0]
        return value
    finally:
        posix.close(fd)


def _was_noted(directory: int, key: bytes) -> bool:
    """Whether the key has come before; then its note is taken away, and else it is noted."""
    note = (int.from_bytes(key, "little") % _PRIME).to_bytes(NOTE_SIZE, "little")
    old = read_beside(directory, EXEC_NOTES) or b""
    old = b"" if len(old) % NOTE_SIZE else old  # damaged
    notes = [old[at : at + NOTE_SIZE] for at in range(0, len(old), NOTE_SIZE)]
    found = note in notes
    if found:
        notes.remove(note)
    else:
        notes.append(note)
    put_beside(directory, EXEC_NOTES, b"".join(notes[-MOST_NOTES:]))
    return found


def read_beside(directory: int, name: str) -> bytes | None:
    try:
        fd = posix.open(name, posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return None
    try:
        return posix.read(fd, posix.fstat(fd).st_size)
    finally:
        posix.close(fd)


def put_beside(directory: int, name: str, data: bytes) -> bool:
    """Writes a file of the state directory. It gets its name when it is whole, so a kill leaves nothing.

    A delete meanwhile unlinks the record first and these files after it: where the record is gone, so is the file."""
    fd = posix.open(".", posix.O_WRONLY | posix.O_TMPFILE | posix.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        if posix.write(fd, data) != len(data):
            return False
        try:
            posix.unlink(name, dir_fd=directory)
        except FileNotFoundError:
            pass
        posix.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=directory, follow_symlinks=True)
    finally:
        posix.close(fd)
    try:
        posix.stat("record", dir_fd=directory)
    except FileNotFoundError:
        posix.unlink(name, dir_fd=directory)
        return False
    return True
