"""A line of a CRI log, and the lines that a program wrote, which a runtime may have cut in pieces.

A runtime cuts what is longer than its buffer: pieces have the tag P, and the last one F. Streams mix between the
pieces, so pieces are joined a stream at a time. What is joined is bounded: a program may write for ever without a
newline.
"""

from __future__ import annotations

import calendar
from dataclasses import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

STREAMS = (b"stdout", b"stderr")
# A joined line longer than this is told in parts, each marked as cut but the last.
LONGEST = 1 << 20
SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Line:
    """time: nanoseconds since 1970, UTC. stream: "stdout" or "stderr"; "" for a line that is not of the format (it is
    told whole, with the time of the line before it). cut: more of the same line follows."""

    time: int
    stream: str
    content: bytes
    cut: bool = False


def parse_time(text: bytes | str) -> int:
    """Nanoseconds since 1970 of an RFC 3339 time. ValueError if it is none."""
    if isinstance(text, bytes):
        text = text.decode("ascii")
    if len(text) < 20 or text[4] != "-" or text[7] != "-" or text[10] not in "Tt" or text[13] != ":" or text[16] != ":":
        raise ValueError(f"{text!r} is no time of RFC 3339")
    month, day = int(text[5:7]), int(text[8:10])
    hour, minute, second = int(text[11:13]), int(text[14:16]), int(text[17:19])
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second <= 60):
        raise ValueError(f"{text!r} is no time of RFC 3339")
    whole = calendar.timegm((int(text[:4]), month, day, hour, minute, second))
    rest = text[19:]
    nanoseconds = 0
    if rest[0] == ".":
        digits = 1
        while digits < len(rest) and rest[digits].isdigit():
            digits += 1
        nanoseconds = int(rest[1:digits][:9].ljust(9, "0"))
        rest = rest[digits:]
    return (whole - _offset(rest)) * SECOND + nanoseconds


def _offset(zone: str) -> int:
    """Seconds east of Greenwich."""
    if zone in ("Z", "z"):
        return 0
    if len(zone) != 6 or zone[0] not in "+-" or zone[3] != ":":
        raise ValueError(f"{zone!r} is no zone of RFC 3339")
    seconds = int(zone[1:3]) * 3600 + int(zone[4:6]) * 60
    return seconds if zone[0] == "+" else -seconds


def parse_piece(raw: bytes) -> tuple[int, str, bool, bytes] | None:
    """(time, stream, partial, content) of a line of the file without its newline; None where it is not of the
    format. A tag may have more words, after colons, which mean nothing yet."""
    words = raw.split(b" ", 3)
    if len(words) < 3 or words[1] not in STREAMS:
        return None
    try:
        time = parse_time(words[0])
    except ValueError:
        return None
    tag = words[2].split(b":", 1)[0]
    if tag not in (b"P", b"F"):
        return None
    return time, words[1].decode(), tag == b"P", words[3] if len(words) == 4 else b""


def has_pieces(lines: bytes) -> bool:
    """Of lines of a file: False where each is one that a program wrote."""
    return b" P " in lines or b" P:" in lines


class Joiner:
    """Puts the pieces of lines together, a stream at a time. What is held is at most LONGEST bytes a stream."""

    __slots__ = ("_held", "_time")

    def __init__(self) -> None:
        self._held: dict[str, tuple[int, bytearray]] = {}
        self._time = 0

    @property
    def idle(self) -> bool:
        """Nothing is held."""
        return not self._held

    def add(self, raw: bytes) -> Line | None:
        """What is whole with this line of the file."""
        piece = parse_piece(raw)
        if piece is None:
            return Line(self._time, "", raw)
        time, stream, partial, content = piece
        self._time = time
        held = self._held.pop(stream, None)
        if held is None and not partial:
            return Line(time, stream, content)
        began, joined = held or (time, bytearray())
        joined += content
        if partial and len(joined) < LONGEST:
            self._held[stream] = (began, joined)
            return None
        return Line(began, stream, bytes(joined), cut=partial)

    def rest(self) -> Iterator[Line]:
        """What waits for its last piece, which will not come: the program or the runtime ended before."""
        for stream, (began, joined) in self._held.items():
            yield Line(began, stream, bytes(joined), cut=True)
        self._held.clear()


def join(raws: Iterable[bytes]) -> Iterator[Line]:
    """The lines that the program wrote, of a file's lines in order."""
    joiner = Joiner()
    for raw in raws:
        line = joiner.add(raw)
        if line is not None:
            yield line
    yield from joiner.rest()
