"""A document's plain values → an object of `kube/objects`, strictly: every fault at once, each with its JSON pointer.

Kubernetes' strict field validation: what a type does not have is refused, as is a value of another type (the word
`true` where a string belongs). A null is an absent field. ≠ an API server: all faults are told, not the first.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple, TypeVar

import msgspec

from .objects import KINDS
from .objects.base import Object

T = TypeVar("T", bound=Object)

# What a server keeps for itself in each object: taken, and not decoded.
BOOKKEEPING = {"managedFields"}
WORDS: dict[type, str] = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}


class Fault(NamedTuple):
    """pointer: RFC 6901, of what is wrong; of a missing field, where it would be."""

    pointer: str
    text: str


class Field(NamedTuple):
    type: Any
    required: bool


def decode(value: Any) -> tuple[Object | None, list[Fault]]:
    """An object by its apiVersion and kind; None where there are faults."""
    if not isinstance(value, dict):
        return None, [Fault("", f"must be an object with apiVersion and kind, is {told(value)}")]
    faults = [
        Fault(f"/{key}", "is missing" if value.get(key) in (None, "") else "must be a string")
        for key in ("apiVersion", "kind")
        if not isinstance(value.get(key), str) or not value[key]
    ]
    if faults:
        return None, faults
    wanted = value["apiVersion"], value["kind"]
    if wanted not in KINDS:
        return None, [_no_kind(*wanted)]
    return decode_as(value, KINDS[wanted])


def decode_as(value: Any, kind: type[T], pointer: str = "") -> tuple[T | None, list[Fault]]:
    """The value as that type; None where there are faults. pointer: where in the document the value is."""
    faults = list(_check(value, kind, pointer))
    if faults:
        return None, faults
    return msgspec.convert(_numbers(value), kind), []


def _numbers(value: Any) -> Any:
    """With 30 for 30.0, as YAML's 3e1 is."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case dict():
            return {key: _numbers(one) for key, one in value.items()}
        case list():
            return [_numbers(one) for one in value]
    return value


def _no_kind(version: str, kind: str) -> Fault:
    versions = [v for v, k in KINDS if k == kind]
    if versions:
        return Fault("/apiVersion", f"{kind} is of {versions[0]}, not {version}")
    close = _close(kind, [k for _, k in KINDS])
    taken = ", ".join(sorted(k for _, k in KINDS))
    return Fault("/kind", f"{kind} is not a kind that is taken here{close or f' (taken: {taken})'}")


@cache
def fields_of(kind: type[Object]) -> dict[str, Field]:
    """By the name in the document."""
    hints = typing.get_type_hints(kind)
    return {f.encode_name: Field(_plain(hints[f.name]), f.required) for f in msgspec.structs.fields(kind)}


def _plain(hint: Any) -> Any:
    """Without `| None`."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        rest = tuple(a for a in typing.get_args(hint) if a is not type(None))
        return rest[0] if len(rest) == 1 else rest
    return hint


def _check(value: Any, wanted: Any, at: str) -> Iterator[Fault]:
    wanted = _plain(wanted)
    if wanted is Any:
        return
    if isinstance(wanted, tuple):
        if isinstance(value, bool) or not isinstance(value, wanted):
            yield Fault(at, f"must be {' or '.join(WORDS[t] for t in wanted if t is not float)}, is {told(value)}")
        return
    origin = typing.get_origin(wanted)
    if origin is list:
        if not isinstance(value, list):
            yield Fault(at, f"must be a list, is {told(value)}")
            return
        for i, one in enumerate(value):
            yield from _check(one, typing.get_args(wanted)[0], f"{at}/{i}")
    elif origin is dict:
        if not isinstance(value, dict):
            yield Fault(at, f"must be a map, is {told(value)}")
            return
        for key, one in value.items():
            yield from _check(one, typing.get_args(wanted)[1], f"{at}/{escaped(key)}")
    elif issubclass(wanted, Object):
        yield from _check_object(value, wanted, at)
    elif not _is(value, wanted):
        quote = "; quote it" if wanted is str and isinstance(value, bool | int | float) else ""
        yield Fault(at, f"must be {WORDS[wanted]}, is {told(value)}{quote}")


def _check_object(value: Any, kind: type[Object], at: str) -> Iterator[Fault]:
    if not isinstance(value, dict):
        yield Fault(at, f"must be an object, is {told(value)}")
        return
    fields = fields_of(kind)
    for key, one in value.items():
        if key in fields:
            if one is not None:
                yield from _check(one, fields[key].type, f"{at}/{escaped(key)}")
        elif key not in BOOKKEEPING:
            yield Fault(f"{at}/{escaped(key)}", f"{kind.__name__} has no field {key}{_close(str(key), list(fields))}")
    for key, field in fields.items():
        if field.required and value.get(key) is None:
            yield Fault(f"{at}/{key}", "is missing")


def _is(value: Any, wanted: type) -> bool:
    if isinstance(value, bool):
        return wanted is bool
    if wanted is int:
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return isinstance(value, wanted)


def _close(word: str, words: list[str]) -> str:
    """The one that was meant, if one is near."""
    folded = {w.casefold(): w for w in words}
    found = difflib.get_close_matches(word.casefold(), folded, 1, 0.75)
    return f": did you mean {folded[found[0]]}?" if found else ""


def told(value: Any) -> str:
    """The value for a message, cut."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case dict():
            return "an object"
        case list():
            return "a list"
        case str():
            return repr(value if len(value) <= 60 else value[:60] + "…")
    return str(value)


def escaped(key: Any) -> str:
    """A key as a part of a JSON pointer."""
    return str(key).replace("~", "~0").replace("/", "~1")
