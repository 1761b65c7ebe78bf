"""Protobuf's wire format, as far as messages are written by hand (protobuf.dev, Encoding). Pure."""

from __future__ import annotations


def varint(number: int) -> bytes:
    """number: 0 or more."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def delimited(field: int, value: bytes) -> bytes:
    """A field with its length: a string, bytes or a message."""
    return varint(field << 3 | 2) + varint(len(value)) + value
