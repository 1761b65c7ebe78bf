"""A run of bytes of one set that each match of a regular expression has, such as the eleven letters of `[a-f]{11}\\d`.
Pure.

An expression without a word is searched at the pace of Python's engine. Where each match has so long a run that other
text seldom has it, such runs are found first: bytes.translate() makes each byte of the set the same, and find() does
the rest, which is many times as fast.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from re import _constants as c  # type: ignore[attr-defined]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

# Of so many bytes text is mostly made, and a run that comes by chance this seldom is worth looking for.
COMMON, SELDOM = 64, 1e-5
# A text that has more candidates than one in so many bytes is searched by the expression itself.
DENSE = 2048
MARK = b"x"

_DIGITS = frozenset(b"0123456789")
_SPACES = frozenset(b" \t\n\r\f\v")
_WORDS = frozenset(one for one in range(128) if chr(one).isalnum() or one == 0x5F)
_ALL = frozenset(range(256))
_CATEGORIES = {
    c.CATEGORY_DIGIT: _DIGITS,
    c.CATEGORY_NOT_DIGIT: _ALL - _DIGITS,
    c.CATEGORY_SPACE: _SPACES,
    c.CATEGORY_NOT_SPACE: _ALL - _SPACES,
    c.CATEGORY_WORD: _WORDS,
    c.CATEGORY_NOT_WORD: _ALL - _WORDS,
}


@dataclass(frozen=True, slots=True)
class Run:
    """table: for bytes.translate(); mark: what is in the translated text wherever a match is."""

    table: bytes
    mark: bytes

    def marked(self, text: bytes) -> bytes | None:
        """The text, translated; None where it has so many such runs that they are of no help."""
        found = text.translate(self.table)
        return found if found.count(self.mark) * DENSE <= len(text) else None


def run_of(parts: Iterable[tuple[Any, Any]], flags: int) -> Run | None:
    """parts: what an expression's parser made of it, with plain groups taken apart. The most seldom run; None where
    none is seldom."""
    if flags & re.LOCALE:
        return None
    best, least = None, math.log(SELDOM)
    row: list[tuple[frozenset[int], int]] = []
    for op, value in [*parts, (None, None)]:
        unit = (frozenset(), 0) if op is c.AT else _unit(op, value)
        if op is not c.AT and unit[1]:
            row.append(unit)
            continue
        if op is c.AT:  # a place takes no room
            continue
        for members, count in _windows(row):
            chance = count * math.log(min(1.0, len(members) / COMMON))
            if chance < least:
                best, least = (members, count), chance
        row = []
    if best is None:
        return None
    members, count = best
    if flags & re.IGNORECASE:
        members = members | {one ^ 0x20 for one in members if chr(one).isascii() and chr(one).isalpha()}
    return Run(bytes(MARK[0] if one in members else 0 for one in range(256)), MARK * count)


def _windows(row: list[tuple[frozenset[int], int]]) -> Iterable[tuple[frozenset[int], int]]:
    for begin in range(len(row)):
        members: frozenset[int] = frozenset()
        count = 0
        for one, times in row[begin : begin + 16]:
            members, count = members | one, count + times
            yield members, min(count, 64)


def _unit(op: Any, value: Any) -> tuple[frozenset[int], int]:
    """(the bytes that one may be, how many there are at least) of a part; of one that is more than that, none."""
    if op is c.LITERAL:
        return frozenset([value]), 1
    if op is c.IN and (members := _members(value)) is not None:
        return members, 1
    if op in (c.MAX_REPEAT, c.MIN_REPEAT, c.POSSESSIVE_REPEAT) and len(value[2]) == 1:
        members, count = _unit(*value[2][0])
        return members, count * value[0]
    return frozenset(), 0


def _members(items: Any) -> frozenset[int] | None:
    found: set[int] = set()
    inverted = False
    for op, value in items:
        if op is c.NEGATE:
            inverted = True
        elif op is c.LITERAL:
            found.add(value)
        elif op is c.RANGE:
            found.update(range(value[0], value[1] + 1))
        elif op is c.CATEGORY and value in _CATEGORIES:
            found |= _CATEGORIES[value]
        else:
            return None
    return frozenset(_ALL - found if inverted else found)
