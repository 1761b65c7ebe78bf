"""Prometheus' remote write: samples as protobuf in snappy's block format (prometheus.io, "Remote-Write 1.0").

The messages are few and only written, so they are written here. What is sent was small already: snappy's literals,
which compress nothing, are enough for the form. Pure.
"""

from __future__ import annotations

import struct

from ..protowire import delimited, varint
from .block import SECOND
from .samples import MICROSECONDS, Series

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}
_LITERAL = 1 << 16
Columns = tuple[list[int], list[int]]


def encode_write(found: Mapping[Series, Columns], node: str) -> bytes:
    """A WriteRequest, compressed. Times are hundredths of seconds since 1970."""
    return snappy(b"".join(delimited(1, _series(one, columns, node)) for one, columns in found.items()))


def _series(one: Series, columns: Columns, node: str) -> bytes:
    """A TimeSeries; labels are sorted by their names."""
    labels = {
        "__name__": one.name,
        "container": one.container,
        "namespace": one.namespace,
        "node": node,
        "pod": one.pod,
    }
    unit = 1e6 if one.name.endswith(MICROSECONDS) else 1
    return b"".join(
        delimited(1, delimited(1, name.encode()) + delimited(2, value.encode()))
        for name, value in labels.items()
        if value
    ) + b"".join(
        delimited(2, struct.pack("<Bd", 1 << 3 | 1, value / unit) + b"\x10" + varint(time * 1000 // SECOND))
        for time, value in zip(*columns, strict=True)
    )


def snappy(data: bytes) -> bytes:
    """The block format, of literals alone (google/snappy, format_description.txt): tag 61 has a length of two bytes."""
    parts = [data[at : at + _LITERAL] for at in range(0, len(data), _LITERAL)]
    return varint(len(data)) + b"".join(struct.pack("<BH", 61 << 2, len(part) - 1) + part for part in parts)


def plan_parts(found: Mapping[Series, Columns], most: int) -> Sequence[dict[Series, Columns]]:
    """The same in requests of about so many samples."""
    parts: list[dict[Series, Columns]] = [{}]
    size = 0
    for one, columns in found.items():
        if size >= most:
            parts.append({})
            size = 0
        parts[-1][one] = columns
        size += len(columns[0])
    return parts
