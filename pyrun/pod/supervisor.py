"""The client of pyrun-pod, which is the parent of a pod's containers and outlives us.

Each call has a connection of its own, so that threads never wait for each other and a call that is given up ends by
closing it. A plan is made here and carried out there, by a short-lived maker; a step that fails becomes the same error
as if the plan had run here, for run_prepared() and run_exec() are asked to run it by us. The maker gives a container
its standard streams as its own 0, 1 and 2, and the terminal's socket as 3: plans are prepared without `stdio`, and with
`console=CONSOLE` where there is a terminal.
"""

from __future__ import annotations

import array
import fcntl
import os
import select
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

from ..errors import PyrunError, reason
from ..executor import Outcome, StepFailed
from ..facts import Facts
from ..plan.model.plan import Plan
from ..plan.pid_holder import plan_pid_holder
from ..plan.words.step_errors import explain_failure
from ..runtime.create import run_prepared
from ..runtime.exec import Planned, run_exec
from ..runtime.prepare import Prepared
from ..runtime.store import Store
from . import messages as m
from .messages import Known as Known
from .messages import exit_code as exit_code

CONSOLE = 3  # the number that the terminal's socket has in a maker: console=CONSOLE for prepare() and prepare_exec()
PIDS = "pids"
CALL_S = 10.0
CREATE_S = 240.0  # as long as the kubelet waits for a RunPodSandbox; hooks have their own time
UNDO_S = 30.0
LOG_PATIENCE_S = 10.0
SEALS = 15  # F_SEAL_SEAL, SHRINK, GROW and WRITE
PIDFD_GET_INFO, INFO_EXIT, INFO_SIZE = 0xC0000000 | 64 << 16 | 0xFF << 8 | 11, 8, 64
BINARY = f"{__file__.rpartition('/pod/')[0]}/bin/pyrun-pod"
GONE_HINT = "its containers' state is that of their cgroup; exits/ beside its socket has what it recorded"


class Gone(PyrunError):
    """There is no supervisor: it never was, was told to end, or was killed."""


class MakerDied(PyrunError):
    """The process that carried a plan out was killed in the middle: what it left is found by the container's record."""


def _ignore(text: str) -> None:
    return None


class Made(Outcome):
    """A process that the supervisor is the parent of: pid, and its pidfd. Close it."""

    __slots__ = ("_fd",)

    def __init__(self, plan: Plan, pid: int, pidfd: int) -> None:
        super().__init__(None, None, plan, pid)
        self._fd = pidfd

    def pidfd(self) -> int:
        return self._fd

    def slot(self, number: int) -> int:
        return -1

    def took(self) -> list[int]:
        return []

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Exec(Made):
    """An exec: also what its end is told by, so keep it open until wait() has returned. fileno() is readable then."""

    __slots__ = ("_socket",)

    def __init__(self, plan: Plan, pid: int, pidfd: int, told: socket.socket) -> None:
        super().__init__(plan, pid, pidfd)
        self._socket = told

    def fileno(self) -> int:
        return self._socket.fileno()

    def wait(self, timeout: float | None = None) -> int:
        """Its wait status; exit_code() makes it one of a shell's. TimeoutError; Gone where nobody can tell any more."""
        if not _readable([self._socket.fileno()], timeout):
            raise TimeoutError(f"process {self.pid} has not ended")
        reply, _ = _receive(self._socket)
        return reply.known()[0].status

    def close(self) -> None:
        super().close()
        self._socket.close()


class Supervisor:
    """The supervisor of the pod whose directory this is. Any number of threads may call."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._events: socket.socket | None = None

    # --- its life -----------------------------------------------------------------------------------------------------

    @classmethod
    def launch(cls, directory: str, pod_id: str, *, cgroup: int | None = None) -> Supervisor:
        """Starts one. directory: the pod's, which is there. cgroup: a descriptor of the cgroup that it is to be in.
        It is not our child. PyrunError when it can't be, or one is there."""
        self = cls(directory)
        try:
            self._connect().close()
            raise PyrunError(f"{directory}: a supervisor runs already", hint="Supervisor.connect()")
        except Gone:
            pass
        _unlink(f"{directory}/sock")
        status = _spawn(directory, pod_id, cgroup)
        if status:
            raise PyrunError(f"pyrun-pod could not start: {os.strerror(status).lower()}", hint=f"look at {directory}")
        return self

    @classmethod
    def connect(cls, directory: str) -> Supervisor:
        """The one that runs. Gone."""
        self = cls(directory)
        self.hello()
        return self

    def hello(self) -> list[Known]:
        """What it knows: every container that was created and not dropped. Gone."""
        found: list[Known] = []
        with self._ask(m.request(m.HELLO)) as s:
            while True:
                reply, _ = _answer(s, CALL_S)
                if reply.kind != m.KNOWN:
                    raise PyrunError(f"the supervisor answered {reply.kind} to HELLO", hint="is it of another version?")
                found += reply.known()
                if reply.count < m.TOLD:
                    return found

    def end(self) -> None:
        """It ends; no error when it has already. PyrunError while a container runs or is being made."""
        try:
            self._simple(m.request(m.END))
        except Gone:
            return

    # --- containers ---------------------------------------------------------------------------------------------------

    def create(
        self,
        ctr: str,
        prepared: Prepared,
        *,
        log: int = -1,
        tty: bool = False,
        stdin: bool = False,
        stdin_once: bool = False,
        warn: Callable[[str], None] = _ignore,
        cancel: int = -1,
        timeout: float = CREATE_S,
        log_patience: float = LOG_PATIENCE_S,
    ) -> Made:
        """Carries a prepared create out. Errors are run_prepared()'s, with nothing left of it.

        log: opened to append; it stays the caller's. log_patience: seconds for which a log that can't be written to
        holds the container up, 0: without end. cancel: readable when the caller gives up."""
        flags = m.TTY * tty | m.OPEN_STDIN * stdin | m.STDIN_ONCE * stdin_once | m.HAS_LOG * (log >= 0)
        path = prepared.request.cgroup or ""
        request = m.request(m.CREATE, ctr, flags, int(log_patience * 1000), path)

        def run(plan: Plan, **words: Any) -> Outcome:
            with self._run(request, plan, [log] if log >= 0 else [], timeout, **words) as (reply, fds, _):
                return Made(plan, reply.pid, fds[0])

        store = Store(prepared.request.state_dir.rpartition("/")[0])
        try:
            return run_prepared(store, prepared, warn, cancel=cancel, run=run)  # type: ignore[return-value]
        except MakerDied:
            from ..runtime.delete import delete

            delete(store, prepared.request.id, warn, force=True)
            raise

    def exec(
        self,
        ctr: str,
        planned: Planned,
        stdio: tuple[int, int, int] | None = None,
        *,
        console: int = -1,
        cancel: int = -1,
        timeout: float = CREATE_S,
    ) -> Exec:
        """Another process in a container. Errors are run_exec()'s. stdio: its standard streams; or console, a connected
        unix stream socket over whose other end the terminal's master is sent. They stay the caller's."""
        request = m.request(m.EXEC, ctr, m.TTY if stdio is None else 0)
        given = [console] if stdio is None else list(stdio)

        def run(plan: Plan, **words: Any) -> Outcome:
            with self._run(request, plan, given, timeout, keep=True, **words) as (reply, fds, s):
                return Exec(plan, reply.pid, fds[0], s)

        return run_exec(planned, cancel, run=run)  # type: ignore[return-value]

    def hold_pids(self, facts: Facts, user_ns: str | None = None, *, timeout: float = CALL_S) -> Made:
        """Process 1 of the pod's shared PID namespace, which is /proc/PID/ns/pid: known to hello() by the name PIDS. It
        ends when it is killed, and with it all in the namespace; it is dropped like any container. user_ns: the file of
        the user namespace that owns it, None: the node's."""
        plan = plan_pid_holder(facts, user_ns)
        try:
            with self._run(m.request(m.CREATE, PIDS), plan, [], timeout) as (reply, fds, _):
                return Made(plan, reply.pid, fds[0])
        except StepFailed as e:
            raise explain_failure(e) from None

    def log(self, ctr: str, fd: int) -> None:
        """From the end of the line on that is being written, the log is fd, which stays the caller's."""
        self._simple(m.request(m.LOG, ctr), fd)

    def attach(self, ctr: str) -> socket.socket:
        """A SOCK_SEQPACKET socket: each message is one byte, 1 for stdout and 2 for stderr, and what was written to it
        from now on. Its end: the container's, or we were too slow. Close it."""
        return socket.socket(fileno=self._fd(m.request(m.ATTACH, ctr)))

    def stdin(self, ctr: str) -> int:
        """A descriptor that writes to its standard input (with a terminal: to that). Close it."""
        return self._fd(m.request(m.STDIN, ctr))

    def resize(self, ctr: str, width: int, height: int) -> None:
        self._simple(m.request(m.RESIZE, ctr, 0, width << 16 | height))

    def drop(self, ctr: str) -> None:
        """Forgets one that has ended; no error where it is not known. PyrunError while it runs."""
        self._simple(m.request(m.DROP, ctr), missing_ok=True)

    # --- ends ---------------------------------------------------------------------------------------------------------

    def fileno(self) -> int:
        """Readable when read_event() has something. It first tells of every end that has not been dropped."""
        return self._listen().fileno()

    def read_event(self) -> Known | None:
        """The next end; None: there is none now. Gone: the supervisor has ended, or we were too slow for it and
        fileno() is another from now on, which tells of all again."""
        try:
            reply, _ = _receive(self._listen(), socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except Gone:
            self.close()
            raise
        return reply.known()[0]

    def close(self) -> None:
        """Ours alone: the supervisor goes on."""
        if self._events is not None:
            self._events.close()
            self._events = None

    def _listen(self) -> socket.socket:
        if self._events is None:
            s = self._ask(m.request(m.EVENTS))
            try:
                _check(_answer(s, CALL_S)[0], "")
            except BaseException:
                s.close()
                raise
            s.setblocking(False)  # with a time-out Python would wait for it, whatever the flags say
            self._events = s
        return self._events

    # --- messages -----------------------------------------------------------------------------------------------------

    def _connect(self) -> socket.socket:
        """By the directory's descriptor, as an address may be 107 bytes long at most. Gone."""
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        # Not settimeout(): a socket that does not block is refused at once where the queue is full.
        s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(CALL_S), 0))
        try:
            held = os.open(self.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                s.connect(f"/proc/self/fd/{held}/sock")
            finally:
                os.close(held)
        except BlockingIOError:
            s.close()
            raise PyrunError(
                f"the supervisor in {self.directory} takes no call",
                hint="is it stopped, or are there too many at a time?",
            ) from None
        except OSError as e:
            s.close()
            raise Gone(f"no supervisor in {self.directory}: {reason(e)}", hint=GONE_HINT) from None
        return s

    def _ask(self, request: bytes, *fds: int) -> socket.socket:
        s = self._connect()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            s.sendmsg([request], rights, socket.MSG_NOSIGNAL)
        except (BrokenPipeError, ConnectionResetError):
            s.close()
            raise Gone("the supervisor has ended", hint=GONE_HINT) from None
        except BaseException:
            s.close()
            raise
        return s

    def _simple(self, request: bytes, *fds: int, missing_ok: bool = False) -> list[int]:
        with self._ask(request, *fds) as s:
            reply, got = _answer(s, CALL_S)
        if not (missing_ok and reply.err == 2):
            _check(reply, m.name_of(request))
        return got

    def _fd(self, request: bytes) -> int:
        got = self._simple(request)
        if len(got) != 1:
            raise PyrunError("the supervisor sent no descriptor")
        return got[0]

    def _run(
        self, request: bytes, plan: Plan, fds: list[int], timeout: float, keep: bool = False, **words: Any
    ) -> _Run:
        return _Run(self, request, plan, fds, timeout, keep, words)


class _Run:
    """One plan that a maker carries out: as a context, (RESULT, its descriptors, the connection). With keep the
    connection stays open. StepFailed as run_plan() raises it."""

    def __init__(
        self, pod: Supervisor, request: bytes, plan: Plan, fds: list[int], timeout: float, keep: bool, words: Any
    ) -> None:
        self._plan = plan
        self._ctr = m.name_of(request)
        self._keep = keep
        self._on_yield: Callable[[int, int], None] | None = words.get("on_yield")
        self._cancel: int = words.get("cancel", -1)
        self._timeout = timeout
        memfd = _sealed(plan.encode(trace=False, **(words.get("fault") or {})))
        try:
            self._socket = pod._ask(request, memfd, *fds)
        finally:
            os.close(memfd)

    def __enter__(self) -> tuple[m.Reply, list[int], socket.socket]:
        try:
            reply, fds = self._wait()
            if reply.kind == m.DONE or not reply.body:
                self._refused(reply)
            result = m.Result(reply.body)
            if result.status:
                self._failed(result)
            return reply, fds, self._socket
        except BaseException:
            self._socket.close()
            raise

    def __exit__(self, *error: object) -> None:
        if not self._keep or error[0] is not None:
            self._socket.close()

    def _wait(self) -> tuple[m.Reply, list[int]]:
        """Its last word. Where the caller gives up or the time is over, the maker is told, and undoes."""
        last, given_up = time.monotonic() + self._timeout, False
        while True:
            watched = [self._socket.fileno()] + ([self._cancel] if self._cancel >= 0 and not given_up else [])
            ready = _readable(watched, max(0.0, last - time.monotonic()))
            if self._socket.fileno() in ready:
                reply, fds = _receive(self._socket)
                if reply.kind != m.YIELD:
                    return reply, fds
                self._yielded(reply)
            elif given_up:
                raise PyrunError(
                    f"a maker has not undone its plan in {UNDO_S:.0f} s", hint="it may wait for a disk that is stuck"
                )
            else:
                given_up, last = True, time.monotonic() + UNDO_S
                self._socket.shutdown(socket.SHUT_WR)

    def _yielded(self, reply: m.Reply) -> None:
        if self._on_yield is None:
            raise RuntimeError(f"nobody answers yield {reply.value}")
        try:
            self._on_yield(reply.value, reply.pid)
        except BaseException:
            self._socket.shutdown(socket.SHUT_WR)  # the maker undoes
            _answer(self._socket, UNDO_S)
            raise
        self._socket.send(m.request(m.GO), socket.MSG_NOSIGNAL)

    def _refused(self, reply: m.Reply) -> None:
        if reply.kind == m.RESULT and reply.err == 10:
            how = f"signal {reply.value & 0x7F}" if reply.value & 0x7F else f"exit status {reply.value >> 8}"
            raise MakerDied(
                f"the process that made the container was ended by {how}",
                hint="was memory short? what it left is undone",
            )
        _check(reply, self._ctr)
        raise PyrunError(f"the supervisor answered {reply.kind} to a plan", hint="is it of another version?")

    def _failed(self, result: m.Result) -> None:
        if result.lane >= len(self._plan.lanes):
            if result.err == 22:
                raise PyrunError("the C parts are not of this version of pyrun", hint="build or install both together")
            raise OSError(result.err, "the plan could not be set up")
        raise StepFailed(self._plan, result, result.text, [])


def _sealed(data: bytes) -> int:
    fd = os.memfd_create("plan", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(fd, "wb", closefd=False) as f:
            f.write(data)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _readable(fds: list[int], timeout: float | None) -> list[int]:
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return [fd for fd, _ in poll.poll(None if timeout is None else timeout * 1000)]


def _receive(s: socket.socket, flags: int = 0) -> tuple[m.Reply, list[int]]:
    """Gone at its end."""
    try:
        data, rights, _, _ = s.recvmsg(16384, socket.CMSG_LEN(16), flags | socket.MSG_CMSG_CLOEXEC)
        fds = array.array("i")
        for _, _, raw in rights:
            fds.frombytes(raw[: len(raw) // fds.itemsize * fds.itemsize])
        if data:
            return m.Reply(data), list(fds)
    except ConnectionResetError:
        pass
    except ValueError as e:
        raise PyrunError(f"the supervisor's answer: {e}", hint="is it of another version?") from None
    raise Gone("the supervisor has ended", hint=GONE_HINT)


def _answer(s: socket.socket, timeout: float) -> tuple[m.Reply, list[int]]:
    if not _readable([s.fileno()], timeout):
        raise PyrunError(
            f"the supervisor has not answered in {timeout:.0f} s", hint="is it stopped, or its disk stuck?"
        )
    return _receive(s)


def _check(reply: m.Reply, ctr: str) -> None:
    if not reply.err:
        return
    known = {
        2: "does not know it",
        3: "it does not run",
        6: "it has no standard input to write to",
        16: "it still runs",
        17: "there is one of this name",
        25: "it has no terminal",
        87: "there are too many",
    }
    why = known.get(reply.err) or os.strerror(reply.err).lower()
    raise PyrunError(f"the pod's supervisor: container {ctr or '(none)'}: {why}")


def _spawn(directory: str, pod_id: str, cgroup: int | None) -> int:
    """pyrun-pod, which forks and ends when it listens: its exit status, an errno."""
    held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    moved: list[int] = []
    try:
        # Above what they become: else one would be overwritten before it is moved. And dup2 onto itself keeps CLOEXEC.
        moved += [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 16) for fd in (null, held)]
        actions: list[Any] = [(os.POSIX_SPAWN_DUP2, moved[0], n) for n in (0, 1, 2)]
        actions.append((os.POSIX_SPAWN_DUP2, moved[1], 3))
        if cgroup is not None:
            moved.append(fcntl.fcntl(cgroup, fcntl.F_DUPFD_CLOEXEC, 16))
            actions.append((os.POSIX_SPAWN_DUP2, moved[2], 4))
        else:
            actions.append((os.POSIX_SPAWN_CLOSE, 4))
        try:
            pid = os.posix_spawn(BINARY, ["pyrun-pod", pod_id], {}, file_actions=actions)
        except OSError as e:
            hint = "is the package whole, and may programs run from where it lies (no noexec)?"
            raise PyrunError(f"{BINARY}: {reason(e)}", hint=hint) from None
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        for fd in (held, null, *moved):
            os.close(fd)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def drop(supervisor: Supervisor, ctr: str, patience_s: float = CALL_S) -> None:
    """As Supervisor.drop(), of one that was killed: the supervisor may need a moment to hear of its end."""
    last = time.monotonic() + patience_s
    while True:
        try:
            return supervisor.drop(ctr)
        except PyrunError as error:
            if isinstance(error, Gone) or time.monotonic() > last:
                raise
            time.sleep(0.002)


# --- without a supervisor ---------------------------------------------------------------------------------------------


def read_exits(directory: str) -> dict[str, Known]:
    """What the pod's supervisor, which may be gone, has recorded of containers that have ended, by their names."""
    found = {}
    try:
        names = os.listdir(f"{directory}/exits")
    except FileNotFoundError:
        return {}
    for name in names:
        try:
            with open(f"{directory}/exits/{name}", "rb") as f:
                known = m.read_exit(f.read(4096), name)
        except OSError:
            continue
        if known is not None:
            found[name] = known
    return found


def lost_status(pidfd: int) -> int | None:
    """The wait status of a process that is not our child, once it has been reaped (Linux 6.15); None: not known."""
    info = bytearray(struct.pack("<Q", INFO_EXIT) + bytes(INFO_SIZE - 8))
    try:
        fcntl.ioctl(pidfd, PIDFD_GET_INFO, info)
    except OSError:
        return None
    mask = struct.unpack_from("<Q", info)[0]
    return struct.unpack_from("<i", info, 60)[0] if mask & INFO_EXIT else None
