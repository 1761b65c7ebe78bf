"""The containers below one root directory: ROOT/ID/record, and what a container's status is now.

A container is what its record says, held against the kernel: the init's pid counts only with its start time and the
boot id, so a number used again is nobody's; and only where the numbers mean the same, which is in the PID and the time
namespace of who created it. There is no lock: of two creates mkdir lets one win, and start is won by
who unlinks the FIFO.
"""

from __future__ import annotations

import posix
import time
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
YOUNG_S = 1.0  # a directory without a whole record that is not older may be about to get it
LARGEST = 64 << 20  # as cffi_build/launcher/record.c, read_record()
_ID_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")


def check_id(container: str) -> str:
    """An id is a file name: letters, digits, _ + - . and neither "." nor "..", 1 to 255 bytes. Raises PyrunError."""
    if not container or len(container) > 255 or not _ID_CHARS.issuperset(container) or container in (".", ".."):
        raise PyrunError(f"invalid container id {container!r}", hint="use 1 to 255 of: letters, digits, _ + - .")
    return container


class Unreadable(PyrunError):
    """What can't be read now, though it may be there: nothing may be taken for gone because of it."""


class Unfinished(Unreadable):
    """A create is about to write the record, or a delete to remove its directory."""


class Missing(PyrunError):
    """There is no container of that name."""


def boot_id() -> str:
    """Unreadable where /proc lacks it: without it a container that runs would seem one of before a reboot."""
    text = read_text("/proc/sys/kernel/random/boot_id").strip()
    if not text:
        raise Unreadable("/proc/sys/kernel/random/boot_id can't be read", hint=WHOLE_PROC)
    return text


def here() -> tuple[int, int]:
    """Where we are: the inodes of our PID namespace and our time namespace (0: the kernel has none). Pids are of the
    one, start times of the other. Unreadable where /proc is of other processes than we are."""
    try:
        if posix.readlink("/proc/self") == str(posix.getpid()):
            return posix.stat("/proc/self/ns/pid").st_ino, _inode("/proc/self/ns/time")
    except OSError:
        pass
    raise Unreadable("/proc is not that of our PID namespace", hint=WHOLE_PROC)


def _inode(path: str) -> int:
    try:
        return posix.stat(path).st_ino
    except FileNotFoundError:
        return 0


def start_time(pid: int) -> int:
    """Field 22 of /proc/PID/stat; 0 when the process is gone or only a zombie (proc_pid_stat(5)), without a thread
    that has outlived its first. Unreadable where /proc does not tell."""
    path = f"/proc/{pid}/stat"
    try:
        fields = _read_all(path, posix.O_RDONLY | posix.O_CLOEXEC).rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        if _is_there(pid):
            raise Unreadable(f"{path} is hidden, though the process runs", hint=WHOLE_PROC) from None
        return 0
    except OSError as e:
        raise Unreadable(f"{path}: {reason(e)}", hint="so it can't be told whether the container runs") from None
    return int(fields[19]) if len(fields) > 19 and (fields[0] not in (b"Z", b"X") or int(fields[17]) > 1) else 0


def _is_there(pid: int) -> bool:
    """Whether it is a process that we may send signals to, as we may to what is ours."""
    try:
        posix.kill(pid, 0)
    except (OSError, OverflowError):
        return False
    return pid > 0


class Held:
    """A descriptor for the length of a `with`; -1: none."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __enter__(self) -> int:
        return self.fd

    def __exit__(self, *_: object) -> None:
        if self.fd >= 0:
            posix.close(self.fd)


class Container:
    """One container: id, its directory, its record as it was when it was opened. held: the descriptor of that
    directory, or -1."""

    __slots__ = ("directory", "held", "id", "record")

    def __init__(self, container: str, directory: str, record: rec.Record, held: int = -1) -> None:
        self.id = container
        self.directory = directory
        self.record = record
        self.held = held

    def path(self, name: str) -> str:
        """Of one of its files. Where it is held, not of what has its name by now."""
        return f"{self.directory if self.held < 0 else f'/proc/self/fd/{self.held}'}/{name}"

    def alive(self) -> bool:
        """The init runs."""
        return self._runs(self.record.pid, self.record.start)

    def _runs(self, pid: int, start: int) -> bool:
        """Unreadable where the numbers are those of another PID or time namespace."""
        r = self.record
        if pid <= 0 or r.boot_id != boot_id():
            return False
        if r.place[0] and r.place != here():
            kind = "time" if r.place[0] == here()[0] else "PID"
            raise Unreadable(
                f"container {self.id} was created in another {kind} namespace, so it can't be told whether it runs",
                hint="call pyrun where it was called to create it: nsenter(1) enters the namespaces of a process",
            )
        return start_time(pid) == start

    def status(self) -> str:
        """creating, created, running, paused or stopped (runtime.md, State)."""
        if self.record.status == rec.CREATING:
            if is_being_made(self.path("record")):
                return CREATING
            self._read_again()  # its create may have come to its end since
        if self.record.status == rec.CREATING or not self.alive():
            return STOPPED
        if self.frozen():
            return PAUSED
        return CREATED if is_there(self.path("go")) else RUNNING

    def _read_again(self) -> None:
        try:
            self.record = _check(rec.unpack(_read(self.path("record"))), self.id)
        except (OSError, ValueError):  # deleted meanwhile
            return

    def frozen(self) -> bool:
        if not self.record.text("cgroup"):
            return False
        from .live_cgroup import open_cgroup

        with Held(open_cgroup(self)) as cgroup:
            return cgroup >= 0 and "frozen 1" in read_text(f"/proc/self/fd/{cgroup}/cgroup.events")

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

    def hold(self, container: str) -> Held:
        """The container's directory: this one, whatever has its name later. Missing."""
        directory = self.directory(container)
        try:
            return Held(posix.open(directory, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC))
        except FileNotFoundError:
            raise self._missing(container) from None
        except OSError as e:
            raise Unreadable(f"{directory}: {reason(e)}", hint="is this --root another user's?") from None

    def _missing(self, container: str) -> Missing:
        return Missing(f"container does not exist: {container}", hint="pyrun list shows those below this --root")

    def open(self, container: str, held: int = -1) -> Container:
        """held: its directory, from hold(). Missing, or PyrunError that says what is wrong with its record. A create
        that has just begun, or a delete that is about to end, is waited for: a second at most."""
        for _ in range(int(YOUNG_S / 0.01)):
            try:
                return self._open(container, held)
            except Unfinished:
                time.sleep(0.01)
        return self._open(container, held)

    def _open(self, container: str, held: int) -> Container:
        directory = self.directory(container)
        made = Container(container, directory, rec.Record(), held)
        try:
            made.record = _check(rec.unpack(_read(directory + "/record" if held < 0 else "record", held)), container)
            return made
        except FileNotFoundError:
            self._check_unfinished(made)
            raise PyrunError(
                f"container {container} has no record: its create was cut short",
                hint=f"pyrun delete --force {container}",
            ) from None
        except OSError as e:
            raise Unreadable(f"{directory}/record: {reason(e)}", hint="is this --root another user's?") from None
        except ValueError as e:
            self._check_unfinished(made)
            raise PyrunError(
                f"{directory}/record is damaged: {e}",
                hint=f"pyrun delete --force {container} removes what is left of it",
            ) from None

    def _check_unfinished(self, c: Container) -> None:
        """Of one without a whole record. Unfinished where that may be about to change, Missing where it is gone."""
        try:
            directory = posix.stat(c.path("."))
        except FileNotFoundError:
            raise self._missing(c.id) from None
        if not directory.st_nlink:
            raise self._missing(c.id)
        if is_being_made(c.path("record")) or 0 <= time.time() - directory.st_ctime < YOUNG_S:
            raise Unfinished(f"container {c.id} is being created or deleted", hint="in a moment it is there, or gone")

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


def _read(path: str, held: int = -1) -> bytes:
    """A record's bytes. held: the directory that path is in, for there may be no /proc to reach it by. ValueError where
    it is no file, or far too long for one: what took its place may be a FIFO."""
    flags = posix.O_RDONLY | posix.O_NONBLOCK | posix.O_CLOEXEC
    fd = posix.open(path, flags, dir_fd=None if held < 0 else held)
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
