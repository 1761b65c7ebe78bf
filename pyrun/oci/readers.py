"""Readers: small functions that take one JSON value, note what is wrong with it, and give the typed value.

``reader(value, path, faults)``: ``path`` is a linked pair (parent's path, key), so nothing is formatted until a fault
is reported, and the reader of a good config costs little. A fault never stops the reading: all of them are wanted.
What a bad value becomes is chosen so that the rules in checks.py can run on the rest: an optional member its default,
a required one None, which makes its object None. The caller throws the result away if there was any fault.
"""

from __future__ import annotations

from pyrun.oci.model import make

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container
    from typing import Any

    Path = tuple[Any, str | int] | None
    Faults = list[tuple[Path | str, str]]
    Reader = Callable[[Any, Path, Faults], Any]

_KINDS = {dict: "an object", list: "an array", str: "a string", int: "a number", float: "a number with a fraction",
          bool: "a boolean", type(None): "null"}  # fmt: skip
REQUIRED = object()
EMPTY: dict[str, Any] = {}
MEMBERS: dict[type, tuple[str, ...]] = {}  # of each class in model.py, its members' names in JSON


def pointer(path: Path | str) -> str:
    """The JSON pointer (RFC 6901) of a linked path."""
    if isinstance(path, str):
        return path
    keys = []
    left: Path = path
    while left is not None:
        left, key = left
        keys.append("/" + str(key).replace("~", "~0").replace("/", "~1"))
    return "".join(reversed(keys))


def shown(text: str) -> str:
    """A string of the config as a message quotes it: one line, of bounded length, printable."""
    quoted = ascii(text[:60]) if not text.isprintable() else f'"{text[:60]}"'
    return quoted if len(text) <= 60 else f"{quoted}…"


def expected(wanted: str, value: Any, path: Path, faults: Faults) -> None:
    faults.append((path, f"must be {wanted}, not {_KINDS[type(value)]}"))


def _flaw(value: str) -> str | None:
    """Why a string can't be an argument of a system call, or None. The only ways in are \\u0000 and \\ud800…\\udfff."""
    if "\0" in value:
        return "contains a NUL byte"
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return "contains half of a surrogate pair"
    return None


def string(value: Any, path: Path, faults: Faults) -> str | None:
    """A string that the kernel could take; an empty one counts as absent, as in Go's types."""
    if type(value) is not str:
        expected("a string", value, path, faults)
        return None
    if flaw := _flaw(value):
        faults.append((path, flaw))
        return None
    return value or None


def text(value: Any, path: Path, faults: Faults) -> str:
    """A string that stays data, and so may hold NUL and be empty."""
    if type(value) is not str:
        expected("a string", value, path, faults)
    elif value.isascii() or (flaw := _flaw(value.replace("\0", ""))) is None:
        return value
    else:
        faults.append((path, flaw))
    return ""


def item(value: Any, path: Path, faults: Faults) -> str | None:
    """As ``string``, where an empty one is a value of its own."""
    return "" if value == "" and type(value) is str else string(value, path, faults)


def filled(value: Any, path: Path, faults: Faults) -> str | None:
    """As ``string``, where an empty one is a fault."""
    if type(value) is str and not value:
        faults.append((path, "must not be empty"))
        return None
    return string(value, path, faults)


def absolute(value: Any, path: Path, faults: Faults) -> str | None:
    """An absolute path."""
    got = filled(value, path, faults)
    if got is None or got[0] == "/":
        return got
    faults.append((path, f"must be an absolute path, not {shown(got)}"))
    return None


def boolean(value: Any, path: Path, faults: Faults) -> bool | None:
    if value is True or value is False:
        return value
    expected("a boolean", value, path, faults)
    return None


def integer(low: int, high: int) -> Reader:
    """A reader of integers from low to high. 1.0 and 1e3 are not integers: Go's JSON refuses them too."""

    def read(value: Any, path: Path, faults: Faults) -> int | None:
        if type(value) is not int:
            expected("an integer", value, path, faults)
        elif low <= value <= high:
            return value
        else:
            faults.append((path, f"must be from {low} to {high}, not {_number(value)}"))
        return None

    return read


def _number(value: int) -> str:
    return str(value) if -(10**40) < value < 10**40 else "a number of more than 40 digits"


def one_of(names: Container[str]) -> Reader:
    """A reader of one of the names; the message lists them when there are few."""

    def read(value: Any, path: Path, faults: Faults) -> str | None:
        if type(value) is not str:
            expected("a string", value, path, faults)
            return None
        if value in names:
            return value
        known = list(names)  # type: ignore[call-overload]
        listed = f"; known are {', '.join(known)}" if len(known) <= 24 else ""
        faults.append((path, f"{shown(value)} is not known{listed}"))
        return None

    return read


def array(read_item: Reader, *, least: int = 0) -> Reader:
    """A reader of arrays; a bad item is None, so that the others keep their place."""

    def read(value: Any, path: Path, faults: Faults) -> tuple[Any, ...]:
        if type(value) is not list:
            expected("an array", value, path, faults)
            return ()
        if len(value) < least:
            faults.append((path, f"must have at least {least} item{'s' * (least > 1)}"))
        return tuple([read_item(entry, (path, index), faults) for index, entry in enumerate(value)])

    return read


def strings(value: Any, path: Path, faults: Faults) -> tuple[str, ...]:
    """An array of strings: most of a config, so good ones are passed in one loop without a call for each."""
    if type(value) is not list:
        expected("an array", value, path, faults)
        return ()
    for entry in value:
        if type(entry) is not str or not entry.isascii() or "\0" in entry:
            return tuple([item(entry, (path, index), faults) or "" for index, entry in enumerate(value)])
    return tuple(value)


def mapping(read_value: Reader, *, nameless: bool = False) -> Reader:
    """A reader of objects whose keys are the user's; ``nameless`` allows the empty key."""

    def read(value: Any, path: Path, faults: Faults) -> dict[str, Any]:
        if type(value) is not dict:
            expected("an object", value, path, faults)
            return {}
        made = {}
        for key, entry in value.items():
            flaw = _flaw(key) if key or nameless else "must not have an empty name"
            if flaw:
                faults.append(((path, key), f"the name {flaw}" if key else flaw))
            made[key] = read_value(entry, (path, key), faults)
        return made

    return read


def field(name: str, read: Reader, default: Any = None, fallback: Any = None) -> tuple[str, Reader, Any, Any]:
    """A row of ``record``: the member's name, its reader, its value when absent, and when it is at fault."""
    return name, read, default, default if fallback is None and default is not REQUIRED else fallback


def record(cls: type, *fields: tuple[str, Reader, Any, Any]) -> Reader:
    """A reader of objects into ``cls``, whose attributes are the rows' in the same order. Unknown members are
    ignored. One that is null counts as absent, as in Go's types, unless it is required.
    """
    MEMBERS[cls] = tuple([row[0] for row in fields])

    def read(value: Any, path: Path, faults: Faults) -> Any:
        if type(value) is not dict:
            return expected("an object", value, path, faults)
        values = []
        broken = False
        for name, read_member, default, fallback in fields:
            got: Any = default
            given = value.get(name)
            if given is not None or (default is REQUIRED and name in value):
                got = read_member(given, (path, name), faults)
                if got is None:
                    got = fallback
            elif default is REQUIRED:
                faults.append(((path, name), "is missing"))
                got = fallback
            if got is EMPTY:
                got = {}
            broken = broken or (got is None and default is REQUIRED)
            values.append(got)
        return None if broken else make(cls, values)

    return read
