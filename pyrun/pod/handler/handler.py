"""What a runtime handler does for the containers of its pods. Everything else is the daemon's and the supervisor's,
whoever the handler is: records, images, logs, ends, streams, statistics."""

from __future__ import annotations

from abc import ABC, abstractmethod

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...plan.model.overlay import Overlay
    from ..carried import Exec
    from ..pod import Container
    from ..sandbox import Sandbox
    from .features import Features


class Handler(ABC):
    """All of it blocks, any number of threads may call, and errors are PyrunError."""

    name: str
    features: Features

    @abstractmethod
    def check_pod(self, config: Any) -> None:
        """InvalidArgument names what of a PodSandboxConfig it can't do."""

    @abstractmethod
    def check(self, config: Any, sandbox: Sandbox) -> None:
        """The same of a ContainerConfig, in this pod."""

    @abstractmethod
    def create(self, c: Container, doc: dict[str, Any], overlay: Overlay, log: int) -> None:
        """Makes the container of this config.json, up to an init that waits for start(); its cgroup is in the record
        then. overlay: its root. log: a descriptor, or -1."""

    @abstractmethod
    def start(self, c: Container) -> None:
        """Lets its program go."""

    @abstractmethod
    def kill(self, c: Container, signal: str, *, everyone: bool = False) -> None:
        """A signal, by name or number, to its init. everyone: KILL, to all of it; one that has ended is no error."""

    @abstractmethod
    def delete(self, c: Container) -> None:
        """Kills what runs of it, and takes away its cgroup and state. No error where there is none."""

    @abstractmethod
    def pid(self, c: Container) -> int:
        """Of its init; 0: it has none."""

    @abstractmethod
    def config_path(self, c: Container) -> str:
        """Of the config.json that it was made from. There is none once it has ended."""

    @abstractmethod
    def is_started(self, c: Container) -> bool:
        """Whether start() has let it go, of one whose init lives."""

    @abstractmethod
    def update(self, c: Container, resources: dict[str, Any]) -> None:
        """Other limits: a linux.resources object. All of them or none."""

    @abstractmethod
    def exec(
        self,
        c: Container,
        argv: tuple[str, ...],
        cgroup: str | None,
        stdio: tuple[int, int, int] | None,
        console: int = -1,
    ) -> Exec:
        """Another process in it. cgroup: the name of the one below its own that this is to be in. stdio, console: as
        Supervisor.exec() has them; without stdio it has a terminal."""

    @abstractmethod
    def ids(self) -> list[str]:
        """Of all containers of which there is a state."""

    @abstractmethod
    def delete_id(self, id: str) -> None:
        """delete(), of one that is in nobody's record."""
