"""What verbs print: bytes on stdout in one go, JSON as Go's encoder lays it out, and columns as its tabwriter does.

state and list are called by engines all the time, so this imports neither json nor os.
"""

from __future__ import annotations

import posix

from pyrun.errors import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any


def write(text: str, fd: int = 1, *, styled: bool = False) -> None:
    """All of the text on a descriptor, fit for a terminal; styled: with our colours, and fit already. Raises OSError,
    BrokenPipeError among them."""
    if not styled:
        text = "\n".join([printable(line) for line in text.split("\n")])
    data = text.encode("utf-8", "surrogateescape")
    while data:
        data = data[posix.write(fd, data) :]


def quoted(text: str) -> str:
    from _json import encode_basestring_ascii  # the C half of the json module

    made: str = encode_basestring_ascii(text)
    return made


def compact(value: Any) -> str:
    """The value as JSON on one line."""
    if value is None:
        return "null"
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, dict):
        return "{" + ",".join([f"{quoted(name)}:{compact(item)}" for name, item in value.items()]) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join([compact(item) for item in value]) + "]"
    return repr(value)


def indented(value: Any, indent: str = "  ", margin: str = "\n") -> str:
    """The value as JSON over many lines, as Go's MarshalIndent has it: empty objects and lists stay on one."""
    inner = margin + indent
    if isinstance(value, dict) and value:
        members = [f"{quoted(name)}: {indented(item, indent, inner)}" for name, item in value.items()]
        return "{" + inner + ("," + inner).join(members) + margin + "}"
    if isinstance(value, (list, tuple)) and value:
        return "[" + inner + ("," + inner).join([indented(item, indent, inner) for item in value]) + margin + "]"
    return compact(value)


def columns(rows: Iterable[Sequence[str]], least: int = 12, gap: int = 3) -> str:
    """The rows as lines, every column but the last at least `least` wide and `gap` wider than its longest cell."""
    table = [tuple(map(printable, row)) for row in rows]
    widths = [max(least, max(map(len, column)) + gap) for column in list(zip(*table, strict=True))[:-1]]
    lines = ["".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)) for row in table]
    return "\n".join(lines) + "\n"


def terminal_style(fd: int) -> tuple[int, bool]:
    """(columns, whether to use colours) for text on a descriptor: those of the terminal, or 110 and plain."""
    if not posix.isatty(fd):
        return 110, False
    try:
        width = posix.get_terminal_size(fd).columns
    except OSError:
        width = 0
    color = b"NO_COLOR" not in posix.environ and posix.environ.get(b"TERM") != b"dumb"
    return max(width or 110, 60), color
