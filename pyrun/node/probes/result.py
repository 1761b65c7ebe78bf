"""Of whom a probe asks, and what it answers."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

from ...kube.objects.base import IntOrString
from ...kube.objects.containers import Container

MAX_OUTPUT = 10 << 10  # bytes of a body or of what a command wrote (kubelet: maxRespBodyLength, maxReadLength)
VERSION = "1.37"
PROBE_AGENT = f"kube-probe/{VERSION}"
HOOK_AGENT = f"kube-lifecycle/{VERSION}"


@dataclass(frozen=True, slots=True)
class Target:
    """A container by its id in the runtime. address: the pod's; with hostNetwork the node's."""

    id: str
    container: Container
    address: str


@dataclass(frozen=True, slots=True)
class Result:
    """good: None where the prober itself failed, which says nothing of the container. warning: good, and yet to be
    told, as an answer that leads to another host. output: for events and status, MAX_OUTPUT bytes at the most."""

    good: bool | None
    output: str = ""
    warning: bool = False


class Took:
    """How long probes took: BOUNDS, as Prometheus has them where nobody says which; counts: of each, and of more."""

    BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts, self.seconds = [0] * (len(self.BOUNDS) + 1), 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(self.BOUNDS, seconds)] += 1
        self.seconds += seconds

    def add_many(self, counts: Iterable[int], seconds: float) -> None:
        self.counts = [a + b for a, b in zip(self.counts, counts, strict=True)]
        self.seconds += seconds


class ProberError(Exception):
    """The question could not be asked: a port that does not exist, an exec that the runtime refused."""


def text_of(data: bytes) -> str:
    return data[:MAX_OUTPUT].decode("utf-8", "replace")


def port_of(port: IntOrString, container: Container) -> int:
    """A port's number, or a name of the container's ports. ProberError."""
    number: int | None = port if isinstance(port, int) else None
    if number is None:
        named = next((p.containerPort for p in container.ports or () if p.name == port), None)
        number = named if named is not None else int(port) if str(port).isdecimal() else None
    if number is None:
        raise ProberError(f"the container has no port named {port!r}")
    if not 0 < number < 65536:
        raise ProberError(f"invalid port number: {number}")
    return number


def joined(host: str, port: int) -> str:
    """HOST:PORT, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
