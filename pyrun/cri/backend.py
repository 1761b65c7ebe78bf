"""The streaming server's view of the pods (stream/backend.py)."""

from __future__ import annotations

import contextlib
import os

from ..errors import FailedPrecondition, PyrunError
from ..pod import execs
from ..pod.container import check_runs
from ..pod.pod import Container
from ..pod.pods import Pods


class Attached:
    """An attachment to a container's init."""

    def __init__(self, container: Container, socket: int, stdin: int) -> None:
        self._container = container
        self.socket, self.stdin = socket, stdin

    def stdin_ended(self) -> None:
        """With stdin_once the supervisor closes the container's end when the last writer has gone."""

    def resize(self, width: int, height: int) -> None:
        supervisor = self._container.pod.supervisor
        if supervisor is not None:
            with contextlib.suppress(PyrunError):
                supervisor.resize(self._container.id, width, height)

    def close(self) -> None:
        """The descriptors are the streaming server's."""


class PodBackend:
    def __init__(self, pods: Pods) -> None:
        self._pods = pods

    def exec(
        self, container: str, argv: tuple[str, ...], *, tty: bool, stdin: bool, stdout: bool, stderr: bool
    ) -> execs.Running:
        c = self._pods.container(container)
        return execs.run(self._pods, c, argv, tty=tty, stdin=stdin, stdout=stdout, stderr=stderr)

    def attach(self, container: str, *, tty: bool, stdin: bool, stdout: bool, stderr: bool) -> Attached:
        c = self._pods.container(container)
        check_runs(c)
        supervisor = c.pod.supervisor
        if supervisor is None:
            raise FailedPrecondition(f"the pod of container {c.id[:13]} has no supervisor")
        writer = supervisor.stdin(c.id) if stdin else -1
        try:
            return Attached(c, supervisor.attach(c.id).detach(), writer)
        except BaseException:
            if writer >= 0:
                os.close(writer)
            raise

    def netns(self, pod: str) -> int:
        p = self._pods.pod(pod)
        if not p.ready or p.sandbox is None:
            raise FailedPrecondition(f"pod {p.id[:13]} is not ready")
        return os.open(p.sandbox.net, os.O_RDONLY | os.O_CLOEXEC) if p.sandbox.net else -1
