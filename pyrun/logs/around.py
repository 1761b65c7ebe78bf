"""What is shown with a line that was found: the entry that it is of, and entries around it, as grep's -A, -B and -C.

Of a large log little is read line by line: what is looked for is searched in whole chunks, and from where it is found
lines are taken backward, as far as its entry and what is to be shown before it may reach, and forward.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from .entry import MOST_LINES, Entries, Open, Rule
from .line import STREAMS, Joiner, Line, has_pieces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .query import Query

    # Some lines, or what reads such in which nothing is that is looked for.
    Chunk = bytes | Callable[[], bytes]
    # With whether it is known that no line of it is in pieces.
    Known = tuple[Chunk, bool]


@dataclass(frozen=True, slots=True)
class Near:
    """rule: what an entry is, None for a line. before, after: how many entries are shown around one that has a hit."""

    rule: Rule | None = None
    before: int = 0
    after: int = 0


@dataclass(frozen=True, slots=True)
class Shown:
    """hit: what is looked for is in it; others are shown for they are near. apart: not shown is what was before it."""

    line: Line
    hit: bool
    apart: bool


class Around:
    """Of a container's lines, in order, what is to be shown."""

    def __init__(self, query: Query, near: Near) -> None:
        self._query = query
        self._entries = Entries(near.rule)
        self._before: deque[Line] = deque(maxlen=near.before)
        self._after, self._left = near.after, 0
        self._apart = True

    @property
    def wants_more(self) -> bool:
        """The next line may be shown."""
        return self._left > 0 or self._entries.has_hit

    def add(self, line: Line) -> Iterator[Shown]:
        if self._query.is_of(line):
            for one in self._entries.add(line, hit=self._query.matches(line.content)):
                yield from self._place(one)

    def older(self, now: int) -> Iterator[Shown]:
        """What is whole at this time."""
        for one in self._entries.older(now):
            yield from self._place(one)

    def gap(self) -> Iterator[Shown]:
        """Lines are left out, or it is the end: what follows is not near to what was."""
        for one in self._entries.rest():
            yield from self._place(one)
        self._before.clear()
        self._left, self._apart = 0, True

    def _place(self, one: Open) -> Iterator[Shown]:
        if one.hit:
            for line in self._before:
                yield self._show(line, hit=False)
            self._before.clear()
            yield self._show(one.line(), hit=True)
            self._left = self._after
        elif self._left:
            self._left -= 1
            yield self._show(one.line(), hit=False)
        else:
            self._apart |= len(self._before) == self._before.maxlen
            self._before.append(one.line())

    def _show(self, line: Line, *, hit: bool) -> Shown:
        apart, self._apart = self._apart, False
        return Shown(line, hit, apart)


# Chunks in which lines are taken backward from where something is found.
RECENT = 4


class Search:
    """Over the chunks of one attempt of a container."""

    def __init__(self, query: Query, near: Near) -> None:
        self._query = query
        self._near = near
        self._around = Around(query, near)
        self.joiner = Joiner()
        # Chunks before this one, and up to where their lines have been looked at.
        self._recent: deque[tuple[Chunk, int]] = deque(maxlen=RECENT)

    def add(self, chunks: Iterable[Known]) -> Iterator[Shown]:
        for chunk, whole in chunks:
            if isinstance(chunk, bytes):
                yield from self._look(chunk, whole)
            elif self._around.wants_more:
                yield from self._look(chunk(), whole)
            else:
                self._recent.append((chunk, 0))

    def end(self) -> Iterator[Shown]:
        for line in self.joiner.rest():
            yield from self._around.add(line)
        yield from self._around.gap()

    def _look(self, chunk: bytes, whole: bool) -> Iterator[Shown]:
        done = at = 0
        # A line may stand in pieces, over several chunks.
        plain = self.joiner.idle and (whole or not has_pieces(chunk))
        may_be = not plain or self._query.may_be_in(chunk)
        find = self._query.finder(chunk) if plain and may_be else None
        if may_be and find is None:
            yield from self._before(chunk, 0, 0, {"stdout", "stderr"})
            yield from self._take(chunk)
            done = at = len(chunk)
        while at < len(chunk):
            if self._around.wants_more:
                start, at = at, _line_end(chunk, at)
            else:
                hit = find(at) if find else -1
                if hit < 0:
                    break
                start, at = chunk.rfind(b"\n", 0, hit) + 1, _line_end(chunk, hit)
                stream, content = _parts(chunk[start:at])
                if not self._query.matches(content):
                    continue
                yield from self._before(chunk, done, start, {stream} if self._may_go_on(content) else set())
            yield from self._take(chunk[start:at])
            done = at
        self._recent.append((chunk, done))

    def _may_go_on(self, content: bytes) -> bool:
        return self._near.rule is not None and self._near.rule.may_go_on(content)

    def _take(self, raws: bytes) -> Iterator[Shown]:
        for raw in raws.removesuffix(b"\n").split(b"\n"):
            line = self.joiner.add(raw)
            if line is not None:
                yield from self._around.add(line)

    def _before(self, chunk: bytes, done: int, start: int, open_streams: set[str]) -> Iterator[Shown]:
        """Takes the lines before `start` that may be shown with it. open_streams: of which an entry goes on there."""
        found: list[bytes] = []
        more, most = self._near.before, MOST_LINES * (self._near.before + 1)
        places: list[tuple[Chunk, int]] = [(chunk[:start], done), *reversed(self._recent)]
        while places:
            one, begin = places.pop(0)
            text = one if isinstance(one, bytes) else one()
            end = len(text)
            while end > begin and (more > 0 or open_streams) and len(found) < most:
                at = text.rfind(b"\n", 0, end - 1) + 1
                found.append(text[at:end])
                stream, content = _parts(found[-1])
                if self._may_go_on(content):
                    open_streams.add(stream)
                elif open_streams:
                    open_streams.discard(stream)
                else:
                    more -= self._query.stream in ("", stream)
                end = at
            if end > begin:
                yield from self._around.gap()
                break
            if begin > 0:
                break  # from here on they have been taken already
        else:
            yield from self._around.gap()
        for raw in reversed(found):
            yield from self._take(raw)


def _line_end(chunk: bytes, at: int) -> int:
    """Behind its newline."""
    end = chunk.find(b"\n", at)
    return len(chunk) if end < 0 else end + 1


def _parts(raw: bytes) -> tuple[str, bytes]:
    """(stream, content) of a line that is no piece of one."""
    words = raw.rstrip(b"\n").split(b" ", 3)
    if len(words) < 3 or words[1] not in STREAMS:
        return "", raw.rstrip(b"\n")
    return words[1].decode(), words[3] if len(words) == 4 else b""
