"""The client of pyrun-probe, which asks on for a probe of HTTP or TCP that has succeeded, until it does no more.

It gets a user of its own, a socket and a page of counters, and nothing else of ours. What it has not told of is good,
as long as its counters go on; where it can't be had, is gone, asks no more, or does not judge an answer, the probe is
asked from here. That costs a pod nothing, so it may be done too often, and never too seldom.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import heapq
import ipaddress
import mmap
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import h11

import pyrun

from ...errors import PyrunError, reason
from ...kube.objects.containers import Probe
from .result import PROBE_AGENT, ProberError, Result, Target, Took, joined, port_of
from .url import Url, headers_of, url_of

PROGRAM = Path(pyrun.__file__).parent / "bin" / "pyrun-probe"
USER = 65052  # a number that Debian's policy reserves, and nobody else's of ours
SLOTS, MOST_REQUEST = 2048, 8192
LONGEST_S = 1_000_000
LOOK_S = 5.0  # so often somebody looks whether it still asks
SLACK_S = 15.0  # beyond a period and a timeout: it and we may be late on a machine that is busy
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 300.0
END_S = 1.0  # for what was killed to end
_WATCH = struct.Struct("=5I2H16sI")
_TELL = struct.Struct("=3IiQ")
_SHARED = struct.Struct("=2I3Q12I")
STATUS, CONNECT, READ, EOF, TIMEOUT, STRANGE, SHORTAGE = range(1, 8)
# With what is not good, and when it was begun. Without a verdict it is to be asked from here now, and may be handed
# over again; None: here for good.
Told = Callable[[Result | None, float], None]


class Asked(NamedTuple):
    """What is asked of whom. what: how its errors begin; request: empty for TCP."""

    address: str
    port: int
    what: str
    request: bytes
    timeout: float

    def result(self, kind: int, value: int) -> Result | None:
        """In the words of http.py and tcp.py; as Told has it where it says nothing of the container."""
        if kind == STATUS:
            return Result(False, f"HTTP probe failed with statuscode: {value}")
        if kind == TIMEOUT:
            return Result(False, f"{self.what}: context deadline exceeded ({self.timeout:g} s)")
        if kind == CONNECT:
            dial = f": dial tcp {joined(self.address, self.port)}" if self.request else ""
            return Result(False, f"{self.what}{dial}: connect: {reason(OSError(value, os.strerror(value)))}")
        if kind == READ:
            return Result(False, f"{self.what}: read tcp: {os.strerror(value).lower()}")
        if kind == EOF:
            return Result(False, f"{self.what}: EOF")
        return Result(None, os.strerror(value).lower()) if kind == SHORTAGE else None


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


class Pauses:
    """Each twice as long as the one before, and the first again when nothing was amiss for the longest."""

    def __init__(self) -> None:
        self._next, self.until = FIRST_PAUSE_S, 0.0

    def next(self, now: float) -> float:
        """In seconds; until: its end."""
        if now - self.until > LONGEST_PAUSE_S:
            self._next = FIRST_PAUSE_S
        pause, self._next = self._next, min(2 * self._next, LONGEST_PAUSE_S)
        self.until = now + pause
        return pause


class Watch:
    """A probe that has been handed over. Close it; nothing is told of it then."""

    def __init__(self, steady: Steady, memory: mmap.mmap, slot: int, generation: int, asked: Asked, told: Told) -> None:
        self._steady, self._memory = steady, memory
        self.slot, self.generation, self.asked, self.told = slot, generation, asked, told
        self._taken = self._seen = 0
        self._taken_counts, self._taken_ns = [0] * (len(Took.BOUNDS) + 1), 0
        self.patience = self.by = 0.0

    def _shared(self) -> tuple[int, float]:
        """(runs, seconds since 1970), of nobody who had this slot before."""
        _, of, runs, last, *_ = _SHARED.unpack_from(self._memory, self.slot * _SHARED.size)
        return (runs, last / 1e9) if of == self.generation else (0, 0.0)

    def want(self, generation: int) -> None:
        struct.pack_into("=I", self._memory, self.slot * _SHARED.size, generation)

    def take(self) -> tuple[int, float]:
        """How often it has succeeded since this was asked, and when the last one began."""
        runs, last = self._shared()
        found, self._taken = max(0, runs - self._taken), runs
        return found, last

    def take_durations(self, into: Took) -> None:
        """How long those took that came since this was asked."""
        _, of, _, _, ns, *counts = _SHARED.unpack_from(self._memory, self.slot * _SHARED.size)
        if of != self.generation:
            return
        new = [max(0, now - before) for now, before in zip(counts, self._taken_counts, strict=True)]
        into.add_many(new, max(0, ns - self._taken_ns) / 1e9)
        self._taken_counts, self._taken_ns = counts, ns

    def is_late(self, now: float) -> bool:
        """It has not succeeded for longer than it may take, and nothing else was told. now: by Steady's own clock."""
        runs, _ = self._shared()
        if runs != self._seen:
            self._seen, self.by = runs, now + self.patience
        return now > self.by

    def close(self) -> None:
        self._steady.forget(self)


class Steady:
    """One program for all pods, in the node's network as the agent is. When it has ended or hangs, the next is started
    after a pause."""

    def __init__(self, warn: Callable[[str], None], program: Path = PROGRAM) -> None:
        self._warn, self._program = warn, program
        self._socket: socket.socket | None = None
        self._memory: mmap.mmap | None = None
        self._pid, self._pidfd = 0, -1
        self._generation = 0
        self._free = list(range(SLOTS))
        self._watches: dict[int, Watch] = {}
        self._timer: asyncio.TimerHandle | None = None  # the next look, or the next start
        self._looked = self._clock = 0.0
        self._starts, self._shortages = Pauses(), Pauses()

    def watch(self, asked: Asked, period: float, first: float, told: Told) -> Watch | None:
        """first: in how many seconds, then each period. told: once, on the loop, when it is closed already. None where
        it can't be."""
        if self._socket is None or not self._free or time.monotonic() < self._shortages.until:
            return None
        try:
            return self._watch(self._socket, asked, period, first, told)
        except BlockingIOError:
            return None
        except OSError as error:
            self._fail(reason(error))
            return None

    def _watch(self, to: socket.socket, asked: Asked, period: float, first: float, told: Told) -> Watch:
        assert self._memory is not None
        address = ipaddress.ip_address(asked.address)
        slot, self._generation = self._free[0], self._generation % 0xFFFFFFFF + 1
        first = min(max(first, 0.0), LONGEST_S)  # whatever was done to the clock
        head = (slot, self._generation, int(period * 1000), int(first * 1000), int(asked.timeout * 1000))
        whom = (address.version, asked.port, address.packed, len(asked.request))
        made = Watch(self, self._memory, slot, self._generation, asked, told)
        made.patience = period + asked.timeout + SLACK_S
        made.by = self._clock + first + made.patience
        made.want(self._generation)
        to.send(_WATCH.pack(*head, *whom) + asked.request)
        heapq.heappop(self._free)
        self._watches[slot] = made
        return made

    def forget(self, watch: Watch) -> None:
        if self._watches.get(watch.slot) is watch:
            del self._watches[watch.slot]
            watch.want(0)
            heapq.heappush(self._free, watch.slot)

    def _tell(self, watch: Watch, result: Result | None, begun: float) -> None:
        """Of one that is still wanted: who was told of another may have closed it."""
        if self._watches.get(watch.slot) is watch:
            self.forget(watch)
            watch.told(result, begun)

    # --- the program ---

    def start(self) -> None:
        """On the loop. Where it can't be, a warning, and all is asked from here until it can."""
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
            self._pidfd = os.pidfd_open(self._pid)
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
        self._looked = time.monotonic()
        self._look()

    def _look(self) -> None:
        """Whether it still asks. The clock for that goes on by one look at the most, however late we are: where all
        have slept, or only we have, it has got its time yet."""
        now = time.monotonic()
        self._clock += min(now - self._looked, LOOK_S)
        self._looked = now
        if any(watch.is_late(self._clock) for watch in self._watches.values()):
            self._fail("it does not ask any more")
        else:
            self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)

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
                if kind == SHORTAGE:
                    self._rest(value)
                self._tell(watch, watch.asked.result(kind, value), begun / 1e9)

    def _rest(self, error: int) -> None:
        """It lacks something: for a while nothing more is handed over. What was is told of one by one."""
        now = time.monotonic()
        if now >= self._shortages.until:
            pause = self._shortages.next(now)
            why = f"pyrun-probe: {os.strerror(error).lower()}"
            self._warn(f"{why}: no more probes are handed to it for {pause:g} s, and the agent asks")

    def _fail(self, why: str) -> None:
        """Until the next start all is asked from here."""
        pause = self._starts.next(time.monotonic())
        self._warn(
            f"pyrun-probe: {why}: probes of HTTP and TCP are asked by the agent, and it is started again in {pause:g} s"
        )
        self.close()
        self._timer = asyncio.get_running_loop().call_later(pause, self.start)
        for watch in list(self._watches.values()):
            self._tell(watch, Result(None, why), 0.0)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        if self._pid:
            self._end()

    def _end(self) -> None:
        """Kills it, stopped or not. Of one that the kernel does not let go we do not wait for the end."""
        pid, pidfd, self._pid, self._pidfd = self._pid, self._pidfd, 0, -1
        if pidfd < 0:  # it has just been made, and nobody else waits for it
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        ends = select.poll()
        ends.register(pidfd, select.POLLIN)
        ends.poll(END_S * 1000)
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
        os.close(pidfd)
