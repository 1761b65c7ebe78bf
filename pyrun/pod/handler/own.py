"""pyrun itself: plans that the pod's supervisor carries out."""

from __future__ import annotations

import json

from ...errors import FailedPrecondition, PyrunError
from ...runtime.exec import prepare_exec
from ...runtime.prepare import Config, prepare
from ...runtime.runtime import Runtime
from ...runtime.store import CREATED
from ..spec import log_rate
from ..step_times import StepTimes
from ..supervisor import CONSOLE
from .features import Features
from .handler import Handler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ...facts import Facts
    from ...plan.model.overlay import Overlay
    from ..carried import Exec
    from ..pod import Container
    from ..sandbox import Sandbox
    from ..supervisor import Supervisor


class Own(Handler):
    """root: where its containers' state is."""

    name = "pyrun"
    features = Features(recursive_read_only=True, idmap=True, user_namespaces=True)

    def __init__(self, root: str, facts: Facts, warn: Callable[[str], None]) -> None:
        self._facts = facts
        self._runtime = Runtime(root, facts, warn)
        self._store = self._runtime.store
        self.step_times = StepTimes()

    def check_pod(self, config: Any) -> None:
        return

    def check(self, config: Any, sandbox: Sandbox) -> None:
        return

    def create(self, c: Container, doc: dict[str, Any], overlay: Overlay, log: int) -> None:
        sandbox = c.pod.sandbox
        words: dict[str, Any] = {"systemd": bool(sandbox and sandbox.slice)}
        words |= {"console": CONSOLE} if c.config.tty else {}
        prepared = prepare(
            self._store,
            c.id,
            c.directory,
            Config(json.dumps(doc).encode()),
            facts=self._facts,
            overlay=overlay,
            late=True,
            **words,
        )
        c.record.cgroup = prepared.request.cgroup or ""
        c.spec = prepared.spec  # for the start, which mostly comes at once
        supervisor = supervisor_of(c)
        words = streams_of(c, log) | {"warn": c.record.warnings.append, "traced": self.step_times.add}
        supervisor.create(c.id, prepared, **words).close()

    def start(self, c: Container) -> None:
        spec, c.spec = c.spec, None  # it is read again by the first exec: most containers have none, and it is large
        self._runtime.container(c.id).start(spec=spec)

    def kill(self, c: Container, signal: str, *, everyone: bool = False) -> None:
        self._runtime.container(c.id).kill(signal, everyone=everyone)

    def delete(self, c: Container) -> None:
        self.delete_id(c.id)

    def pid(self, c: Container) -> int:
        try:
            return self._store.open(c.id).pid()
        except PyrunError:
            return 0

    def config_path(self, c: Container) -> str:
        return f"{self._store.directory(c.id)}/config.json"

    def is_started(self, c: Container) -> bool:
        return self._store.open(c.id).status() != CREATED

    def update(self, c: Container, resources: dict[str, Any]) -> None:
        self._runtime.container(c.id).update(json.dumps(resources).encode(), file="resources")

    def exec(
        self,
        c: Container,
        argv: tuple[str, ...],
        cgroup: str | None,
        stdio: tuple[int, int, int] | None,
        console: int = -1,
    ) -> Exec:
        if c.spec is None:
            c.spec = self._runtime.container(c.id).spec()
        assert c.spec.process is not None
        tty = stdio is None
        process = c.spec.process.replace(args=argv, terminal=tty, console_size=None)
        words: dict[str, Any] = {"console": CONSOLE} if tty else {}
        found = self._store.open(c.id)
        planned = prepare_exec(found, c.spec, process, facts=self._facts, subcgroup=cgroup, **words)
        return supervisor_of(c).exec(c.id, planned, stdio, console=console)

    def ids(self) -> list[str]:
        return self._store.ids()

    def delete_id(self, id: str) -> None:
        self._runtime.container(id).delete(force=True)


def supervisor_of(c: Container) -> Supervisor:
    """FailedPrecondition."""
    supervisor = c.pod.supervisor
    if supervisor is None:
        raise FailedPrecondition(f"the pod of container {c.id[:13]} has no supervisor", hint="it has been stopped")
    return supervisor


def streams_of(c: Container, log: int) -> dict[str, Any]:
    """What the supervisor is told of a container's streams, as Supervisor.create() has it."""
    config = c.config
    words: dict[str, Any] = {"tty": config.tty, "stdin": config.stdin, "stdin_once": config.stdin_once}
    return words | {"log": log, "log_rate": log_rate(config, c.pod.config), "cancel": c.cancel}
