"""YAML to plain values: libyaml's events, put together in a loop.

Bounded in depth, and in what aliases stand for (an aliased value is shared, never copied, but whoever walks through it
meets it each time). Refused, with its place: keys that are there twice, keys that are no scalar, tags.
"""

from __future__ import annotations

from yaml import YAMLError
from yaml.cyaml import CParser
from yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from .manifest_error import ManifestError
from .positions import Marks, packed
from .scalars import key_of, resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

MAX_DEPTH = 100
MAX_ALIASED = 100_000  # values that come of aliases, each as often as it is met
_NO_KEY = object()


def roots(data: bytes, name: str) -> Iterator[tuple[Any, Marks] | ManifestError]:
    """The root of each document of a stream, or what is wrong with it. After broken syntax there is no more."""
    build = None
    try:
        parser = CParser(data)
        while parser.check_event():
            event = parser.get_event()
            if type(event) is DocumentStartEvent:
                build = _Build(parser, name)
                yield build.document(event.start_mark)
                build = None
    except YAMLError as error:
        yield (build.fault if build is not None else None) or _syntax(error, name, data)


def _syntax(error: YAMLError, name: str, data: bytes | str) -> ManifestError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    position = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
    text = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    context = getattr(error, "context", None)
    if mark is not None and "cannot start any token" in str(text) and _is_tab(data, mark):
        context, text = None, "found a tab, and YAML is indented by spaces"
    return ManifestError(name, position, f"{context}: {text}" if context else str(text))


def _is_tab(data: bytes | str, mark: Any) -> bool:
    text = data if isinstance(data, str) else data.decode(errors="replace")
    line = (text.split("\n")[mark.line : mark.line + 1] or [""])[0]
    return line[mark.column : mark.column + 1] == "\t"


class _Fault(Exception):
    def __init__(self, mark: Any, text: str) -> None:
        self.mark = mark
        self.text = text


class _Open:
    """A mapping or list that has not ended. key: of a mapping, the one whose value comes next."""

    __slots__ = ("anchor", "before", "key", "marks", "merges", "value")

    def __init__(self, value: Any, anchor: str | None, before: int) -> None:
        self.value = value
        self.marks: dict[Any, int] = {}
        self.key: Any = _NO_KEY
        self.merges: list[Any] = []
        self.anchor = anchor
        self.before = before


class _Build:
    """One document."""

    def __init__(self, parser: Any, name: str) -> None:
        self._parser = parser
        self._name = name
        self._within: dict[int, dict[Any, int]] = {}
        self._anchors: dict[str, tuple[Any, int]] = {}  # the value, and how many values it is
        self._open: list[_Open] = []
        self._count = 0
        self._aliased = 0
        self._root: Any = None
        self.fault: ManifestError | None = None

    def document(self, start: Any) -> tuple[Any, Marks] | ManifestError:
        """Takes events up to the document's end, also of one that has a fault."""
        first: Any = None
        while type(event := self._parser.get_event()) is not DocumentEndEvent:
            first = first or event.start_mark
            if self.fault is None:
                try:
                    self._take(event)
                except _Fault as found:
                    mark = found.mark
                    self.fault = ManifestError(self._name, (mark.line + 1, mark.column + 1), found.text)
        if self.fault is not None:
            return self.fault
        mark = first or start
        return self._root, Marks(self._root, (mark.line + 1, mark.column + 1), self._within)

    def _take(self, event: Any) -> None:
        kind = type(event)
        if kind is ScalarEvent:
            self._refuse_tag(event)
            plain = event.implicit[0]
            value = resolve(event.value) if plain else event.value
            if event.anchor is not None:
                self._anchors[event.anchor] = (value, 1)
            self._put(value, event, merge=plain and event.value == "<<")
        elif kind is MappingStartEvent or kind is SequenceStartEvent:
            self._refuse_tag(event)
            if len(self._open) >= MAX_DEPTH:
                raise _Fault(event.start_mark, f"nested more than {MAX_DEPTH} deep")
            value = {} if kind is MappingStartEvent else []
            self._put(value, event)
            opened = _Open(value, event.anchor, self._count)
            self._within[id(value)] = opened.marks
            self._open.append(opened)
        elif kind is MappingEndEvent or kind is SequenceEndEvent:
            self._end(self._open.pop(), event)
        elif kind is AliasEvent:
            self._alias(event)

    def _refuse_tag(self, event: Any) -> None:
        if event.tag is not None and not (event.tag == "!" and type(event) is ScalarEvent):
            raise _Fault(event.start_mark, f"the tag {event.tag.replace('tag:yaml.org,2002:', '!!')} is not supported")

    def _alias(self, event: Any) -> None:
        if event.anchor not in self._anchors:
            inside = any(one.anchor == event.anchor for one in self._open)
            raise _Fault(event.start_mark, f"*{event.anchor} {'contains itself' if inside else 'stands for nothing'}")
        value, size = self._anchors[event.anchor]
        self._aliased += size
        if self._aliased > MAX_ALIASED:
            raise _Fault(event.start_mark, f"aliases stand for more than {MAX_ALIASED} values")
        self._count += size - 1
        self._put(value, event)

    def _put(self, value: Any, event: Any, *, merge: bool = False) -> None:
        """The value where it belongs: the root, a list's next item, a mapping's next key or that key's value."""
        self._count += 1
        if not self._open:
            self._root = value
            return
        opened = self._open[-1]
        mark = event.start_mark
        if type(opened.value) is list:
            opened.marks[len(opened.value)] = packed(mark.line, mark.column)
            opened.value.append(value)
        elif opened.key is _NO_KEY:
            opened.key = None if merge else self._key(value, opened, mark)
        else:
            if opened.key is None:
                opened.merges.append((value, mark))
            else:
                opened.value[opened.key] = value
            opened.key = _NO_KEY

    def _key(self, value: Any, opened: _Open, mark: Any) -> str:
        if isinstance(value, (dict, list)):
            raise _Fault(mark, "a key is a mapping or list")
        key = key_of(value)
        if key is None:
            raise _Fault(mark, "a key is null")
        if key in opened.marks:
            line = (opened.marks[key] >> 16) + 1
            raise _Fault(mark, f"the key {key!r} is there already, in line {line}")
        opened.marks[key] = packed(mark.line, mark.column)
        return key

    def _end(self, opened: _Open, event: Any) -> None:
        for value, mark in opened.merges:
            for source in value if isinstance(value, list) else [value]:
                if not isinstance(source, dict):
                    raise _Fault(mark, "<< takes a mapping or a list of them")
                for key, inherited in source.items():
                    if key not in opened.value:
                        opened.value[key] = inherited
                        opened.marks.setdefault(key, packed(mark.line, mark.column))
        if opened.anchor is not None:
            self._anchors[opened.anchor] = (opened.value, self._count - opened.before + 1)
