"""A container's own cgroup, held by descriptor: what its name leads to now may be another's, or moved away from.

A container may nest cgroups deeper than a path or Python's stack goes, so a tree is walked by descriptor and without
recursion, and for a bounded time.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` costs an enum
import posix
import select
import time

from ..errors import PyrunError, reason
from ..facts import read_text
from . import record as rec
from .store import Held, boot_id

DIRECTORY = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC
WALK_S = 20.0
LEAVE_S = 1.0  # what was killed takes some time to leave its cgroup
KILL_S = 10.0
AT_ONCE = 256  # descriptors
SIGKILL = 9

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def own_cgroup(record: rec.Record) -> Held:
    """The container's cgroup; none where it has none, or where it is gone, be it with a reboot, and another may have
    its name. PyrunError where it can't be opened."""
    path = record.text("cgroup")
    if not path or record.boot_id != boot_id():
        return Held(-1)
    try:
        fd = posix.open(path, DIRECTORY)
    except FileNotFoundError:
        return Held(-1)
    except OSError as e:
        raise PyrunError(f"the container's cgroup {path}: {reason(e)}") from None
    if record.has_cgroup(posix.fstat(fd).st_ino):
        return Held(fd)
    posix.close(fd)
    return Held(-1)


def remove_claimed(record: rec.Record, warn: Callable[[str], None]) -> None:
    """The cgroup of a create that was killed before it could write down which one it made. There was none of the name,
    and nothing of ours is in what has it now: so if it is empty it goes, and else it is another's. systemd's goes with
    its unit."""
    path = record.text("cgroup")
    if record.cgroup != rec.CLAIMED or record.boot_id != boot_id():
        return
    try:
        if not record.flags & rec.SYSTEMD:
            posix.rmdir(path)
        elif _is_empty(path):
            from .systemd import stop_left_unit

            stop_left_unit(path, record.text("id"))
    except OSError:  # it was never made, or somebody uses it
        return
    except PyrunError as e:
        warn("\n".join(e.lines()))


def _is_empty(path: str) -> bool:
    """Whether nothing is in it, or nothing any more in a moment, or it is not there."""
    try:
        with Held(posix.open(path, DIRECTORY)) as cgroup:
            return wait_for_event(cgroup, "populated 0", LEAVE_S)
    except FileNotFoundError:
        return True


def write_file(cgroup: int, name: str, text: str) -> bool:
    """False where it can't be written."""
    try:
        fd = posix.open(name, posix.O_WRONLY | posix.O_CLOEXEC, dir_fd=cgroup)
    except OSError:
        return False
    try:
        posix.write(fd, text.encode())
        return True
    except OSError:
        return False
    finally:
        posix.close(fd)


def kill_all(cgroup: int) -> bool:
    """SIGKILL to all that is in it and below it. False where the kernel has no cgroup.kill. PyrunError as with
    kill_threaded()."""
    return write_file(cgroup, "cgroup.kill", "1") or kill_threaded(cgroup)


def kill_threaded(cgroup: int) -> bool:
    """The same for a threaded cgroup, as a container may have made its own: cgroup.kill is EOPNOTSUPP there. False, and
    nothing is done, where it is none. PyrunError where something lives on.

    It is frozen meanwhile, or it could make new processes while these are killed."""
    if not _is_threaded(cgroup):
        return False
    write_file(cgroup, "cgroup.freeze", "1")
    end = time.monotonic() + KILL_S
    try:
        while not wait_for_event(cgroup, "populated 0", 0) and time.monotonic() < end:
            _kill_some(cgroup)
            wait_for_event(cgroup, "populated 0", 0.1)
    finally:
        write_file(cgroup, "cgroup.freeze", "0")
    if not wait_for_event(cgroup, "populated 0", 0):
        raise PyrunError(f"what is in its threaded cgroup did not die of SIGKILL in {KILL_S:.0f} s")
    return True


def _kill_some(cgroup: int) -> None:
    """Who is in it before and after it is held can't be another of the same number."""
    held = {}
    for pid in pids_below(cgroup)[:AT_ONCE]:
        try:
            held[pid] = posix.pidfd_open(pid)
        except OSError:  # it is gone, or its number is a thread's by now, or there are no more descriptors
            continue
    still = set(pids_below(cgroup))
    for pid, fd in held.items():
        try:
            if pid in still:
                _signal.pidfd_send_signal(fd, SIGKILL)
        except ProcessLookupError:
            pass
        posix.close(fd)


def wait_for_event(cgroup: int, wanted: str, seconds: float) -> bool:
    """Until cgroup.events says so, such as "populated 0"; the file tells of a change as POLLPRI. False: it does not."""
    try:
        fd = posix.open("cgroup.events", posix.O_RDONLY | posix.O_CLOEXEC, dir_fd=cgroup)
    except FileNotFoundError:  # as below: systemd removes a unit's as soon as it is empty
        return wanted == "populated 0"
    try:
        poll = select.poll()
        poll.register(fd, select.POLLPRI)
        end = time.monotonic() + seconds
        while wanted not in posix.pread(fd, 4096, 0).decode():
            left = end - time.monotonic()
            if left <= 0:
                return False
            poll.poll(min(left, 0.1) * 1000)
        return True
    except OSError:  # it has been removed, so nothing is in it
        return wanted == "populated 0"
    finally:
        posix.close(fd)


def pids_below(cgroup: int) -> list[int]:
    """The processes in it and below it, in ascending order. 0, a process of another PID namespace that has no number
    here, is left out. PyrunError where there is no end to them."""
    # Those of a threaded cgroup below a domain stand in the domain. One that is threaded itself has only threads.
    file = "cgroup.threads" if _is_threaded(cgroup) else "cgroup.procs"
    end = time.monotonic() + WALK_S
    while time.monotonic() < end:
        pids = _walk(cgroup, file, end)
        if pids is not None:
            return sorted(pids if file == "cgroup.procs" else {pid for tid in pids if (pid := _process_of(tid))})
    hint = "its cgroup.max.descendants bounds them"
    raise PyrunError(f"its cgroups could not be read to their end in {WALK_S:.0f} s", hint=hint)


def _is_threaded(cgroup: int) -> bool:
    return _read(cgroup, "cgroup.type").startswith("threaded")


def _process_of(tid: int) -> int:
    """The process that a thread is of (proc_pid_status(5), Tgid); 0 where it has ended."""
    lines = read_text(f"/proc/{tid}/status").splitlines()
    return next((int(line[5:]) for line in lines if line.startswith("Tgid:")), 0)


def _walk(cgroup: int, file: str, end: float) -> set[int] | None:
    """The numbers in all files of this name. None where the time is up, or what we were in was removed and the way back
    is lost."""
    at = posix.open(".", DIRECTORY, dir_fd=cgroup)
    pids, waiting = _pids(at, file), [_children(at)]  # for each cgroup from the top down to here: children not seen yet
    try:
        while waiting[-1] or len(waiting) > 1:
            down = waiting[-1].pop() if waiting[-1] else ""
            try:
                following = posix.open(down or "..", DIRECTORY | posix.O_NOFOLLOW, dir_fd=at)
            except OSError:
                if down:  # removed meanwhile
                    continue
                return None
            posix.close(at)
            at = following
            if down:
                pids |= _pids(at, file)
                waiting.append(_children(at))
            else:
                waiting.pop()
            if time.monotonic() > end:
                return None
        return pids
    finally:
        posix.close(at)


def _pids(cgroup: int, file: str) -> set[int]:
    return {int(word) for word in _read(cgroup, file).split() if word != "0"}


def _children(cgroup: int) -> list[str]:
    try:
        with posix.scandir(cgroup) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:  # removed meanwhile
        return []


def _read(cgroup: int, name: str) -> str:
    return read_text(f"/proc/self/fd/{cgroup}/{name}", 64 << 20)
