"""How a line is shown: for people with the pod before it, for tools as JSON. Pure.

What a program wrote is foreign: on a terminal its control characters are told and not obeyed.
"""

from __future__ import annotations

import time

from ..errors import printable
from .line import SECOND

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .line import Line
    from .tree import Container

COLOURS = (36, 33, 32, 35, 34, 31)


def time_text(nanoseconds: int) -> str:
    """RFC 3339 in UTC, with all nine digits, so that times of a column stand below each other."""
    seconds, rest = divmod(nanoseconds, SECOND)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"


def as_value(container: Container, line: Line, *, near: bool = False) -> dict[str, Any]:
    """What tools are told. Bytes that are no UTF-8 are U+FFFD there. near: it is shown for what is near to it."""
    return {
        "time": time_text(line.time),
        "namespace": container.namespace,
        "pod": container.pod,
        "uid": container.uid,
        "container": container.name,
        "stream": line.stream,
        "line": line.content.decode("utf-8", "replace"),
        **({"cut": True} if line.cut else {}),
        **({"context": True} if near else {}),
    }


def as_text(container: Container, line: Line, *, timestamps: bool, alone: bool, terminal: bool) -> bytes:
    """A line for people, with its newline; an entry's lines each as one. alone: there is one container, so its name
    says nothing. terminal: fit for one; otherwise the program's bytes are as they were."""
    before = "" if alone else f"{container.namespace}/{container.pod} {container.name}"
    if before and terminal:
        before = f"\x1b[{COLOURS[sum(map(ord, before)) % len(COLOURS)]}m{before}\x1b[0m"
    words = [word for word in (time_text(line.time) if timestamps else "", before) if word]
    head = "".join(f"{word} " for word in words).encode()
    contents = line.content.split(b"\n")
    if terminal:
        contents = [printable(one.decode("utf-8", "surrogateescape")).encode("utf-8", "replace") for one in contents]
    return b"".join(head + one + b"\n" for one in contents)
