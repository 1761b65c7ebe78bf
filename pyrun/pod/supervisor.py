"""The client of pyrun-pod, which is the parent of a pod's containers and outlives us.

A plan is made here and carried out there, by a short-lived maker; a step that fails becomes the same error
as if the plan had run here, for run_prepared() and run_exec() are asked to run it by us. The maker gives a container
its standard streams as its own 0, 1 and 2, and the terminal's socket as 3: plans are prepared without `stdio`, and with
`console=CONSOLE` where there is a terminal.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable
from typing import Any

from ..errors import PyrunError
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
from .calls import CALL_S, Gone, answer, ask, check, connect, receive
from .carried import Carried, Exec, Made, MakerDied
from .launch import spawn
from .messages import Known

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..runtime.create import Traced

CONSOLE = 3  # the number that the terminal's socket has in a maker: console=CONSOLE for prepare() and prepare_exec()
PIDS = "pids"
CREATE_S = 240.0  # as long as the kubelet waits for a RunPodSandbox; hooks have their own time
LOG_PATIENCE_S = 10.0


def _ignore(text: str) -> None:
    return None


class Supervisor:
    """The supervisor of the pod whose directory this is. Any number of threads may call."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._traces = False  # one of an older version, which runs still, can't
        self._events: socket.socket | None = None

    # --- its life -----------------------------------------------------------------------------------------------------

    @classmethod
    def launch(
        cls,
        directory: str,
        pod_id: str,
        *,
        cgroup: int | None = None,
        around: Callable[[int], None] | None = None,
    ) -> Supervisor:
        """Starts one. directory: the pod's, which is there. cgroup: a descriptor of the cgroup that it is to be in;
        or around: makes that around its pid, before it does anything. It is not our child. PyrunError when it can't be,
        or one is there."""
        self = cls(directory)
        try:
            connect(directory).close()
            raise PyrunError(f"{directory}: a supervisor runs already", hint="Supervisor.connect()")
        except Gone:
            pass
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{directory}/sock")
        status = spawn(directory, pod_id, cgroup, around)
        if status:
            raise PyrunError(f"pyrun-pod could not start: {os.strerror(status).lower()}", hint=f"look at {directory}")
        self._traces = True
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
        with ask(self.directory, m.request(m.HELLO)) as s:
            while True:
                reply, _ = answer(s, CALL_S)
                if reply.kind != m.KNOWN:
                    raise PyrunError(f"the supervisor answered {reply.kind} to HELLO", hint="is it of another version?")
                self._traces = bool(reply.value & m.TRACES)
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
        log_rate: int = 0,
        traced: Traced | None = None,
    ) -> Made:
        """Carries a prepared create out. Errors are run_prepared()'s, with nothing left of it. traced: as for that.

        log: opened to append; it stays the caller's. log_patience: seconds for which a log that can't be written to
        holds the container up, 0: without end. log_rate: KiB a second, 0: all; lines that are more are left out, and
        counted. cancel: readable when the caller gives up."""
        given: dict[str, Any] = {"log": log, "tty": tty, "stdin": stdin, "stdin_once": stdin_once}
        given |= {"timeout": timeout, "log_patience": log_patience, "log_rate": log_rate}

        def run(plan: Plan, **words: Any) -> Outcome:
            return self.carry_create(ctr, plan, prepared.request.cgroup or "", **given, **words)

        store = Store(prepared.request.state_dir.rpartition("/")[0])
        try:
            return run_prepared(store, prepared, warn, traced=traced, cancel=cancel, run=run)  # type: ignore[return-value]
        except MakerDied:
            from ..runtime.delete import delete

            delete(store, prepared.request.id, warn, force=True)
            raise

    def carry_create(
        self,
        ctr: str,
        plan: Plan,
        cgroup: str,
        *,
        log: int = -1,
        tty: bool = False,
        stdin: bool = False,
        stdin_once: bool = False,
        timeout: float = CREATE_S,
        log_patience: float = LOG_PATIENCE_S,
        log_rate: int = 0,
        **words: Any,
    ) -> Made:
        """As create(), of any plan that makes a container's init. cgroup: where that will be, "" where in none.
        words: run_plan()'s. StepFailed and MakerDied."""
        words["trace"] = bool(words.get("trace")) and self._traces
        flags = m.TTY * tty | m.OPEN_STDIN * stdin | m.STDIN_ONCE * stdin_once | m.HAS_LOG * (log >= 0)
        flags |= log_rate << m.LOG_RATE
        request = m.request(m.CREATE, ctr, flags, int(log_patience * 1000), cgroup)
        with self._run(request, plan, [log] if log >= 0 else [], timeout, **words) as (reply, fds, _):
            return Made(plan, reply.pid, *fds[:2])

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

        def run(plan: Plan, **words: Any) -> Outcome:
            return self.carry_exec(ctr, plan, stdio, console=console, timeout=timeout, **words)

        return run_exec(planned, cancel, run=run)  # type: ignore[return-value]

    def carry_exec(
        self,
        ctr: str,
        plan: Plan,
        stdio: tuple[int, int, int] | None = None,
        *,
        console: int = -1,
        timeout: float = CREATE_S,
        **words: Any,
    ) -> Exec:
        """As exec(), of any plan that makes a process. words: run_plan()'s. StepFailed and MakerDied."""
        request = m.request(m.EXEC, ctr, m.TTY if stdio is None else 0)
        given = [console] if stdio is None else list(stdio)
        with self._run(request, plan, given, timeout, keep=True, **words) as (reply, fds, s):
            return Exec(plan, reply.pid, fds[0], s)

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
            reply, _ = receive(self._listen(), socket.MSG_DONTWAIT)
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
            s = ask(self.directory, m.request(m.EVENTS))
            try:
                check(answer(s, CALL_S)[0], "")
            except BaseException:
                s.close()
                raise
            s.setblocking(False)  # with a time-out Python would wait for it, whatever the flags say
            self._events = s
        return self._events

    # --- messages -----------------------------------------------------------------------------------------------------

    def _simple(self, request: bytes, *fds: int, missing_ok: bool = False) -> list[int]:
        with ask(self.directory, request, *fds) as s:
            reply, got = answer(s, CALL_S)
        if not (missing_ok and reply.err == 2):
            check(reply, m.name_of(request))
        return got

    def _fd(self, request: bytes) -> int:
        got = self._simple(request)
        if len(got) != 1:
            raise PyrunError("the supervisor sent no descriptor")
        return got[0]

    def _run(
        self, request: bytes, plan: Plan, fds: list[int], timeout: float, keep: bool = False, **words: Any
    ) -> Carried:
        return Carried(self.directory, request, plan, fds, timeout, keep, words)


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
