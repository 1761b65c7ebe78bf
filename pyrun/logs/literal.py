"""What a regular expression says of the text in which it is found, so that most of a log need not be searched by it.
Pure. It reads the tree that the standard library's parser makes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from re import _constants as c  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]

from .runs import Run, run_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any


@dataclass(frozen=True, slots=True)
class Hint:
    """literal: is in each text that matches, lower-cased where `any_case`; b"": nothing is known. many: an expression
    that is found in a text of lines, lower-cased where `any_case`, wherever the given one is found in a line, and maybe
    elsewhere; None: there is none. run: of bytes that each match has; None: none that is seldom, or there is a
    literal."""

    literal: bytes
    any_case: bool
    many: re.Pattern[bytes] | None
    run: Run | None = None


@lru_cache(64)
def hint_of(pattern: re.Pattern[bytes]) -> Hint:
    any_case = bool(pattern.flags & re.IGNORECASE)
    tree = _parser.parse(pattern.pattern, pattern.flags)
    literal = b"" if pattern.flags & re.LOCALE else max(_literals(tree), key=len, default=b"")
    run = None if literal else run_of(_flat(tree), pattern.flags)
    if not _is_of_any_text(pattern.pattern):
        return Hint(literal.lower() if any_case else literal, any_case, None, run)
    if any_case and _has_capital(tree):
        return Hint(b"", False, pattern, run)
    return Hint(
        literal.lower() if any_case else literal,
        any_case,
        re.compile(pattern.pattern, pattern.flags & ~re.IGNORECASE) if any_case else pattern,
        run,
    )


def _literals(tree: Iterable[Any]) -> Iterator[bytes]:
    """Runs of bytes that any match has."""
    run = bytearray()
    for op, value in _flat(tree):
        if op is c.LITERAL and value != 0x0A:
            run.append(value)
        elif op is not c.AT:  # a place takes no room
            yield bytes(run)
            run.clear()
            if op in (c.MAX_REPEAT, c.MIN_REPEAT, c.POSSESSIVE_REPEAT) and value[0] > 0:
                yield from _literals(value[2])
    yield bytes(run)


def _flat(tree: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Its parts, with those of plain groups among them."""
    for op, value in tree:
        if op is c.SUBPATTERN and not value[1] and not value[2]:
            yield from _flat(value[3])
        else:
            yield op, value


def _has_capital(tree: Any) -> bool:
    """It names one, so it may differ in a text that is lower-cased."""
    if isinstance(tree, tuple) and len(tree) == 2 and tree[0] in (c.LITERAL, c.NOT_LITERAL):
        return bool(0x41 <= tree[1] <= 0x5A)
    if isinstance(tree, tuple) and len(tree) == 2 and tree[0] is c.RANGE:
        return bool(tree[1][0] <= 0x5A and tree[1][1] >= 0x41)
    return isinstance(tree, tuple | list | _parser.SubPattern) and any(map(_has_capital, tree))


def _is_of_any_text(pattern: bytes) -> bool:
    """Where an expression is found in a line, it is found as well with other lines around: it asks nothing of what is
    before and after, and takes back what it took too much of. A border of a word is the same in both."""
    escapes = set(re.findall(rb"(?s)\\(.)", pattern))
    rest = re.sub(rb"(?s)\\.", b"x", pattern).replace(b"[^", b"[")
    return not escapes & {b"A", b"Z", b"B"} and not re.search(rb"[\^$]|\(\?(?!:)|[*+?}]\+", rest)
