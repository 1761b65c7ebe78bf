"""Lines that belong together, such as a stack trace: they are one entry. Pure.

An entry is a Line whose content has newlines. It is put together when it is read; what is stored are lines. Lines are
of one entry only if they are of one stream and come within GAP of each other.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field

from .line import SECOND, Line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

GAP = SECOND
# What is more becomes another entry.
MOST_LINES, MOST_BYTES = 512, 1 << 20

# A line that goes on, whatever was before it: indented; Java's causes, and an exception below the message that it was
# logged with; the head of Python's traceback and what stands between two; Rust's.
_GOES_ON = re.compile(
    rb"[ \t]+\S|Caused by: |\.\.\. \d+ |Traceback \(most recent call last\):"
    rb"|During handling of the above exception|The above exception was the direct cause|stack backtrace:"
    rb"|(?:[a-z_]\w*\.)+[A-Z][\w$]*(?:Exception|Error)(?::|$)"
)
_TRACEBACK = re.compile(rb"Traceback \(most recent call last\):")
# Its last line; and what goes on in a panic of Go.
_RAISED = re.compile(rb"[A-Za-z_][\w.]*(?::|$)")
_PANIC = re.compile(rb"panic: |fatal error: ")
_IN_PANIC = re.compile(rb"$|goroutine \d|\[signal |\[recovered|created by |exit status \d|[\w./*()-]+\(.*\)$")
# What one of the rules may take.
_MAY = re.compile(b"|".join(one.pattern for one in (_GOES_ON, _RAISED, _IN_PANIC)))


@dataclass(frozen=True, slots=True)
class Rule:
    """Which lines go on with the entry before. begins: those in which it is not found; None: as stack traces do."""

    begins: re.Pattern[bytes] | None = None

    def may_go_on(self, content: bytes) -> bool:
        """False: it begins an entry, whatever was before it."""
        return not self.begins.search(content) if self.begins else _MAY.match(content) is not None

    def goes_on(self, content: bytes, entry: Open) -> bool:
        if self.begins:
            return not self.begins.search(content)
        if _GOES_ON.match(content):
            if _TRACEBACK.match(content):
                entry.state = "frames"
            return True
        match entry.state:
            case "frames":
                entry.state = "raised"
                return _RAISED.match(content) is not None
            case "raised":  # another one may follow, after an empty line
                return not content
            case "panic":
                return _IN_PANIC.match(content) is not None
        return False


@dataclass(slots=True)
class Open:
    """An entry to which more may come. last: the time of its newest line. hit: what is looked for is in it."""

    first: Line
    hit: bool
    last: int
    size: int
    state: str = ""
    contents: list[bytes] = field(default_factory=list)
    closed: bool = False

    def line(self) -> Line:
        if len(self.contents) == 1:
            return self.first
        return Line(self.first.time, self.first.stream, b"\n".join(self.contents), self.first.cut)


class Entries:
    """Makes entries of a container's lines, in the order in which they began. rule: None if each line is one."""

    __slots__ = ("_open", "_queue", "_rule", "begun")

    def __init__(self, rule: Rule | None) -> None:
        self._rule = rule
        self.begun = 0  # how many
        self._queue: deque[Open] = deque()
        self._open: dict[str, Open] = {}

    @property
    def has_hit(self) -> bool:
        return any(one.hit for one in self._queue)

    def add(self, line: Line, *, hit: bool) -> Iterator[Open]:
        """What is whole with this line."""
        self._close_older(line.time)
        one = self._open.get(line.stream)
        if one is not None and not self._takes(one, line):
            self._close(one)
            one = None
        if one is not None:
            one.contents.append(line.content)
            one.last, one.size, one.hit = max(one.last, line.time), one.size + len(line.content), one.hit or hit
        else:
            begun = Open(line, hit, line.time, len(line.content), contents=[line.content])
            self._queue.append(begun)
            self.begun += 1
            if self._rule is None:
                begun.closed = True
            else:
                self._open[line.stream] = begun
                if _PANIC.match(line.content):
                    begun.state = "panic"
                elif _TRACEBACK.match(line.content):
                    begun.state = "frames"
        yield from self._whole()

    def _takes(self, one: Open, line: Line) -> bool:
        room = len(one.contents) < MOST_LINES and one.size + len(line.content) <= MOST_BYTES
        return room and self._rule is not None and self._rule.goes_on(line.content, one)

    def older(self, now: int) -> Iterator[Open]:
        """What is whole at this time."""
        self._close_older(now)
        yield from self._whole()

    def rest(self) -> Iterator[Open]:
        """All that is held: no more comes."""
        for one in [*self._open.values()]:
            self._close(one)
        yield from self._whole()

    def _close_older(self, now: int) -> None:
        for one in [*self._open.values()]:
            if now - one.last > GAP:
                self._close(one)

    def _close(self, one: Open) -> None:
        one.closed = True
        del self._open[one.first.stream]

    def _whole(self) -> Iterator[Open]:
        while self._queue and self._queue[0].closed:
            yield self._queue.popleft()
