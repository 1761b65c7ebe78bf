"""What is asked of the logs: which lines are wanted. Pure.

Words are looked for as they stand, all of them in one line, and in any case unless one has a capital. They are looked
for in a whole chunk of a file first: of a rare word most chunks have none, and their lines are then never parsed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ..errors import InvalidArgument
from .literal import hint_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .line import Line
    from .tree import Container

FOREVER = 1 << 63


@dataclass(frozen=True, slots=True)
class Query:
    """words: all must be in a line (bytes, lower-cased where `any_case`). patterns: all must match in it. since, until:
    nanoseconds since 1970; a line of `since` is in, one of `until` is not. stream: "" for both. whole: words are whole
    ones, of which blocks know where they may be."""

    words: tuple[bytes, ...] = ()
    any_case: bool = True
    patterns: tuple[re.Pattern[bytes], ...] = ()
    since: int = 0
    until: int = FOREVER
    stream: str = ""
    whole: bool = False

    def is_of(self, line: Line) -> bool:
        """Of its time and its stream."""
        return self.since <= line.time < self.until and (not self.stream or line.stream == self.stream)

    def takes(self, line: Line) -> bool:
        return self.is_of(line) and self.matches(line.content)

    def matches(self, content: bytes) -> bool:
        """Of the text alone."""
        if self.words:
            text = content.lower() if self.any_case else content
            if not all(word in text for word in self.words):
                return False
        return all(pattern.search(content) for pattern in self.patterns)

    def may_be_in(self, chunk: bytes) -> bool:
        """False: no line that is wholly in this piece of a file has all that is looked for."""
        if self.words:
            text = chunk.lower() if self.any_case else chunk
            return all(word in text for word in self.words)
        hints = [hint for one in self.patterns if (hint := hint_of(one)).literal]
        if not hints:
            return True
        lowered = chunk.lower() if any(hint.any_case for hint in hints) else b""
        return all(hint.literal in (lowered if hint.any_case else chunk) for hint in hints)

    def lines_of(self, chunk: bytes) -> Iterator[bytes]:
        """Of whole lines of a file those that may have what is looked for, without their newlines: all that have it,
        and maybe others. Searching in many lines at once is faster than in each."""
        find = self.finder(chunk)
        if find is None:
            yield from chunk.removesuffix(b"\n").split(b"\n")
            return
        at = 0
        while at < len(chunk) and (hit := find(at)) >= 0:
            end = chunk.find(b"\n", hit)
            end = len(chunk) if end < 0 else end
            yield chunk[chunk.rfind(b"\n", 0, hit) + 1 : end]
            at = end + 1

    def finder(self, chunk: bytes) -> Callable[[int], int] | None:
        """Where, from an offset on, the next place is in which the longest word or the first expression begins."""
        if self.words:
            text, word = chunk.lower() if self.any_case else chunk, max(self.words, key=len)
            return lambda at: text.find(word, at)
        if not self.patterns:
            return None
        hint = max(map(hint_of, self.patterns), key=lambda one: (len(one.literal), bool(one.run), bool(one.many)))
        if not hint.literal and hint.run is not None and (marked := hint.run.marked(chunk)) is not None:
            mark = hint.run.mark
            return lambda at: marked.find(mark, at)
        if not hint.literal and hint.many is None:
            return None
        text = chunk.lower() if hint.any_case else chunk

        def find(at: int) -> int:
            if hint.literal:
                at = text.find(hint.literal, at)
                if at < 0 or hint.many is None:
                    return at
                at = text.rfind(b"\n", 0, at) + 1
            found = hint.many.search(text, at) if hint.many else None
            return found.start() if found else -1

        return find

    def tokens(self) -> bytes:
        """The words that a line must have, as tokens.c has them: of a part of a word those that it holds entirely."""
        if self.whole:
            return b" ".join(self.words)
        return b" ".join(token for word in self.words for token in _INNER.findall(word))


_WORD = rb"[0-9A-Za-z_\x80-\xff]"
_INNER = re.compile(rb"(?<=[^0-9A-Za-z_\x80-\xff])%s+(?=[^0-9A-Za-z_\x80-\xff])" % _WORD)


def parse_words(words: tuple[str, ...], *, regex: bool, whole: bool = False) -> Query:
    """The query of what a person typed. InvalidArgument names a faulty expression and the place in it."""
    if whole and regex:
        raise InvalidArgument("--word and --regex: only one of them can be", hint="\\b is the border of a word")
    any_case = not any(character.isupper() for word in words for character in word)
    if not regex:
        typed = tuple(word.encode("utf-8", "surrogateescape") for word in words if word)
        borders = tuple(_whole(word, re.IGNORECASE if any_case else 0) for word in typed) if whole else ()
        return Query(tuple(word.lower() for word in typed) if any_case else typed, any_case, borders, whole=whole)
    return Query(patterns=tuple(_pattern(word, re.IGNORECASE if any_case else 0) for word in words))


def _whole(word: bytes, flags: int) -> re.Pattern[bytes]:
    return re.compile(rb"(?<!%s)%s(?!%s)" % (_WORD, re.escape(word), _WORD), flags)


def _pattern(text: str, flags: int) -> re.Pattern[bytes]:
    return parse_pattern(text, "", flags, hint="without --regex words are taken as they stand")


def parse_pattern(text: str, option: str, flags: int = 0, *, hint: str = "") -> re.Pattern[bytes]:
    """An expression that a person typed. InvalidArgument names the fault and its place."""
    try:
        return re.compile(text.encode("utf-8", "surrogateescape"), flags)
    except (re.error, OverflowError, RecursionError) as e:
        place = f", at character {e.pos + 1}" if isinstance(e, re.error) and e.pos is not None else ""
        raise InvalidArgument(
            f"{option and f'{option}: '}{text!r} is no regular expression: "
            f"{e.msg if isinstance(e, re.error) else e}{place}",
            hint=hint,
        ) from None


@dataclass(frozen=True, slots=True)
class Where:
    """Which containers. Patterns are the shell's (*, ?, [...]); "" is any. uids: of pods that a selector chose, None
    without one."""

    namespace: str = ""
    pod: str = ""
    container: str = ""
    uids: frozenset[str] | None = None

    def takes(self, container: Container) -> bool:
        return (
            _fits(self.namespace, container.namespace)
            and _fits(self.pod, container.pod)
            and _fits(self.container, container.name)
            and (self.uids is None or container.uid in self.uids)
        )


def _fits(pattern: str, name: str) -> bool:
    return not pattern or fnmatchcase(name, pattern)


Selector = tuple[tuple[str, str, tuple[str, ...]], ...]

_REQUIREMENT = re.compile(
    r"\s*(?:(?P<absent>!)\s*(?P<gone>[^\s!=,()]+)"
    r"|(?P<key>[^\s!=,()]+)(?:\s*(?P<op>==|!=|=)\s*(?P<value>[^\s!=,()]*)"
    r"|\s+(?P<set>in|notin)\s*\((?P<values>[^()]*)\))?)\s*(?:,|$)"
)


def parse_selector(text: str) -> Selector:
    """Requirements (key, operator, values) of a label selector as kubectl takes it: `a=b`, `a!=b`, `a in (b, c)`,
    `a notin (b)`, `a`, `!a`, with commas between (Kubernetes' "Labels and Selectors")."""
    found: list[tuple[str, str, tuple[str, ...]]] = []
    at = 0
    while at < len(text):
        match = _REQUIREMENT.match(text, at)
        if match is None or match.end() == at:
            raise InvalidArgument(
                f"--selector: {text[at:]!r} is no requirement of a label", hint="such as app=web, or tier in (a, b)"
            )
        found.append(_requirement(match))
        at = match.end()
    return tuple(found)


def _requirement(match: re.Match[str]) -> tuple[str, str, tuple[str, ...]]:
    if match["absent"]:
        return match["gone"], "absent", ()
    if match["set"]:
        return match["key"], match["set"], tuple(value.strip() for value in match["values"].split(","))
    if match["op"]:
        return match["key"], "notin" if match["op"] == "!=" else "in", (match["value"],)
    return match["key"], "exists", ()


def selects(selector: Selector, labels: dict[str, str]) -> bool:
    """Whether all requirements hold. As in Kubernetes, `notin` and `!=` hold where the label is not there."""
    for key, operator, values in selector:
        there = key in labels
        match operator:
            case "exists":
                holds = there
            case "absent":
                holds = not there
            case "in":
                holds = there and labels[key] in values
            case _:
                holds = not there or labels[key] not in values
        if not holds:
            return False
    return True
