"""Kills one process of a container at a random moment: of its runtime, its init, its monitor, or its own.

The kernel tells of each exec (connector, CN_IDX_PROC), so a program that lives for milliseconds can be hit as well as
a shim that stays. Needs CAP_NET_ADMIN in the first user namespace: the guest.
"""

from __future__ import annotations

import os
import random
import select
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

NETLINK_CONNECTOR = 11
CN_IDX_PROC = CN_VAL_PROC = 1
PROC_CN_MCAST_LISTEN = 1
PROC_EVENT_EXEC = 2
HEADER = struct.Struct("=IHHIIIIIIHH")  # nlmsghdr, cn_msg
EVENT = struct.Struct("=IIQII")  # proc_event of an exec: what, cpu, time, pid, tgid

RUNTIMES = ("pyrun", "runc", "crun")
MONITORS = ("conmon", "containerd-shim-runc-v2")
RUNTIME, INIT, MONITOR, CONTAINER = "runtime", "runtime's init", "monitor", "container"
KINDS = (RUNTIME, INIT, MONITOR, CONTAINER)
VERBS = {"create", "start", "exec", "pause", "resume", "kill", "delete", "state", "ps"}
LONGEST_S = 1.0


def read(path: str) -> str:
    """A file of /proc; empty when its process is gone."""
    try:
        return Path(path).read_bytes().decode(errors="replace")
    except OSError:
        return ""


class Process:
    """What a process is for the container `id`: `kind` is one of KINDS, or empty; `name` says it in detail."""

    def __init__(self, pid: int, id: str) -> None:
        self.pid = pid
        words = read(f"/proc/{pid}/cmdline").split("\0")
        program = words[0].rpartition("/")[2]
        cgroup = read(f"/proc/{pid}/cgroup")
        self.kind, self.name = "", program
        if program == "pyrun-init" or words[1:2] == ["init"]:
            self.kind = INIT * (id in cgroup or id in _parent_words(pid))
            self.name = program if program == "pyrun-init" else f"{program} init"
        elif id in words and (program in RUNTIMES or _is_pyrun(words)):
            verb = next((word for word in words if word in VERBS), "")
            self.kind = RUNTIME
            self.name = f"{program} {verb}" if program in RUNTIMES else f"pyrun {verb}, in Python,"
        elif id in words and program in MONITORS:
            self.kind = MONITOR
        elif id in cgroup and "conmon" not in cgroup and program:
            self.kind = CONTAINER


def _is_pyrun(words: list[str]) -> bool:
    return len(words) > 3 and words[3].endswith("/pyrun/__main__.py")


def _parent_words(pid: int) -> list[str]:
    parent = read(f"/proc/{pid}/stat").rpartition(")")[2].split()[1:2]
    return read(f"/proc/{parent[0]}/cmdline").split("\0") if parent else []


class Execs:
    """The pids that exec, as they do."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_CONNECTOR)
        self._socket.bind((0, CN_IDX_PROC))
        body = struct.pack("=I", PROC_CN_MCAST_LISTEN)
        size = HEADER.size + len(body)
        self._socket.send(HEADER.pack(size, 3, 0, 0, 0, CN_IDX_PROC, CN_VAL_PROC, 0, 0, len(body), 0) + body)

    def __enter__(self) -> Execs:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    def wait(self, seconds: float) -> Iterator[int]:
        """Those of the next `seconds`."""
        end = time.monotonic() + seconds
        while (rest := end - time.monotonic()) > 0 and select.select([self._socket], [], [], rest)[0]:
            try:
                data = self._socket.recv(4096)
            except OSError:  # ENOBUFS: more than we could read; there will be others
                continue
            if len(data) >= HEADER.size + EVENT.size:
                what, _, _, pid, _ = EVENT.unpack_from(data, HEADER.size)
                if what == PROC_EVENT_EXEC:
                    yield pid


class Killer(threading.Thread):
    """Kills one process of this kind. Use it as a context around a command; `killed` then says who it was, or is
    empty. The delay is short more often than long, since what matters takes anything from a millisecond to a second."""

    def __init__(self, id: str, kind: str, chance: random.Random) -> None:
        super().__init__()
        self.id = id
        self.kind = kind
        self.delay = LONGEST_S * 1000 ** -chance.random()
        self.killed = ""
        self._over = threading.Event()
        self._ready = threading.Event()

    def __enter__(self) -> Killer:
        self.start()
        self._ready.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        with Execs() as execs:
            there = [int(name) for name in os.listdir("/proc") if name.isdigit()]
            self._ready.set()
            for pid in there:
                if not self.killed:
                    self.attempt(pid)
            while not self._over.is_set() and not self.killed:
                for pid in execs.wait(0.1):
                    if self.attempt(pid) or self._over.is_set():
                        break

    def attempt(self, pid: int) -> bool:
        """Kills it after the delay, when it is our victim. What it is then may have changed by another exec."""
        if Process(pid, self.id).kind != self.kind:
            return False
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        try:
            self._over.wait(self.delay)
            victim = Process(pid, self.id)
            if not victim.kind:
                return False
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            self.killed = f"{victim.name} after {self.delay:.3f} s"
            return True
        except ProcessLookupError:
            return False
        finally:
            os.close(fd)
