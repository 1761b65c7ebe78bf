"""What is sent of a line, and how sending may end. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import InvalidArgument
from ..line import Line
from ..tree import Container

# Severities of syslog (RFC 5424, 6.2.1): of standard error, and of standard output.
ERROR, INFO = 3, 6


@dataclass(frozen=True, slots=True)
class Record:
    """A line, and where it is from. node: the name of this machine."""

    container: Container
    line: Line
    node: str

    @property
    def text(self) -> str:
        """Bytes that are no UTF-8 are U+FFFD."""
        return self.line.content.decode("utf-8", "replace")

    @property
    def labels(self) -> tuple[tuple[str, str], ...]:
        c = self.container
        return (
            ("namespace", c.namespace),
            ("pod", c.pod),
            ("pod_uid", c.uid),
            ("container", c.name),
            ("stream", self.line.stream or "stdout"),
            ("node", self.node),
        )


class Again(Exception):
    """It was not taken, and may be later. wait: the seconds that were asked for."""

    def __init__(self, text: str, wait: float | None = None) -> None:
        super().__init__(text)
        self.wait = wait


class Refused(Exception):
    """It is never taken as it is. lines: how many of them. whole: none of them was taken, and in smaller batches some
    may be."""

    def __init__(self, text: str, lines: int, *, whole: bool = False) -> None:
        super().__init__(text)
        self.lines = lines
        self.whole = whole


def parse_target(text: str) -> tuple[str, str]:
    """(protocol, URL or place) of `loki+http://…`, `elasticsearch+https://…`, `otlp+http://…`, `syslog+tls://HOST:PORT`
    and so on."""
    protocol, plus, rest = text.partition("+")
    scheme = rest.partition("://")[0]
    if plus and "://" in rest and scheme in PROTOCOLS.get(protocol, ()):
        return protocol, rest
    raise InvalidArgument(
        f"--ship {text}: no place that logs can be sent to",
        hint=", ".join(f"{name}+{schemes[0]}://…" for name, schemes in PROTOCOLS.items()),
    )


PROTOCOLS = {
    "loki": ("http", "https"),
    "elasticsearch": ("http", "https"),
    "otlp": ("http", "https"),
    "syslog": ("tcp", "tls"),
    "journald": ("unix",),
}
