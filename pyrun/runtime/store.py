"""The containers below one root directory: ROOT/ID/record, and what a container's status is now.

A container is what its record says, held against the kernel: the init's pid counts only with its start time and the
boot id, so a number used again is nobody's. There is no lock: of two creates mkdir lets one win, and start is won by
who unlinks the FIFO.
"""

from __future__ import annotations

import posix
from _struct import Struct

from ..errors import PyrunError, reason
from ..facts import is_there as is_there
from ..facts import read_text
from . import record as rec

CREATING, CREATED, RUNNING, PAUSED, STOPPED = "creating", "created", "running", "paused", "stopped"
F_OFD_GETLK, F_UNLCK = 36, 2
_FLOCK = Struct("hhxxxxqqixxxx")  # fcntl(2)
S_IFMT, S_IFREG = 0o170000, 0o100000
WHOLE_PROC = "pyrun needs all of /proc: mount -t proc proc /proc, without subset=pid and hidepid="
LARGEST = 64 << 20  # as cffi_build/launcher/record.c, read_record()
_ID_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")


def check_id(container: str) -> str:
    """An id is a file name: letters, digits, _ + - . and neither "." nor "..", 1 to 255 bytes. Raises PyrunError."""
    if not container or len(container) > 255 or not _ID_CHARS.issuperset(container) or container in (".", ".."):
        raise PyrunError(f"invalid container id {container!r}", hint="use 1 to 255 of: letters, digits, _ + - .")
    return container


class Unreadable(PyrunError):
    """What can't be read now, though it may be there: nothing may be taken for gone because of it."""


def boot_id() -> str:
    """Unreadable where /proc lacks it: without it a container that runs would seem one of before a reboot."""
    text = read_text("/proc/sys/kernel/random/boot_id").strip()
    if not text:
        raise Unreadable("/proc/sys/kernel/random/boot_id can't be read", hint=WHOLE_PROC)
    return text


def start_time(pid: int) -> int:
    """Field 22 of /proc/PID/stat; 0 when the process is gone or only a zombie (proc_pid_stat(5)). Unreadable where
    /proc does not tell."""
    path = f"/proc/{pid}/stat"
    try:
        fields = _read_all(path, posix.O_RDONLY | posix.O_CLOEXEC).rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        if _is_there(pid):
            raise Unreadable(f"{path} is hidden, though the process runs", hint=WHOLE_PROC) from None
        return 0
    except OSError as e:
        raise Unreadable(f"{path}: {reason(e)}", hint="so it can't be told whether the container runs") from None
    return int(fields[19]) if len(fields) > 19 and fields[0] not in (b"Z", b"X") else 0


def _is_there(pid: int) -> bool:
    """Whether it is a process that we may send signals to, as we may to what is ours."""
    try:
        posix.kill(pid, 0)
    except (OSError, OverflowError):
        return False
    return pid > 0


class Container:
    """One container: id, its directory, its record as it was when it was opened."""

    __slots__ = ("directory", "id", "record")

    def __init__(self, container: str, directory: str, record: rec.Record) -> None:
        self.id = container
        self.directory = directory
        self.record = record

    def alive(self) -> bool:
        """The init runs."""
        r = self.record
        return r.pid > 0 and r.boot_id == boot_id() and start_time(r.pid) == r.start

    def status(self) -> str:
        """creating, created, running, paused or stopped (runtime.md, State)."""
        r = self.record
        if not self.alive() or r.status == rec.CREATING:
            made = r.status == rec.CREATING and is_being_made(self.directory + "/record")
            return CREATING if made else STOPPED
        if self.frozen():
            return PAUSED
        return CREATED if is_there(self.directory + "/go") else RUNNING

    def frozen(self) -> bool:
        cgroup = self.record.text("cgroup")
        if cgroup and not is_there(cgroup):
            from .live_cgroup import live_cgroup

            cgroup = live_cgroup(self)
        return bool(cgroup) and "frozen 1" in read_text(cgroup + "/cgroup.events")

    def pid(self) -> int:
        return self.record.pid if self.alive() else 0


def is_being_made(record: str) -> bool:
    """Whether the create that has written this file is still at work: so long it holds a lock on it, which goes with
    the create, however that ends, and not with its process."""
    import fcntl

    wanted = _FLOCK.pack(1, 0, 0, 0, 0)
    try:
        fd = posix.open(record, posix.O_RDONLY | posix.O_NONBLOCK | posix.O_CLOEXEC)
        try:
            kind: int = _FLOCK.unpack(fcntl.fcntl(fd, F_OFD_GETLK, wanted))[0]
            return kind != F_UNLCK
        finally:
            posix.close(fd)
    except OSError:
        return False


class Store:
    """All containers below root."""

    __slots__ = ("root",)

    def __init__(self, root: str) -> None:
        self.root = root

    def directory(self, container: str) -> str:
        return f"{self.root}/{check_id(container)}"

    def open(self, container: str) -> Container:
        """PyrunError "container does not exist", or what is wrong with its record."""
        directory = self.directory(container)
        try:
            return Container(container, directory, _check(rec.unpack(_read(directory + "/record")), container))
        except FileNotFoundError:
            if is_there(directory):
                raise PyrunError(
                    f"container {container} has no record: its create was cut short",
                    hint=f"pyrun delete --force {container}",
                ) from None
            raise PyrunError(
                f"container does not exist: {container}", hint="pyrun list shows those below this --root"
            ) from None
        except OSError as e:
            raise Unreadable(f"{directory}/record: {reason(e)}", hint="is this --root another user's?") from None
        except ValueError as e:
            if is_being_made(directory + "/record"):  # it is not yet whole
                raise Unreadable(f"container {container} is being created", hint="in a moment it is there") from None
            raise PyrunError(
                f"{directory}/record is damaged: {e}",
                hint=f"pyrun delete --force {container} removes what is left of it",
            ) from None

    def ids(self) -> list[str]:
        try:
            with posix.scandir(self.root) as entries:
                names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return []
        except OSError as e:
            raise PyrunError(f"{self.root}: {reason(e)}", hint="is this --root another user's?") from None
        return sorted(n for n in names if _ID_CHARS.issuperset(n))


def _check(record: rec.Record, container: str) -> rec.Record:
    """ValueError where it is another's."""
    if record.text("id") != container:
        raise ValueError(f"it is not that of {container}")
    return record


def _read(path: str) -> bytes:
    """A record's bytes. ValueError where it is no file, or far too long for one: what took its place may be a FIFO."""
    fd = posix.open(path, posix.O_RDONLY | posix.O_NONBLOCK | posix.O_CLOEXEC)
    try:
        info = posix.fstat(fd)
        if info.st_mode & S_IFMT != S_IFREG or info.st_size > LARGEST:
            raise ValueError("not a file of its kind")
        return _read_open(fd)
    finally:
        posix.close(fd)


def _read_all(path: str, flags: int) -> bytes:
    fd = posix.open(path, flags)
    try:
        return _read_open(fd)
    finally:
        posix.close(fd)


def _read_open(fd: int) -> bytes:
    parts = []
    while part := posix.read(fd, 1 << 16):
        parts.append(part)
    return b"".join(parts)
