"""Annotations' values: what GVariant's text form means, and what is wrong with it."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

from pyrun.plan.cgroup.gvariant import parse_variant
from pyrun.runtime import dbus
from tests.support.properties import given

GOOD = {
    "'text'": ("s", "text"),
    '"it\'s"': ("s", "it's"),
    "'a\\n\\u00e4\\\\'": ("s", "a\nä\\"),
    "true": ("b", True),
    "boolean false": ("b", False),
    "5": ("i", 5),
    "-0x10": ("i", -16),
    "010": ("i", 8),
    "1.5": ("d", 1.5),
    "1e3": ("d", 1000.0),
    "uint64 18446744073709551615": ("t", (1 << 64) - 1),
    "byte 0x41": ("y", 65),
    "@x -9223372036854775808": ("x", -(1 << 63)),
    "['a', \"b\"]": ("as", ["a", "b"]),
    "@as []": ("as", []),
    "[uint64 1, 2]": ("at", [1, 2]),
    "[[1], [2, 3]]": ("aai", [[1], [2, 3]]),
    "('a', 1, [true])": ("(siab)", ("a", 1, [True])),
    "(5,)": ("(i)", (5,)),
    "@a(st) [('x', 1)]": ("a(st)", [("x", 1)]),
    "<'a'>": ("v", ("s", "a")),
    "  objectpath   '/a' ": ("o", "/a"),
    "[objectpath '/', '/a_1/B']": ("ao", ["/", "/a_1/B"]),
    "signature 'a(st)v'": ("g", "a(st)v"),
}
BAD = {
    "": "missing", "foo": "in quotes", "[]": "@as", "[1, 'a']": "type i", "uint64 -1": "out of the range",
    "5000000000": "uint64", "'a": "closing", "uint32 'a'": "type u", "1 2": "follows", "@z 1": "signature",
    "{'a': 1}": "can't begin", "uint64 5.5": "type t", "(1": "','", "[1": "','", "@as 'x'": "type as",
    "@(st) ('a',)": "fewer", "@(s) ('a', 1)": "more", "'\\u00'": "character", "[" * 50: "deeply", "@a": "signature",
    "@(s": "signature", "'\\u0000'": "zero", "'\\ud800'": "surrogate", "0x": "quotes", "1__0": "quotes",
}  # fmt: skip


@pytest.mark.parametrize("text", GOOD)
def test_values(text: str) -> None:
    assert parse_variant(text) == GOOD[text]


@pytest.mark.parametrize("text", BAD)
def test_what_is_wrong(text: str) -> None:
    with pytest.raises(ValueError, match=BAD[text].replace("(", "\\(")):
        parse_variant(text)


TOO_MUCH = {
    "string " * 2000 + "'a'": "deeply", "@s " * 2000 + "'a'": "deeply", "double " + "1" * 400: "range of type d",
    "@" + "a" * 300 + "s []": "signature", "@" + "(" * 300: "signature", "@a(a) []": "signature", "@() ()": "signature",
    "()": "nothing", "(" + "1," * 300 + ")": "255", "<(" + "1," * 300 + ")>": "255", "handle 0": "no value",
    "objectpath 'a'": "path", "objectpath '/a/'": "path", "signature 'a'": "signature",
    "signature '" + "s" * 256 + "'": "255",
}  # fmt: skip


@pytest.mark.parametrize("text", TOO_MUCH, ids=lambda text: text[:12])
def test_what_the_bus_would_not_carry_is_an_error_of_ours(text: str) -> None:
    with pytest.raises(ValueError, match=TOO_MUCH[text]):
        parse_variant(text)


@given(st.text(alphabet=list("[]()<>@,'abstuxy0123. -\\u") + ['"'], max_size=24))
def test_any_text_is_a_value_for_the_bus_or_an_error(text: str) -> None:
    try:
        kind, value = parse_variant(text)
    except ValueError:
        return
    made = bytearray()
    dbus.put(made, "v", (kind, value))
    assert dbus.get(bytes(made), 0, "v")[0][0] == kind
