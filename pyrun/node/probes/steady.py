"""The client of pyrun-probe, which asks on for a probe of HTTP or TCP that has succeeded, until it does no more.

It gets a user of its own, a socket and a page of counters, and nothing else of ours. What it has not told of is good;
where it can't be had, is gone, or does not judge an answer, the probe is asked from here.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import heapq
import ipaddress
import mmap
import os
import signal
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import h11

import pyrun

from ...errors import PyrunError, reason
from ...kube.objects.containers import Probe
from .result import PROBE_AGENT, ProberError, Result, Target, joined, port_of
from .url import Url, headers_of, url_of

PROGRAM = Path(pyrun.__file__).parent / "bin" / "pyrun-probe"
USER = 65052  # a number that Debian's policy reserves, and nobody else's of ours
SLOTS, MOST_REQUEST = 2048, 8192
LONGEST_S = 1_000_000
_WATCH = struct.Struct("=5I2H16sI")
_TELL = struct.Struct("=3IiQ")
_SHARED = struct.Struct("=2I2Q")
STATUS, CONNECT, READ, EOF, TIMEOUT, STRANGE = range(1, 7)
Told = Callable[[Result | None, float], None]


class Asked(NamedTuple):
    """What is asked of whom. what: how its errors begin; request: empty for TCP."""

    address: str
    port: int
    what: str
    request: bytes
    timeout: float

    def result(self, kind: int, value: int) -> Result | None:
        """In the words of http.py and tcp.py; None where it says nothing of the container."""
        if kind == STATUS:
            return Result(False, f"HTTP probe failed with statuscode: {value}")
        if kind == TIMEOUT:
            return Result(False, f"{self.what}: context deadline exceeded ({self.timeout:g} s)")
        if kind == CONNECT:
            dial = f": dial tcp {joined(self.address, self.port)}" if self.request else ""
            return Result(False, f"{self.what}{dial}: connect: {reason(OSError(value, os.strerror(value)))}")
        if kind == READ:
            return Result(False, f"{self.what}: read tcp: {os.strerror(value).lower()}")
        return Result(False, f"{self.what}: EOF") if kind == EOF else None


def asked_of(probe: Probe, target: Target) -> Asked | None:
    """None for what is not asked so: names to be looked up, TLS, gRPC, commands."""
    timeout = float(probe.timeoutSeconds or 1)
    if timeout > LONGEST_S or (probe.periodSeconds or 10) > LONGEST_S:
        return None
    try:
        if (http := probe.httpGet) is not None and (http.scheme or "HTTP") == "HTTP":
            url = url_of(http, target.address, port_of(http.port, target.container))
            request = _request(url, headers_of(http.httpHeaders, url, PROBE_AGENT))
            found = Asked(url.host, url.port, f'Get "{url}"', request, timeout)
        elif (tcp := probe.tcpSocket) is not None:
            host, port = tcp.host or target.address, port_of(tcp.port, target.container)
            found = Asked(host, port, f"dial tcp {joined(host, port)}", b"", timeout)
        else:
            return None
        a_link = "%" in str(ipaddress.ip_address(found.address))
        return None if a_link or len(found.request) > MOST_REQUEST else found
    except (ProberError, ValueError, h11.LocalProtocolError):
        return None


def _request(url: Url, headers: list[tuple[str, str]]) -> bytes:
    """As http.py sends it."""
    encoded = [(name.encode("utf-8"), value.encode("utf-8")) for name, value in headers]
    return h11.Connection(h11.CLIENT).send(h11.Request(method="GET", target=url.target, headers=encoded)) or b""


class Watch:
    """A probe that has been handed over. Close it; nothing is told of it then."""

    def __init__(self, steady: Steady, slot: int, generation: int, asked: Asked, told: Told) -> None:
        self._steady, self.slot, self.generation, self.asked, self.told = steady, slot, generation, asked, told
        self._runs = steady.shared(slot)[0]

    def take(self) -> tuple[int, float]:
        """How often it has succeeded since this was asked, and when the last one began."""
        runs, last = self._steady.shared(self.slot)
        found, self._runs = max(0, runs - self._runs), runs
        return found, last

    def close(self) -> None:
        self._steady.forget(self)


class Steady:
    """One program for all pods, in the node's network as the agent is."""

    def __init__(self, warn: Callable[[str], None], program: Path = PROGRAM) -> None:
        self._warn, self._program = warn, program
        self._socket: socket.socket | None = None
        self._memory: mmap.mmap | None = None
        self._pid = 0
        self._generation = 0
        self._free = list(range(SLOTS))
        self._watches: dict[int, Watch] = {}

    def watch(self, asked: Asked, period: float, first: float, told: Told) -> Watch | None:
        """first: in how many seconds, then each period. told: once, on the loop, with what is not good and when it was
        begun, or None where somebody else has to ask. None where it can't be."""
        if self._socket is None or not self._free:
            return None
        try:
            return self._watch(self._socket, asked, period, first, told)
        except BlockingIOError:
            return None
        except OSError as error:
            self._fail(reason(error))
            return None

    def _watch(self, to: socket.socket, asked: Asked, period: float, first: float, told: Told) -> Watch:
        address = ipaddress.ip_address(asked.address)
        slot, self._generation = self._free[0], self._generation % 0xFFFFFFFF + 1
        first = min(max(first, 0.0), LONGEST_S)  # whatever was done to the clock
        head = (slot, self._generation, int(period * 1000), int(first * 1000), int(asked.timeout * 1000))
        whom = (address.version, asked.port, address.packed, len(asked.request))
        made = Watch(self, slot, self._generation, asked, told)
        self._want(slot, self._generation)
        to.send(_WATCH.pack(*head, *whom) + asked.request)
        heapq.heappop(self._free)
        self._watches[slot] = made
        return made

    def shared(self, slot: int) -> tuple[int, float]:
        """(runs, seconds since 1970)."""
        if self._memory is None:
            return 0, 0.0
        _, _, runs, last = _SHARED.unpack_from(self._memory, slot * _SHARED.size)
        return runs, last / 1e9

    def _want(self, slot: int, generation: int) -> None:
        if self._memory is not None:
            struct.pack_into("=I", self._memory, slot * _SHARED.size, generation)

    def forget(self, watch: Watch) -> None:
        if self._watches.get(watch.slot) is watch:
            del self._watches[watch.slot]
            self._want(watch.slot, 0)
            heapq.heappush(self._free, watch.slot)

    # --- the program ---

    def start(self) -> None:
        """On the loop. Where it can't be, a warning, and all is asked from here."""
        try:
            self._start()
        except (PyrunError, OSError) as error:
            self._fail(str(error))

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        memory = os.memfd_create("probes", os.MFD_CLOEXEC)
        given: list[int] = []
        try:
            os.ftruncate(memory, SLOTS * _SHARED.size)
            self._memory = mmap.mmap(memory, SLOTS * _SHARED.size)
            given += [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 16) for fd in (theirs.fileno(), memory)]
            actions = [
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, 2, 1),
                (os.POSIX_SPAWN_DUP2, given[0], 3),
                (os.POSIX_SPAWN_DUP2, given[1], 4),
            ]
            argv, signals = [str(self._program), str(USER), str(USER)], (signal.SIGPIPE, signal.SIGTERM)
            self._pid = os.posix_spawn(
                self._program, argv, {}, file_actions=actions, setsid=True, setsigmask=(), setsigdef=signals
            )
        except OSError as error:
            ours.close()
            raise PyrunError(f"{self._program}: {reason(error)}") from None
        finally:
            theirs.close()
            for fd in (memory, *given):
                os.close(fd)
        ours.setblocking(False)
        self._socket = ours
        asyncio.get_running_loop().add_reader(ours, self._hear)

    def _hear(self) -> None:
        """All that it has told by now."""
        while self._socket is not None:
            try:
                data = self._socket.recv(_TELL.size)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if len(data) != _TELL.size:
                self._fail("it has ended")
                return
            slot, generation, kind, value, begun = _TELL.unpack(data)
            watch = self._watches.get(slot)
            if watch is not None and watch.generation == generation:
                watch.told(watch.asked.result(kind, value), begun / 1e9)

    def _fail(self, why: str) -> None:
        """From now on all is asked from here."""
        self._warn(f"pyrun-probe: {why}: probes of HTTP and TCP are asked by the agent until its next start")
        self.close()
        for watch in list(self._watches.values()):
            watch.told(None, 0.0)

    def close(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        if self._pid:
            with contextlib.suppress(ChildProcessError, ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)
            self._pid = 0
