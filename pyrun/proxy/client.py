"""The client of pyrun-dataplane, which carries connections while we decide where to.

It outlives us: who comes next finds it by `sock` in the runtime directory, sends it all rules as a new generation, and
no connection is touched. The sockets that listen are ours and its: whichever of the two dies, the other one still has
them, and connections that come meanwhile wait in their queues. An upgrade is a second data plane with the same sockets
and rules, after which the first one accepts no more and ends after its last connection.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import select
import signal
import socket
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b

from ..errors import PyrunError, reason
from ..memfd import sealed
from ..rights import receive_message, send_message
from . import messages as m
from .encode import encode_change, encode_rules
from .ready import Ready
from .rules import Change, Rules

CALL_S = 10.0
GLANCE_S = 2.0  # for what is told besides: a data plane that is stopped shall not hold up its caller
START_S = 30.0
END_S = 10.0
OWN_USER = 65530  # of Debian's reserved range, and outside of systemd's dynamic one: nobody else's
CONTROL = 3  # its descriptor there
SO_RCVBUFFORCE = 33
CLIENT_BUFFER = 5 << 18  # bytes, which the kernel doubles: of what clients send and an endpoint does not take
BINARY = f"{__file__.rpartition('/proxy/')[0]}/bin/pyrun-dataplane"
SOCKET, NEW = "sock", "sock.new"


class Gone(PyrunError):
    """There is no data plane: it never was, or has ended."""


class DataPlane:
    """One that runs. Not for several threads at a time. Closing it ends our connection, and nothing else."""

    def __init__(self, directory: str, control: _Control, pid: int, generation: int, child: bool) -> None:
        self.directory = directory
        self.pid = pid
        self.generation = generation
        self._control = control
        self._child = child
        self._pidfd = os.pidfd_open(pid)
        self._settings = m.Settings()

    # --- its life -----------------------------------------------------------------------------------------------------

    @classmethod
    def start(
        cls,
        directory: str,
        listeners: Sequence[socket.socket],
        settings: m.Settings | None = None,
        *,
        rules: Rules | None = None,
        ready: Ready | None = None,
        user: int = OWN_USER,
    ) -> DataPlane:
        """Starts one, which takes the place of `sock` in the directory once it has its rules, or what is ready in their
        place. The directory is there and root's alone. listeners: TCP sockets that listen; they stay the caller's, who
        keeps them for the next one. PyrunError when it can't be."""

        def prepare(new: DataPlane) -> None:
            new.set(settings or m.Settings())
            if rules is not None:
                new.apply(rules)
            if ready is not None and ready.whole >= 0:
                new.take_whole(ready.whole)
                new.change(ready.since())
            new.listen(listeners)

        return cls._start(directory, user, prepare)

    @classmethod
    def _start(cls, directory: str, user: int, prepare: Callable[[DataPlane], None]) -> DataPlane:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s, _held(directory) as held:
            _unlink(held, NEW)
            s.bind(f"/proc/self/fd/{held.fd}/{NEW}")
            s.listen(8)
            pid = _spawn(s, user)
            try:
                self = cls._connect(directory, held.fd, NEW, child=True)
            except BaseException:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise
            try:
                prepare(self)
                os.rename(NEW, SOCKET, src_dir_fd=held.fd, dst_dir_fd=held.fd)
            except BaseException:
                self.kill()
                raise
        return self

    @classmethod
    def connect(cls, directory: str) -> DataPlane:
        """The one that runs. Gone."""
        with _held(directory) as held:
            return cls._connect(directory, held.fd, SOCKET, child=False)

    @classmethod
    def _connect(cls, directory: str, held: int, name: str, child: bool) -> DataPlane:
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            control = _Control(s)
            control.wait_at_most(CALL_S)
            try:
                s.connect(f"/proc/self/fd/{held}/{name}")
            except OSError as e:
                raise Gone(f"no data plane in {directory}: {reason(e)}") from None
            reply, _ = control.ask(m.request(m.HELLO))
            state = m.read_state(reply.body)
            return cls(directory, control, state.pid, state.generation, child)
        except BaseException:
            s.close()
            raise

    def upgrade(
        self, rules: Rules, settings: m.Settings | None = None, *, limit: int = 0, user: int = OWN_USER
    ) -> DataPlane:
        """Another process in this one's place, of the program as it is now; this one ends after its last connection, or
        after `limit` seconds (0: none). UDP sockets, flows and pins move over with what waits in them: nobody notices.
        This object is closed. PyrunError where it can't be: then all is as it was."""

        def prepare(new: DataPlane) -> None:
            new.set(settings or self._settings)
            new.generation = self.generation
            _hand_over(self, new, m.GIVE_SOCKETS, m.TAKE_SOCKETS)
            new.apply(rules)
            _hand_over(self, new, m.GIVE_FLOWS, m.TAKE_FLOWS)
            _hand_over(self, new, m.GIVE_PINS, m.TAKE_PINS)
            _hand_over(self, new, m.KEPT, m.KEEP)
            listeners = self.listeners()
            try:
                new.listen(listeners)
            finally:
                for s in listeners:
                    s.close()

        try:
            new = self._start(self.directory, user, prepare)
        except BaseException:
            with contextlib.suppress(PyrunError):
                self.apply(rules)  # it takes its UDP sockets back
            raise
        self.retire(limit)
        if self._child:
            _reap_later(self._pidfd)
        self.close()
        return new

    def program(self) -> bytes:
        """What tells the program that it runs from another that is installed in its place. b"": it can't be told."""
        return _digest(f"/proc/{self.pid}/exe")

    def retire(self, limit: int = 0) -> None:
        """It accepts no more, and ends after its last connection or after `limit` seconds (0: none)."""
        self._ask(m.request(m.RETIRE, limit))

    def end(self) -> None:
        """It ends now, and its connections with it; no error when it has already."""
        try:
            self._ask(m.request(m.END))
        except Gone:
            pass
        self._wait(END_S)
        self.close()

    def kill(self) -> None:
        """By a signal, if it does not answer any more."""
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        self._wait(END_S)
        self.close()

    def fileno(self) -> int:
        """Readable once it has ended."""
        return self._pidfd

    def close(self) -> None:
        """Ours alone: it goes on."""
        self._control.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def _wait(self, seconds: float) -> None:
        if self._pidfd < 0:
            return  # it has died before, and has been closed
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        if not poll.poll(seconds * 1000):
            raise PyrunError(f"the data plane, process {self.pid}, does not end", hint="kill() it")
        if self._child:
            self.reap()

    def reap(self) -> None:
        """After fileno() was readable, where it is our child: so that no zombie stays."""
        try:
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            pass

    # --- what it is told ----------------------------------------------------------------------------------------------

    def apply(self, rules: Rules) -> int:
        """All rules, in place of those that it has. Returns their generation. Connections stay as they are."""
        return self._image(encode_rules(rules, self.generation + 1))

    def take_whole(self, image: int) -> int:
        """As apply(), of an image that is encoded already, by its sealed descriptor, with its own generation."""
        reply, _ = self._ask(m.request(m.APPLY), image)
        self.generation = reply.generation
        return self.generation

    def change(self, change: Change) -> int:
        """What has changed since what it has. PyrunError where it has another generation: then apply() all."""
        if not change:
            return self.generation
        return self._image(encode_change(change, self.generation + 1, self.generation))

    def set(self, settings: m.Settings) -> None:
        self._ask(m.request(m.SETTINGS, body=settings.encode()))
        self._settings = settings

    def listen(self, listeners: Sequence[socket.socket]) -> None:
        """It accepts from these from now on, and from no others. At most 16."""
        for s in listeners:
            with contextlib.suppress(PermissionError):  # without CAP_NET_ADMIN it grows to what tcp_rmem says
                s.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, CLIENT_BUFFER)
        self._ask(m.request(m.LISTEN), *(s.fileno() for s in listeners))

    def listeners(self) -> list[socket.socket]:
        """Those that it accepts from. Close them."""
        _, fds = self._ask(m.request(m.GIVE))
        return [socket.socket(fileno=fd) for fd in fds]

    def keep(self, fds: Mapping[str, int]) -> None:
        """It holds these open for whoever comes after us, in place of what it held. At most 64, and of short names."""
        self._ask(m.request(m.KEEP, body="\0".join(fds).encode()), *fds.values())

    def kept(self) -> dict[str, int]:
        """What keep() was given. Close them."""
        reply, fds = self._ask(m.request(m.KEPT))
        return dict(zip(reply.body.decode().split("\0"), fds, strict=bool(fds)))

    def hello(self) -> m.State:
        reply, _ = self._ask(m.request(m.HELLO))
        return m.read_state(reply.body)

    def glance(self) -> m.State:
        """hello() for who has no time: PyrunError after GLANCE_S without an answer."""
        self._control.wait_at_most(GLANCE_S)
        try:
            return self.hello()
        finally:
            self._control.wait_at_most(CALL_S)

    def counters(self) -> m.Counters:
        """What it has counted since it began."""
        _, fds = self._ask(m.request(m.COUNTERS))
        try:
            with mmap.mmap(fds[0], 0, prot=mmap.PROT_READ) as mapped:
                return m.read_counters(mapped[:])
        finally:
            for fd in fds:
                os.close(fd)

    def _image(self, image: bytes) -> int:
        if len(image) <= m.INLINE_MOST:
            reply, _ = self._ask(m.request(m.APPLY, body=image))
        else:
            fd = sealed("rules", image)
            try:
                return self.take_whole(fd)
            finally:
                os.close(fd)
        self.generation = reply.generation
        return self.generation

    def _ask(self, request: bytes, *fds: int) -> tuple[m.Reply, list[int]]:
        return self._control.ask(request, *fds)


def _hand_over(old: DataPlane, new: DataPlane, give: int, take: int) -> None:
    """All of one kind, from one data plane to the next. Flows and sockets come in parts."""
    while True:
        reply, fds = old._ask(m.request(give))
        try:
            if fds:
                new._ask(m.request(take, body=reply.body), *fds)
        finally:
            for fd in fds:
                os.close(fd)
        if not fds or give in (m.GIVE_PINS, m.KEPT):
            return


class _Control:
    """Requests, and a reply to each, in their order. late: how many are still to come of those that took too long."""

    def __init__(self, s: socket.socket) -> None:
        self._socket = s
        self._late = 0
        self._patience = 0.0

    def wait_at_most(self, seconds: float) -> None:
        self._patience = seconds
        for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            with contextlib.suppress(OSError):  # it is closed, which ask() tells
                self._socket.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", int(seconds), 0))

    def ask(self, request: bytes, *fds: int) -> tuple[m.Reply, list[int]]:
        """One request, one reply. Gone; PyrunError where it is refused, or not answered in time."""
        try:
            while self._late:
                for fd in self._receive()[1]:
                    os.close(fd)
            send_message(self._socket, request, fds)
            self._late += 1
            data, got = self._receive()
        except BlockingIOError:
            late = f"the data plane did not answer within {self._patience:g} s"
            raise PyrunError(late, hint="is it stopped?") from None
        except OSError as e:
            raise Gone(f"the data plane has ended: {reason(e)}") from None
        reply = m.read_reply(data)
        if reply.error:
            for fd in got:
                os.close(fd)
            raise PyrunError(f"the data plane refuses it: {reply.text} ({os.strerror(reply.error).lower()})")
        return reply, got

    def _receive(self) -> tuple[bytes, list[int]]:
        data, got = receive_message(self._socket, m.REPLY_MOST, 64)
        if not data:
            raise Gone("the data plane has ended")
        self._late -= 1
        return data, got

    def close(self) -> None:
        self._socket.close()


def installed() -> bytes:
    """As DataPlane.program(), of the program that would be started now."""
    return _digest(BINARY)


def _digest(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return blake2b(file.read()).digest()
    except OSError:  # it has ended, or is being installed
        return b""


class _held:
    """A descriptor of a directory: an address may be 107 bytes long at most, and the path may become another's."""

    def __init__(self, directory: str) -> None:
        try:
            self.fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as e:
            raise Gone(f"no data plane in {directory}: {reason(e)}") from None

    def __enter__(self) -> _held:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self.fd)


def _unlink(held: _held, name: str) -> None:
    try:
        os.unlink(name, dir_fd=held.fd)
    except FileNotFoundError:
        pass


def _reap_later(pidfd: int) -> None:
    """Once it has ended, which may be hours from now: a child that nobody waits for stays a zombie."""
    mine = os.dup(pidfd)

    def wait() -> None:
        try:
            os.waitid(os.P_PIDFD, mine, os.WEXITED)
        except ChildProcessError:
            pass
        finally:
            os.close(mine)

    threading.Thread(target=wait, name="reaper", daemon=True).start()


def _spawn(control: socket.socket, user: int) -> int:
    """Its pid, once it is ready. In a session of its own, so that a terminal's signals are not for it."""
    told, tell = os.pipe()
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    given = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, CONTROL + 1) for fd in (null, tell, control.fileno())]
    os.close(null)
    os.close(tell)
    try:
        actions = [
            (os.POSIX_SPAWN_DUP2, given[0], 0),
            (os.POSIX_SPAWN_DUP2, given[1], 1),
            (os.POSIX_SPAWN_DUP2, given[2], CONTROL),
        ]
        argv = [BINARY, str(user), str(user)]
        try:
            pid = os.posix_spawn(BINARY, argv, {}, file_actions=actions, setsid=True)
        except OSError as e:
            os.close(told)
            raise PyrunError(f"pyrun-dataplane could not start: {reason(e)}", hint="./bootstrap build") from None
    finally:
        for fd in given:
            os.close(fd)
    try:
        ready = select.select([told], [], [], START_S)[0] and os.read(told, 16)
    finally:
        os.close(told)
    if ready != b"ready\n":
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        raise PyrunError(f"pyrun-dataplane could not start: wait status {status}", hint="it said why on standard error")
    return pid
