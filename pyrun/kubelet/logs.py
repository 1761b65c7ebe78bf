"""A container's log as a kubelet gives it: the lines of one attempt, from its file, and on while it runs."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from ..errors import InvalidArgument, PyrunError
from ..inotify import Watch
from ..logs.files import End
from ..logs.follow import CHUNK, LOOK, WATCHED, Cursor
from ..logs.line import SECOND, Line, parse_time
from ..logs.query import Query
from ..logs.read import read_container, tail
from ..logs.show import time_text
from ..logs.tree import Container

FLAGS = {"true": True, "1": True, "false": False, "0": False, "": False}
SHORTLY = 0.05  # a busy writer wakes us at each write: what comes within this time is read in one go
STREAMS = {"": "", "All": "", "Stdout": "stdout", "Stderr": "stderr"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """As PodLogOptions. since: nanoseconds since 1970. limit: bytes."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail: int | None = None
    since: int = 0
    limit: int | None = None
    stream: str = ""


def parse_wanted(query: Mapping[str, str], now: float) -> Wanted:
    """Of a request's parameters. InvalidArgument names one that is wrong; others than these mean nothing."""
    since = query.get("sinceTime", "")
    seconds = _number(query, "sinceSeconds", 1)
    if since and seconds is not None:
        raise InvalidArgument("sinceTime and sinceSeconds: only one of them can be")
    try:
        at = parse_time(since) if since else 0
    except ValueError:
        raise InvalidArgument(f"sinceTime: {since!r} is no time of RFC 3339") from None
    stream = query.get("stream", "")
    if stream not in STREAMS:
        raise InvalidArgument(f"stream: {stream!r} is none", hint="All, Stdout or Stderr")
    return Wanted(
        follow=_flag(query, "follow"),
        previous=_flag(query, "previous"),
        timestamps=_flag(query, "timestamps"),
        tail=_number(query, "tailLines", 0),
        since=at if seconds is None else int((now - seconds) * SECOND),
        limit=_number(query, "limitBytes", 1),
        stream=STREAMS[stream],
    )


def _flag(query: Mapping[str, str], name: str) -> bool:
    text = query.get(name, "")
    if text.lower() not in FLAGS:
        raise InvalidArgument(f"{name}: {text!r} is neither true nor false")
    return FLAGS[text.lower()]


def _number(query: Mapping[str, str], name: str, least: int) -> int | None:
    text = query.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 19) or int(text) < least:
        raise InvalidArgument(f"{name}: {text!r} is no number from {least} on")
    return int(text)


class _Full(Exception):
    """As much as was asked for is told."""


class Teller:
    """Writes lines to a socket, until the limit."""

    def __init__(self, stream: socket.socket, wanted: Wanted) -> None:
        self._stream, self._wanted = stream, wanted
        self._left = wanted.limit
        self._begun: set[str] = set()  # streams whose last line was cut: what follows belongs to it
        self._kept = bytearray()

    def add(self, line: Line) -> None:
        head = b"" if not self._wanted.timestamps or line.stream in self._begun else _head(line)
        if line.cut:
            self._begun.add(line.stream)
        else:
            self._begun.discard(line.stream)
        self._kept += head + line.content + (b"" if line.cut else b"\n")
        if len(self._kept) >= CHUNK or (self._left is not None and len(self._kept) >= self._left):
            self.flush()

    def flush(self) -> None:
        data = bytes(self._kept[: self._left])
        self._kept.clear()
        self._stream.sendall(data)
        if self._left is not None:
            self._left -= len(data)
            if not self._left:
                raise _Full


def _head(line: Line) -> bytes:
    return time_text(line.time).encode() + b" "


def write_logs(of: Container, wanted: Wanted, stream: socket.socket, ended: Callable[[], bool]) -> None:
    """In a thread, until all is told. ended: whether the container writes no more. OSError where nobody takes it."""
    query = Query(since=wanted.since, stream=wanted.stream)
    teller = Teller(stream, wanted)
    try:
        if wanted.follow:
            _follow(of, query, wanted, stream, teller, ended)
        else:
            for line in _past(of, query, wanted, None):
                teller.add(line)
        teller.flush()
    except _Full:
        pass


def _past(of: Container, query: Query, wanted: Wanted, ends: Mapping[str, End] | None) -> Iterable[Line]:
    if wanted.tail is None:
        return read_container(of, query, ends=ends)
    return tail(of, query, wanted.tail, ends=ends)


def _follow(
    of: Container, query: Query, wanted: Wanted, stream: socket.socket, teller: Teller, ended: Callable[[], bool]
) -> None:
    cursor, watch = Cursor(of), _observe(of.directory)
    try:
        cursor.start_at_end()
        ends = {of.directory: cursor.end}
        for line in _past(of, query, wanted, ends):
            teller.add(line)
        while True:
            last, found = ended(), False
            for line in cursor.read():
                found = True
                if query.takes(line):
                    teller.add(line)
            teller.flush()
            if last and not found:
                return
            if not found and _wait(watch, stream):
                return
    finally:
        cursor.close()
        if watch:
            watch.close()


def _observe(directory: str) -> Watch | None:
    """None where the machine has no more watches: a look each LOOK seconds remains."""
    with suppress(PyrunError), ExitStack() as stack:
        watch = stack.enter_context(Watch())
        watch.add(directory, WATCHED)
        stack.pop_all()
        return watch
    return None


def _wait(watch: Watch | None, stream: socket.socket) -> bool:
    """Until there may be something new; whether nobody listens any more."""
    sources: list[socket.socket | Watch] = [stream, watch] if watch else [stream]
    ready = select.select(sources, [], [], LOOK)[0]
    if watch and watch in ready:
        time.sleep(SHORTLY)
        while watch.read():
            pass
    return stream in ready
