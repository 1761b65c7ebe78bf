"""The face of the runtime: what a long-lived program, or the command line, does to containers.

Nothing of the caller's process is changed: no signal, mask, umask, directory, environment or descriptor; so any number
of its threads may be in here at once. What is made is its child: wait() and delete() reap that by its own number and
nobody else, and a caller whose SIGCHLD handler reaps everyone takes the exit codes away. Each verb lies in a module of
its own, which is imported when it is first asked for: the command line pays for no other.
"""

from __future__ import annotations

import posix
from _thread import allocate_lock

from ..errors import PyrunError
from .child import Child, end_child
from .store import CREATING, Missing, Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..executor import Outcome, Replayed
    from ..facts import Facts
    from ..oci.model import Process, Spec
    from .create import Traced
    from .prepare import Config

    Stdio = tuple[int, int, int]

KILLED_S = 10.0


def _nothing() -> None:
    return None


def _ignore(text: str) -> None:
    return None


class Another(Missing):
    """The container is gone, and its id is another's."""


class Runtime:
    """The containers below the directory root (absolute; made when it is first needed, mode 0700).

    facts: the host as collect_facts() has read it, where the caller keeps that; None: read anew for each plan.
    rootless: see collect_facts(). warn: called with a text that somebody should read and that stops nothing."""

    __slots__ = ("_lock", "_made", "facts", "rootless", "store", "warn")

    def __init__(
        self,
        root: str,
        facts: Facts | None = None,
        warn: Callable[[str], None] = _ignore,
        *,
        rootless: bool | None = None,
    ) -> None:
        self.store = Store(root)
        self.facts = facts
        self.rootless = rootless
        self.warn = warn
        self._lock = allocate_lock()
        self._made: dict[str, list[Child]] = {}  # by id: children that have not been reaped

    def create(self, spec: Spec | bytes | Config, *, id: str, bundle: str, **words: Any) -> Container:
        """A container whose init waits for start(). PyrunError, with nothing left of it.

        spec: config.json's bytes, or what they mean. bundle: the directory that a relative root.path is in.
        Among words, all of them optional:
        stdio: descriptors for the program's 0, 1 and 2, which stay the caller's; without, it has the caller's own.
        console: a connected unix stream socket, over whose other end the terminal's master is sent (SCM_RIGHTS), where
        process.terminal is set. begin: called when all is planned and nothing made. cancel: a descriptor that
        becomes readable when the caller gives up: all is undone then (see run_plan()). traced, replayed: as for
        run_prepared().
        The rest are attributes of Request (plan/model/request.py) and words of prepare()."""
        return self._make(spec, id, bundle, park=True, **words)

    def run(self, spec: Spec | bytes | Config, *, id: str, bundle: str, **words: Any) -> Container:
        """As create() and start() in one: the program runs."""
        return self._make(spec, id, bundle, park=False, **words)

    def container(self, id: str) -> Container:
        """Whichever has this id when its methods are called; they say so where none has."""
        return Container(self, id)

    def ids(self) -> list[str]:
        """Of all containers, sorted."""
        return self.store.ids()

    def _make(
        self,
        spec: Spec | bytes | Config,
        id: str,
        bundle: str,
        *,
        begin: Callable[[], None] = _nothing,
        cancel: int = -1,
        traced: Traced | None = None,
        replayed: Replayed | None = None,
        **words: Any,
    ) -> Container:
        from .create import run_prepared
        from .prepare import Config, prepare

        config = spec if isinstance(spec, Config) else Config(spec)
        prepared = prepare(self.store, id, bundle, config, facts=self.facts, rootless=self.rootless, **words)
        begin()
        outcome = run_prepared(self.store, prepared, self.warn, traced=traced, cancel=cancel, replayed=replayed)
        try:
            made = Container(self, id, self._keep(id, outcome))
            if prepared.request.notify and not prepared.request.park:
                made.take_notify_socket(outcome)
            return made
        except OSError:  # no descriptor was left for it
            from .delete import delete

            delete(self.store, id, self.warn, force=True)
            self.forget(id)
            raise
        finally:
            outcome.close()

    # --- children ---

    def _keep(self, id: str, outcome: Outcome) -> Child:
        """The child that a plan has made, to be reaped at the latest with its container."""
        try:
            child = Child(outcome.pid, posix.dup(outcome.pidfd()))
        except OSError:  # no descriptor is left for it, and nobody else would reap it
            end_child(outcome.pidfd())
            raise
        with self._lock:
            self._made[id] = [*(c for c in self._made.get(id, ()) if not c.reap()), child]
        return child

    def unreaped(self, id: str) -> list[Child]:
        """Of what was made in the container of this id, those children that nobody has waited for."""
        with self._lock:
            return [child for child in self._made.get(id, ()) if not child.reap()]

    def forget(self, id: str) -> None:
        """The container is gone, and what has ended of it with it."""
        with self._lock:
            left = [child for child in self._made.pop(id, ()) if not child.reap()]
            if left:
                self._made[id] = left


class Container:
    """One container. pid: its init's; 0: whichever has the id. notify: a datagram socket on which a program that was
    made by run() with `notify` says how it is (sd_notify(3)), else -1; close() closes it.

    Every method raises PyrunError, and where the container has gone meanwhile that says so."""

    __slots__ = ("_init", "_runtime", "id", "notify", "pid")

    def __init__(self, runtime: Runtime, id: str, init: Child | None = None) -> None:
        self._runtime = runtime
        self._init = init
        self.id = id
        self.pid = init.pid if init else 0
        self.notify = -1

    def _store(self) -> Store:
        """Where it is. PyrunError when another has its id now."""
        store = self._runtime.store
        if self.pid and store.open(self.id).record.pid != self.pid:
            raise Another(f"container does not exist: {self.id}", hint="another has its id now")
        return store

    def status(self) -> str:
        """creating, created, running, paused or stopped (runtime.md, State)."""
        self._runtime.unreaped(self.id)  # an exec that has ended would keep its init from that
        return self._runtime.store.open(self.id).status()

    def state(self) -> str:
        """What runtime.md, State, says, as JSON."""
        from .state import state_text

        return state_text(self._runtime.store.open(self.id))

    def spec(self) -> Spec:
        """What it was made from, with what update() has changed since."""
        from ..oci.load import load_file

        container = self._runtime.store.open(self.id)
        try:
            return load_file(container.directory + "/config.json")
        except PyrunError:
            if container.status() == CREATING:  # it comes after the record
                raise PyrunError(
                    f"container {self.id} is still being created", hint="in a moment it is there"
                ) from None
            raise

    def start(
        self,
        *,
        cancel: int = -1,
        notify: bytes | None = None,
        replayed: Replayed | None = None,
        spec: Spec | None = None,
    ) -> None:
        """Lets its program go, and returns when that runs. cancel: see create(); what has been let go is not undone,
        and delete(force=True) removes it. notify, replayed, spec: see start.start()."""
        from .start import start

        try:
            words: dict[str, Any] = {"cancel": cancel, "notify": notify, "replayed": replayed, "spec": spec}
            start(self._runtime.store, self.id, self._runtime.warn, **words)
        except PyrunError:
            if self._init is not None:
                self._init.reap()
            raise

    def exec(
        self,
        process: Process | bytes,
        stdio: Stdio | None = None,
        *,
        spec: Spec | None = None,
        begin: Callable[[], None] = _nothing,
        cancel: int = -1,
        **words: Any,
    ) -> Exec:
        """One more process, which runs. What process leaves out it has as the container's own.

        process: an object of config.json's `process`, or its JSON. stdio: see create(). spec: what spec() has said
        just now. begin, cancel: see create(). words: those of prepare_exec(), and attributes of Request: console as for
        create(), pid_file, pidfd_socket, subcgroup."""
        from ..oci.load import load_process
        from ..plan.process.exec_process import lend
        from .exec import prepare_exec, run_exec

        runtime = self._runtime
        container = self._store().open(self.id)
        spec = spec or self.spec()
        if spec.process is None:
            raise PyrunError("the container has no process whose place the command could take")
        process = lend(spec.process, load_process(process) if isinstance(process, bytes) else process)
        words |= {"facts": runtime.facts, "rootless": runtime.rootless, "stdio": stdio}
        planned = prepare_exec(container, spec, process, **words)
        begin()
        outcome = run_exec(planned, cancel)
        try:
            return Exec(runtime._keep(self.id, outcome))
        finally:
            outcome.close()

    def kill(self, signal: str = "TERM", *, everyone: bool = False) -> None:
        """A signal to its init, by name or number. everyone: a container that has stopped is no error."""
        from .kill import kill

        kill(self._store(), self.id, signal, everyone=everyone)

    def pause(self) -> None:
        """Freezes its processes."""
        from .pause import pause

        pause(self._store(), self.id)

    def resume(self) -> None:
        """Thaws its processes."""
        from .pause import resume

        resume(self._store(), self.id)

    def update(self, resources: bytes, *, file: str = "resources.json", rdt: dict[str, str] | None = None) -> None:
        """Other limits: the JSON of a linux.resources object. file, rdt: see update.update()."""
        from .update import update

        update(self._store(), self.id, resources, self._runtime.warn, file=file, rdt=rdt)

    def stats(self) -> dict[str, Any]:
        """What its cgroup has used, as `pyrun events --stats` has it under `data`."""
        from .events import events

        (event,) = events(self._runtime.store, self.id, stats=True)
        data: dict[str, Any] = event["data"]
        return data

    def pids(self) -> list[int]:
        """Of all its processes, as we see them, in ascending order."""
        from .ps import pids_of

        return pids_of(self._runtime.store, self.id)

    def pidfd(self) -> int:
        """Its init's, of one that create() or run() of this process made; it is open while this object is."""
        if self._init is None:
            raise PyrunError(f"container {self.id} was made by another process")
        return self._init.pidfd

    def wait(self, timeout: float | None = None) -> int | None:
        """Until it has stopped: its program's exit code, 128 + n where signal n ended it; None where it is not this
        process's child. TimeoutError after timeout seconds. Execs that end meanwhile are reaped, too: an init can't
        end before all in its PID namespace are."""
        init = self._init or self._find_init()
        return init.wait(timeout, lambda: self._runtime.unreaped(self.id)) if init else None

    def _find_init(self) -> Child | None:
        container = self._runtime.store.open(self.id)
        pid = container.record.pid
        known = [child for child in self._runtime.unreaped(self.id) if child.pid == pid]
        if known or not container.alive():
            return known[0] if known else None
        try:
            child = Child(pid, posix.pidfd_open(pid))
        except ProcessLookupError:
            return None
        return child if container.alive() else None  # its number may be another's by now

    def delete(self, *, force: bool = False) -> None:
        """Removes what it has left. force: kills it first, and where there is none that is no error."""
        from .delete import delete

        try:
            self._store()
        except Another:
            self._forget()
            if not force:
                raise
            return
        except PyrunError:  # delete() says what is wrong, if that is
            pass
        if self._runtime.unreaped(self.id) and force:
            self._kill()
        try:
            delete(self._runtime.store, self.id, self._runtime.warn, force=force)
        except Missing:  # somebody else has deleted it
            self._forget()
            raise
        self._forget()

    def _forget(self) -> None:
        self._runtime.forget(self.id)
        self.close()

    def end(self) -> None:
        """Kills and deletes it, but not what others have put into its cgroup. No error when it has gone meanwhile."""
        self._kill()
        try:
            self.delete()
        except Missing:
            return

    def _kill(self) -> None:
        """Its processes, of which some are our children: they must be reaped for the others to end."""
        try:
            self.kill("KILL", everyone=True)
            self.wait(KILLED_S)
        except (PyrunError, TimeoutError):  # delete() says what is wrong
            return

    def take_notify_socket(self, outcome: Outcome) -> None:
        from .notify import socket_of

        self.notify = posix.dup(socket_of(outcome))

    def close(self) -> None:
        if self.notify >= 0:
            posix.close(self.notify)
            self.notify = -1


class Exec:
    """A process that was put into a container: pid, as we see it, and pidfd, which is open until close()."""

    __slots__ = ("_child",)

    def __init__(self, child: Child) -> None:
        self._child = child

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def pidfd(self) -> int:
        return self._child.pidfd

    def wait(self, timeout: float | None = None) -> int | None:
        """Its exit code, 128 + n where signal n ended it; None where another has reaped it. TimeoutError after timeout
        seconds. Until somebody waits for it, its container's PID namespace can't end."""
        return self._child.wait(timeout)

    def kill(self, number: int) -> None:
        """Sends the signal of this number; one that has ended is no error."""
        self._child.kill(number)

    def close(self) -> None:
        """Closes the pidfd of a process that has ended. One that has not goes on, and is reaped with its container."""
        if self._child.reap():
            self._child.close()
