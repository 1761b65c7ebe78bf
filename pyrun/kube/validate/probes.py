"""Probes, and the handlers of probes and of the lifecycle's hooks."""

from __future__ import annotations

from collections.abc import Iterator

from ..objects.containers import (
    Container,
    EphemeralContainer,
    HTTPGetAction,
    Lifecycle,
    LifecycleHandler,
    Probe,
    TCPSocketAction,
)
from ..strict import Fault
from .names import at_least, check, number_range, one_of, port_name_fault

HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")
# Linux' signals, as `lifecycle.stopSignal` spells them.
SIGNALS = (
    "SIGABRT", "SIGALRM", "SIGBUS", "SIGCHLD", "SIGCLD", "SIGCONT", "SIGFPE", "SIGHUP", "SIGILL", "SIGINT", "SIGIO",
    "SIGIOT", "SIGKILL", "SIGPIPE", "SIGPOLL", "SIGPROF", "SIGPWR", "SIGQUIT", "SIGSEGV", "SIGSTKFLT", "SIGSTOP",
    "SIGSYS", "SIGTERM", "SIGTRAP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG", "SIGUSR1", "SIGUSR2", "SIGVTALRM",
    "SIGWINCH", "SIGXCPU", "SIGXFSZ", "SIGRTMIN", *(f"SIGRTMIN+{n}" for n in range(1, 16)),
    *(f"SIGRTMAX-{n}" for n in range(14, 0, -1)), "SIGRTMAX",
)  # fmt: skip


def validate_probes(c: Container, grace: int, at: str) -> Iterator[Fault]:
    """Of an app container or a sidecar. grace: the pod's terminationGracePeriodSeconds."""
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe: Probe | None = getattr(c, name)
        if probe is not None:
            yield from _probe(probe, name, c, f"{at}/{name}")


def _probe(probe: Probe, name: str, c: Container, at: str) -> Iterator[Fault]:
    yield from _one_handler(probe, ("exec", "httpGet", "tcpSocket", "grpc"), c, at)
    for field in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        yield from at_least(getattr(probe, field), 0, f"{at}/{field}")
    if name != "readinessProbe" and (probe.successThreshold or 1) != 1:
        yield Fault(f"{at}/successThreshold", f"must be 1 for a {name}, is {probe.successThreshold}")
    if probe.terminationGracePeriodSeconds is not None:
        if name == "readinessProbe":
            yield Fault(f"{at}/terminationGracePeriodSeconds", "is not for a readinessProbe, which ends nothing")
        else:
            yield from at_least(probe.terminationGracePeriodSeconds, 1, f"{at}/terminationGracePeriodSeconds")


def _one_handler(found: Probe | LifecycleHandler, taken: tuple[str, ...], c: Container, at: str) -> Iterator[Fault]:
    set_ = [name for name in HANDLERS if getattr(found, name, None) is not None]
    if not set_:
        yield Fault(at, f"must have one of {', '.join(taken)}")
    for name in set_[1:]:
        yield Fault(f"{at}/{name}", f"must not be set beside {set_[0]}")
    if found.exec is not None and not found.exec.command:
        yield Fault(f"{at}/exec/command", "is missing")
    if found.httpGet is not None:
        yield from _http(found.httpGet, c, f"{at}/httpGet")
    if found.tcpSocket is not None:
        yield from _port(found.tcpSocket, c, f"{at}/tcpSocket")
    if isinstance(found, Probe) and found.grpc is not None:
        yield from number_range(found.grpc.port, 1, 65535, f"{at}/grpc/port")
        yield from one_of(found.grpc.mode, ("Plaintext", "TLS"), f"{at}/grpc/mode")


def _http(http: HTTPGetAction, c: Container, at: str) -> Iterator[Fault]:
    yield from _port(http, c, at)
    yield from one_of(http.scheme, ("HTTP", "HTTPS"), f"{at}/scheme")
    for i, header in enumerate(http.httpHeaders or ()):
        if not header.name or not all(ch.isascii() and (ch.isalnum() or ch in "!#$%&'*+-.^_`|~") for ch in header.name):
            yield Fault(f"{at}/httpHeaders/{i}/name", f"{header.name!r} is no header's name")


def _port(action: HTTPGetAction | TCPSocketAction, c: Container, at: str) -> Iterator[Fault]:
    port = action.port
    if isinstance(port, int):
        yield from number_range(port, 1, 65535, f"{at}/port")
    else:
        # ≠ an API server takes a name that no port has, and the probe then fails for ever.
        if (fault := port_name_fault(port)) is None and port not in {p.name for p in c.ports or ()}:
            fault = f"the container has no port named {port!r}"
        yield from check(fault, f"{at}/port")


def validate_lifecycle(found: Lifecycle | None, c: Container, grace: int, at: str) -> Iterator[Fault]:
    """Hooks of a container that is not an ordinary init container."""
    if found is None:
        return
    for name in ("postStart", "preStop"):
        handler: LifecycleHandler | None = getattr(found, name)
        if handler is None:
            continue
        yield from _one_handler(handler, ("exec", "httpGet", "tcpSocket", "sleep"), c, f"{at}/{name}")
        if handler.sleep is not None:
            yield from number_range(handler.sleep.seconds, 0, max(grace, 0), f"{at}/{name}/sleep/seconds")
    if found.stopSignal is not None and found.stopSignal not in SIGNALS:
        yield Fault(f"{at}/stopSignal", f"{found.stopSignal!r} is no signal, such as SIGTERM")


def refuse_probes(c: Container | EphemeralContainer, kind: str, at: str) -> Iterator[Fault]:
    for name in ("livenessProbe", "readinessProbe", "startupProbe", "lifecycle"):
        if getattr(c, name) is not None:
            yield Fault(f"{at}/{name}", f"is not for {kind}")
