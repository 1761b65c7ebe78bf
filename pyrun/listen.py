"""A daemon's sockets and locks: what makes it the only one, and what keeps everybody but root out.

A socket that an earlier daemon has left is told from one that somebody serves by the lock, and by trying it; it is made
under a name of its own and renamed, so whoever finds it can connect, and none but root from the first moment.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .errors import FailedPrecondition, InvalidArgument, PyrunError, reason

SOCKET = "cri.sock"
LONGEST = 100  # of a path in an address are 107 bytes, and clients add to it
BACKLOG = 128


def parse_address(address: str | None, state: str) -> str:
    """The socket's path, of `unix:///path` or a path; STATE/cri.sock without one."""
    if not address:
        return socket_in(state, SOCKET)
    path = address.removeprefix("unix://")
    if not path.startswith("/"):
        raise InvalidArgument(
            f"--listen {address}: only unix sockets are served",
            hint=f"unix:///run/pyrun-cri/{SOCKET}; whoever may connect is root on this node",
        )
    if len(os.fsencode(path)) > LONGEST:
        raise InvalidArgument(f"--listen {address}: longer than {LONGEST} bytes", hint="take a shorter path")
    return path


def socket_in(state: str, name: str) -> str:
    """The path of a socket of this name in a daemon's --state. InvalidArgument where the kernel can't bind to it."""
    path = f"{state}/{name}"
    if len(os.fsencode(path)) > LONGEST:
        raise InvalidArgument(
            f"--state {state}: longer than {LONGEST - len(name) - 1} bytes, so its sockets can't have a name",
            hint="take a shorter path",
        )
    return path


def private_directory(path: str) -> None:
    """Makes it, or makes it ours alone: others' directories, and a way for others into this one, are an attack."""
    try:
        os.makedirs(path, 0o700, exist_ok=True)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise PyrunError(f"{path}: {reason(error)}", hint="it must be a directory that root may make") from None
    try:
        now = os.fstat(fd)
        if now.st_uid != os.geteuid():
            raise PyrunError(f"{path} belongs to uid {now.st_uid}", hint="take another directory, or chown it to root")
        if now.st_mode & 0o077:
            os.fchmod(fd, 0o700)
    finally:
        os.close(fd)


@contextmanager
def only_one(directory: str, program: str, options: str = "--state") -> Iterator[None]:
    """Holds the directory's lock. options: those that say which directory. FailedPrecondition where another daemon has
    it."""
    path = f"{directory}/lock"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise PyrunError(f"{path}: {reason(error)}", hint="is the disk full, or read-only?") from None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(fd, 20, 0).decode(errors="replace").strip()
            raise FailedPrecondition(
                f"another {program}{', process ' + pid + ',' if pid else ''} uses {directory}",
                hint=f"stop that one, or give this one a {options} of its own",
            ) from None
        os.ftruncate(fd, 0)
        with suppress(OSError):  # of a full disk: it is but a word to the next one
            os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        yield
    finally:
        os.close(fd)


def is_held(directory: str) -> bool:
    """Whether a daemon runs that holds the directory's lock (only_one). Only looked at: proc_locks(5)."""
    try:
        inode = os.stat(f"{directory}/lock").st_ino
        with open("/proc/locks", encoding="ascii") as file:
            locks = [line.split() for line in file]
    except OSError:
        return False
    return any(words[1] == "FLOCK" and words[5].rpartition(":")[2] == str(inode) for words in locks)


def listen(path: str) -> socket.socket:
    """Only root may connect to it; it does not block. FailedPrecondition where another program serves it."""
    private_parent(path)
    _free(path)
    made = f"{path}.{os.getpid()}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        _unlink(made)
        # Before bind() the socket's own mode is what the file gets, less the umask; so nobody has a moment to connect.
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(made)
        os.chmod(made, 0o600)
        listener.listen(BACKLOG)
        os.rename(made, path)
    except OSError as error:
        listener.close()
        _unlink(made)
        raise PyrunError(f"--listen {path}: {reason(error)}") from None
    return listener


def private_parent(path: str) -> None:
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        private_directory(parent)


def _free(path: str) -> None:
    """Takes a socket away that nobody serves."""
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise FailedPrecondition(f"--listen {path}: something that is no socket has this name")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.settimeout(2)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            _unlink(path)
            return
        except OSError:  # it is full or slow: somebody is there
            pass
    raise FailedPrecondition(f"--listen {path}: another program serves it", hint="stop it, or take another --listen")


def unlink_ours(path: str, inode: int) -> None:
    """Takes the name away when it is still this socket's."""
    try:
        if os.lstat(path).st_ino == inode:
            _unlink(path)
    except FileNotFoundError:
        pass


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def notify(text: str) -> None:
    """Tells systemd, where that has started us (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        with suppress(OSError):
            sender.connect("\0" + address[1:] if address[0] == "@" else address)
            sender.send(text.encode())
