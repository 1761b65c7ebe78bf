"""Where in a file a value stands, by its path: of YAML noted while it was read, of JSON looked up in the text."""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from json.decoder import scanstring  # type: ignore[attr-defined]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

Position = tuple[int, int]  # line and column, both from 1
_BLANK = " \t\r\n"
_DECODER = json.JSONDecoder()


def path_of(pointer: str) -> list[str]:
    """The parts of a JSON pointer (RFC 6901)."""
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def pointer_of(path: Sequence[str | int]) -> str:
    """The JSON pointer of a path."""
    return "".join([f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path])


class Marks:
    """The positions of what one document has, packed in a number for each: {id of a mapping or list: {key: number}}.

    The values must live as long as this; `root` is held for it."""

    __slots__ = ("_root", "_start", "_within")

    def __init__(self, root: Any, start: Position, within: dict[int, dict[Any, int]]) -> None:
        self._root = root
        self._start = start
        self._within = within

    def find(self, path: Sequence[str]) -> Position:
        """Of a mapping's value: where its key stands. Of what is not there: what is nearest above it."""
        here, found = self._root, self._start
        for part in path:
            key: Any = int(part) if isinstance(here, list) and part.isdecimal() else part
            packed = self._within.get(id(here), {}).get(key)
            if packed is None:
                break
            found = unpacked(packed)
            here = here[key]
        return found


def packed(line: int, column: int) -> int:
    """A position from 0, as libyaml counts, in one number. Columns beyond 65,535 are told as that."""
    return line << 16 | min(column, 0xFFFF)


def unpacked(number: int) -> Position:
    return (number >> 16) + 1, (number & 0xFFFF) + 1


class JsonText:
    """The same for a JSON text, which is known to be valid: it is walked only when somebody asks."""

    __slots__ = ("_items", "_lines", "_text")

    def __init__(self, text: str) -> None:
        self._text = text
        self._items: dict[int, list[int]] = {}  # of a list, where its first items begin, as far as it has been walked
        self._lines: list[int] = []  # where each line ends

    def find(self, path: Sequence[str]) -> Position:
        text = self._text
        at = found = self._skip(0)
        for part in path:
            step = self._member(at, part) if text[at] == "{" else self._item(at, part) if text[at] == "[" else None
            if step is None:
                break
            found, at = step
        if not self._lines:
            self._lines = [match.start() for match in re.finditer("\n", text)]
        line = bisect_left(self._lines, found)
        return line + 1, found - (self._lines[line - 1] if line else -1)

    def _member(self, at: int, wanted: str) -> tuple[int, int] | None:
        """(offset of the key, offset of its value) in the object that begins there."""
        at = self._skip(at + 1)
        while self._text[at] == '"':
            key, end = scanstring(self._text, at + 1)
            value = self._skip(self._skip(end) + 1)
            if key == wanted:
                return at, value
            at = self._after(value)
        return None

    def _item(self, at: int, wanted: str) -> tuple[int, int] | None:
        index = int(wanted) if wanted.isdecimal() and len(wanted) < 10 else -1
        starts = self._items.setdefault(at, [self._skip(at + 1)])
        while len(starts) <= index and self._text[starts[-1]] != "]":
            starts.append(self._after(starts[-1]))
        if not 0 <= index < len(starts) or self._text[starts[index]] == "]":
            return None
        return starts[index], starts[index]

    def _after(self, at: int) -> int:
        """Where the next member or item begins, or the bracket that ends them."""
        at = self._skip(_DECODER.raw_decode(self._text, at)[1])
        return self._skip(at + 1) if self._text[at] == "," else at

    def _skip(self, at: int) -> int:
        text = self._text
        while at < len(text) and text[at] in _BLANK:
            at += 1
        return at
