"""Writes images for the data plane's fuzzer to begin with: python dataplane_seeds.py DIRECTORY."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from pyrun.proxy.encode import encode_change, encode_rules
from pyrun.proxy.rules import (
    DROP,
    FORWARD,
    REJECT,
    TCP,
    UDP,
    Choice,
    Endpoint,
    EndpointSet,
    Frontend,
    Rules,
    difference,
)

V4, V6 = bytes([10, 96, 0, 1]), bytes.fromhex("fd000000000000000000000000000001")


def rules(n: int) -> Rules:
    """Some that differ by n in their endpoints, choices and affinity."""
    sets = tuple(
        EndpointSet(f"s{k}", tuple(Endpoint(bytes([10, 1, k, e]), 80, True, e == n) for e in range(k + n)))
        for k in range(3)
    )
    sources = ((bytes([10, 0, 0, 0]), 8), (V6, 128))
    first = Frontend("a", TCP, V4, 80, (Choice((), FORWARD, "s1"),), affinity=n)
    second = Frontend("b", UDP, V6, 53, (Choice(sources, FORWARD, f"s{n % 3}", True), Choice((), DROP)))
    third = Frontend("c", TCP, V4, 443 + n, (Choice((), REJECT),))
    return Rules((first, second, third), sets)


def main() -> None:
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for n in range(4):
        images = [encode_rules(rules(n), 1), encode_change(difference(rules(n), rules(n + 1)), 2, 1)]
        images += [encode_change(difference(rules(n + 1), Rules()), 3, 2), encode_rules(rules(n), 9)]
        for count in range(1, 5):
            parts = [struct.pack("<I", len(image)) + image for image in images[:count]]
            (out / f"{n}-{count}").write_bytes(b"".join(parts))


main()
