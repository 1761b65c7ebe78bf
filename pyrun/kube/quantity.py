"""Kubernetes' quantities: 100m, 1.5, 1Gi, 1e3 → exact numbers.

Source: k8s.io/apimachinery pkg/api/resource, the grammar in Quantity's comment: sign, digits with at most one point,
then one of the suffixes n u m k M G T P E, Ki Mi Gi Ti Pi Ei, or an exponent eN, EN. What is finer than 10⁻⁹ rounds up.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

_FORM = re.compile(r"([+-]?)(\d+(?:\.\d*)?|\.\d+)(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?\d{1,3}))?", re.ASCII)
_SUFFIXES: dict[str | None, Fraction] = {
    None: Fraction(1),
    **{s: Fraction(10) ** e for s, e in zip("numkMGTPE", (-9, -6, -3, 3, 6, 9, 12, 15, 18), strict=True)},
    **{f"{s}i": Fraction(1024) ** e for e, s in enumerate("KMGTPE", 1)},
}
LONGEST = 64
_kept = lru_cache(4096, typed=True)  # a plan asks for the same few again and again


@_kept
def parse(value: str | int | float) -> Fraction:
    """ValueError where it is none."""
    text = str(value)
    match = _FORM.fullmatch(text) if len(text) <= LONGEST else None
    if match is None:
        raise ValueError(f"{text[:LONGEST]!r} is not a quantity such as 100m, 1.5 or 64Mi")
    sign, digits, suffix, exponent = match.groups()
    number = Fraction(digits) * (Fraction(10) ** int(exponent) if exponent else _SUFFIXES[suffix])
    return -number if sign == "-" else number


@_kept
def milli(value: str | int | float) -> int:
    """In thousandths, rounded up, as the kubelet takes cpu."""
    return _up(parse(value) * 1000)


@_kept
def whole(value: str | int | float) -> int:
    """Rounded up: bytes, and counts."""
    return _up(parse(value))


def _up(number: Fraction) -> int:
    return -(-number.numerator // number.denominator)


def human_bytes(count: int) -> str:
    """64 Mi, 1.5 Gi, 1000: for people."""
    for suffix, size in (("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)):
        if count >= size:
            return f"{count / size:.4g} {suffix}"
    return str(count)
