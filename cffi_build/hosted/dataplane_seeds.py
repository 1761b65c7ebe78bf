"""Writes what the data plane's fuzzers begin with: python dataplane_seeds.py DIRECTORY.

Images to seeds-dataplane, requests to seeds-control, as hosted/fuzz_dataplane.c and hosted/fuzz_control.c take them.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from pyrun.proxy import messages as m
from pyrun.proxy.encode import encode_change, encode_rules, set_number, wide
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


UDP_SOCKET, TCP_LISTENER, SEALED, MEMFD = range(4)
ENTRY = struct.Struct("<Q16s16s16sHHHBBII")


def message(kind: int, body: bytes = b"", *fds: int) -> bytes:
    first = fds[0] if fds else 0
    rest = sum(fd << 2 * at for at, fd in enumerate(fds[1:4], 1))
    return struct.pack("<BBBBH", kind, 0, len(fds) | first << 3, rest, len(body)) + body


def entry(n: int, protocol: int) -> bytes:
    """A flow, or a pin, of the frontends of rules(1)."""
    frontend, port = (V6, 53) if protocol == UDP else (V4, 80)
    client = bytes([10, 0, 0, n])
    endpoint = bytes([10, 1, 1, n % 2])
    return ENTRY.pack(set_number("s1"), wide(frontend), wide(client), wide(endpoint), port, 4000, 80, protocol, 1, 9, 0)


def requests() -> list[list[bytes]]:
    """Each a conversation."""
    all_of_it, flows = encode_rules(rules(1), 1), b"".join(entry(n, UDP) for n in range(3))
    begin = [message(m.SETTINGS, m.Settings(udp_flows=16, udp_source=4).encode()), message(m.APPLY, all_of_it)]
    given = [message(kind) for kind in (m.GIVE_SOCKETS, m.GIVE_FLOWS, m.GIVE_PINS, m.KEPT, m.GIVE)]
    pins = b"".join(entry(n, TCP) for n in range(4))
    return [
        [
            *begin,
            message(m.COUNTERS),
            message(m.HELLO),
            message(m.LISTEN, b"", TCP_LISTENER),
            *given,
            message(m.RETIRE),
        ],
        [
            message(m.TAKE_SOCKETS, entry(1, UDP), UDP_SOCKET),
            *begin,
            message(m.GIVE_SOCKETS),
            message(m.APPLY, all_of_it),
        ],
        [*begin, message(m.TAKE_FLOWS, flows, *[UDP_SOCKET] * 3), message(m.COUNTERS), message(m.GIVE_FLOWS)],
        [*begin, message(m.TAKE_PINS, pins, MEMFD), message(m.GIVE_PINS), message(m.APPLY, encode_rules(rules(2), 7))],
        [message(m.APPLY, all_of_it, SEALED), message(m.KEEP, b"a\0b", TCP_LISTENER, UDP_SOCKET), message(m.KEPT)],
    ]


def main() -> None:
    images_to, requests_to = Path(sys.argv[1], "seeds-dataplane"), Path(sys.argv[1], "seeds-control")
    for out in (images_to, requests_to):
        out.mkdir(parents=True, exist_ok=True)
    for n in range(4):
        images = [encode_rules(rules(n), 1), encode_change(difference(rules(n), rules(n + 1)), 2, 1)]
        images += [encode_change(difference(rules(n + 1), Rules()), 3, 2), encode_rules(rules(n), 9)]
        for count in range(1, 5):
            parts = [struct.pack("<I", len(image)) + image for image in images[:count]]
            (images_to / f"{n}-{count}").write_bytes(b"".join(parts))
    for n, conversation in enumerate(requests()):
        (requests_to / f"{n}").write_bytes(b"".join(conversation))


main()
