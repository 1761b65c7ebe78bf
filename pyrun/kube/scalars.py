"""What a plain scalar of YAML stands for, as kubectl and the kubelet read it: go-yaml v2's resolver, which is YAML 1.1
without base 60 and without dates.

So `yes`, `on` and `y` are true, `0777` is octal, `1_000` is a number, and `2026-01-01` and `1:30` are strings, where
PyYAML's own resolver would have a date and 90.
"""

from __future__ import annotations

import math
import re

Scalar = str | int | float | bool | None

_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
# What may begin a number; nearly no word does, which keeps strings cheap.
_FIRST = frozenset("+-.0123456789")
_DECIMAL = re.compile(r"[-+]?[1-9][0-9]*|[-+]?0")
_BASED = re.compile(r"([-+]?)0(?:[xX]([0-9a-fA-F]+)|[bB]([01]+)|[oO]?([0-7]+))")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_DIGITS = 400  # a number of more is a string: Python's int() of a long one takes quadratic time


def resolve(text: str) -> Scalar:
    """The value of a plain (unquoted) scalar."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _FIRST or len(text) > _DIGITS:
        return text
    plain = text.replace("_", "")
    if _DECIMAL.fullmatch(plain):
        return _whole(int(plain), plain)
    if found := _BASED.fullmatch(plain):
        sign, hexadecimal, binary, octal = found.groups()
        digits, base = next((part, base) for part, base in ((hexadecimal, 16), (binary, 2), (octal, 8)) if part)
        value = int(digits, base)
        return _whole(-value if sign == "-" else value, plain, text)
    return float(plain) if _FLOAT.fullmatch(plain) else text


def _whole(value: int, plain: str, text: str = "") -> Scalar:
    """Go's int64, then uint64; beyond these a decimal is a float, and another base is no number."""
    if -(1 << 63) <= value < 1 << 64:
        return value
    return float(plain) if _FLOAT.fullmatch(plain) else text


def key_of(value: Scalar) -> str | None:
    """A mapping's key as JSON has it, where it can be one: `1:` is "1" and `yes:` is "true". None for null."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or isinstance(value, str):
        return value
    return str(value)
