"""Samples as bytes: whole numbers and their times, about a byte each once they are an hour. Pure.

A block is zlib's of: count (u32), first time (i64), first value (i64), then the differences of the times and those of
the values, each as a type code of `array` and its items, the narrowest that holds them; little-endian. A scrape is
zlib's of count (u32), the ids of series and their values, both i64. Times are hundredths of seconds since 1970."""

from __future__ import annotations

import struct
import sys
import zlib
from array import array
from collections.abc import Sequence

SECOND = 100
_WHOLE = struct.Struct("<q")
_COUNT = struct.Struct("<I")
_CODES = (("b", 1 << 7), ("h", 1 << 15), ("i", 1 << 31), ("q", 1 << 63))


def encode_block(times: Sequence[int], values: Sequence[int]) -> bytes:
    """At least one sample; values are less than 2^63, and so are their differences."""
    return encode_columns([times, values])


def encode_columns(columns: Sequence[Sequence[int]]) -> bytes:
    """The same of any number of columns: count, each first value, each column's differences."""
    head = _COUNT.pack(len(columns[0])) + b"".join(_WHOLE.pack(one[0]) for one in columns)
    return zlib.compress(head + b"".join(map(_differences, columns)), 6)


def _differences(numbers: Sequence[int]) -> bytes:
    found = [after - before for before, after in zip(numbers, numbers[1:], strict=False)]
    low, high = min(found, default=0), max(found, default=0)
    code = next(code for code, limit in _CODES if -limit <= low and high < limit)
    return code.encode() + _little(array(code, found))


def _little(numbers: array[int]) -> bytes:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def decode_block(data: bytes) -> tuple[list[int], list[int]]:
    """(times, values). ValueError where it is no block."""
    times, values = decode_columns(data, 2)
    return times, values


def decode_columns(data: bytes, number: int) -> list[list[int]]:
    """So many columns. ValueError where it is no block of them."""
    try:
        raw = zlib.decompress(data)
        (count,) = _COUNT.unpack_from(raw)
        firsts = [_WHOLE.unpack_from(raw, _COUNT.size + 8 * one)[0] for one in range(number)]
        at = _COUNT.size + 8 * number
        columns = []
        for first in firsts:
            column, at = _sums(raw, at, count, first)
            columns.append(column)
    except (zlib.error, struct.error, IndexError) as error:
        raise ValueError(f"a damaged block: {error}") from None
    if at != len(raw):
        raise ValueError("a damaged block: its length is wrong")
    return columns


def _sums(raw: bytes, at: int, count: int, first: int) -> tuple[list[int], int]:
    code = chr(raw[at])
    if code not in dict(_CODES) or not count:
        raise ValueError("a damaged block: an unknown type")
    numbers = array(code)
    end = at + 1 + (count - 1) * numbers.itemsize
    if end > len(raw):
        raise ValueError("a damaged block: it is cut")
    numbers.frombytes(raw[at + 1 : end])
    if sys.byteorder == "big":
        numbers.byteswap()
    found = [first]
    for number in numbers:
        found.append(found[-1] + number)
    return found, end


def encode_scrape(values: dict[int, int]) -> bytes:
    """Of series' ids → values."""
    ids, numbers = array("q", values.keys()), array("q", values.values())
    return zlib.compress(_COUNT.pack(len(values)) + _little(ids) + _little(numbers), 1)


def decode_scrape(data: bytes) -> dict[int, int]:
    """ValueError where it is none."""
    try:
        raw = zlib.decompress(data)
        (count,) = _COUNT.unpack_from(raw)
    except (zlib.error, struct.error) as error:
        raise ValueError(f"a damaged scrape: {error}") from None
    if len(raw) != _COUNT.size + 16 * count:
        raise ValueError("a damaged scrape: its length is wrong")
    numbers = array("q")
    numbers.frombytes(raw[_COUNT.size :])
    if sys.byteorder == "big":
        numbers.byteswap()
    return dict(zip(numbers[:count], numbers[count:], strict=True))
