"""IP addresses and prefixes as bytes in network order, read as Kubernetes reads them.

Its objects may still hold addresses that were taken before 1.22's parser: with leading zeros, which are decimal, and
IPv4 in IPv6's clothes (::ffff:10.0.0.1), which is IPv4.
"""

from __future__ import annotations

import re
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton

Prefix = tuple[bytes, int]  # an address and how many of its bits count, the others being zero

_MAPPED = b"\0" * 10 + b"\xff\xff"
_ZEROS = re.compile(r"\b0+(?=[0-9])")


def parse_address(text: str) -> bytes:
    """4 or 16 bytes. ValueError says what is wrong."""
    try:
        if ":" not in text:
            return inet_pton(AF_INET, text)
        found = inet_pton(AF_INET6, text)
    except (OSError, ValueError):
        plain = _ZEROS.sub("", text) if isinstance(text, str) and "." in text else text
        if plain != text:
            return parse_address(plain)
        raise ValueError(f"{text!r} is no IP address") from None
    return found[12:] if found.startswith(_MAPPED) else found


def parse_prefix(text: str) -> Prefix:
    """Of `10.0.0.0/8`; bits of the host are cleared, and a bare address is all of its bits. ValueError."""
    address_text, slash, length_text = text.strip().partition("/")
    address = parse_address(address_text)
    bits = len(address) * 8
    if not slash:
        return address, bits
    if not (length_text.isdecimal() and length_text.isascii() and len(length_text) <= 3):
        raise ValueError(f"{text!r} is no prefix such as 10.0.0.0/8")
    length = int(length_text) - (96 if ":" in address_text and bits == 32 else 0)
    if not 0 <= length <= bits:
        raise ValueError(f"{text!r} is no prefix such as 10.0.0.0/8: it has more bits than an address")
    return network(address, length), length


def network(address: bytes, length: int) -> bytes:
    """The address with all but its first `length` bits cleared."""
    rest = len(address) * 8 - length
    return (int.from_bytes(address, "big") >> rest << rest).to_bytes(len(address), "big")


def holds(prefix: Prefix, address: bytes) -> bool:
    """Whether the address lies in the prefix, which is of its own family."""
    base, length = prefix
    return len(base) == len(address) and network(address, length) == base


def any_holds(prefixes: tuple[Prefix, ...], address: bytes) -> bool:
    return any(holds(prefix, address) for prefix in prefixes)


def intersection(some: tuple[Prefix, ...], others: tuple[Prefix, ...]) -> tuple[Prefix, ...]:
    """What lies in both: of two prefixes one holds the other, or they have nothing in common."""
    found = dict.fromkeys(
        [max(a, b, key=lambda prefix: prefix[1]) for a in some for b in others if holds(a, b[0]) or holds(b, a[0])]
    )
    return tuple(found)


def address_text(address: bytes) -> str:
    return inet_ntop(AF_INET if len(address) == 4 else AF_INET6, address)


def prefix_text(prefix: Prefix) -> str:
    """Without the length where it is a single address."""
    address, length = prefix
    return address_text(address) if length == len(address) * 8 else f"{address_text(address)}/{length}"


def port_text(address: bytes, port: int) -> str:
    """`10.0.0.1:80`, `[fd00::1]:80`."""
    return f"{address_text(address)}:{port}" if len(address) == 4 else f"[{address_text(address)}]:{port}"
