"""Ports of the node that a program on it has already: a NodePort there would take them away from it (#76892).

Pure, but for reading /proc/net (proc_net(5)), which is the reader's own network namespace.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Iterator

from ..errors import PyrunError
from .rules import PROTOCOLS, SCTP, TCP, UDP, Frontend, Key, Refusal

FILES = {TCP: ("tcp", "tcp6"), UDP: ("udp", "udp6")}
LISTENS, UNCONNECTED = "0A", "07"  # the state of a TCP socket that listens, of a UDP socket that is not connected
SCTP_LISTENS = "10"  # the same of SCTP, decimal
Bound = tuple[int, bytes, int]  # protocol, address (zeros: any), port
HINT = "stop that program, or give the Service another nodePort"


def bound_ports(root: str = "/proc/thread-self/net") -> set[Bound]:
    """What listens on this node."""
    found = set(_bound_sctp(root))
    for protocol, names in FILES.items():
        for name in names:
            try:
                with open(f"{root}/{name}") as file:
                    lines = file.read().splitlines()[1:]
            except FileNotFoundError:  # a kernel without IPv6
                continue
            for line in lines:
                _, local, _, state = line.split(None, 4)[:4]
                if state == (LISTENS if protocol == TCP else UNCONNECTED):
                    address, _, port = local.partition(":")
                    found.add((protocol, parse_address(address), int(port, 16)))
    return found


def _bound_sctp(root: str) -> Iterator[Bound]:
    """By a table of its own, which there is with the module: each address of a socket, in full."""
    try:
        with open(f"{root}/sctp/eps") as file:
            lines = file.read().splitlines()[1:]
    except FileNotFoundError:
        return
    for line in lines:
        _, _, _, state, _, port, _, _, *addresses = line.split()
        if state == SCTP_LISTENS:
            yield from ((SCTP, ipaddress.ip_address(address).packed, int(port)) for address in addresses)


def parse_address(text: str) -> bytes:
    """Of /proc/net/tcp: words of 4 bytes, each in the machine's order. An IPv4 one in IPv6 is IPv4's."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    address = struct.pack(f"={len(words)}I", *words)
    mapped = len(address) == 16 and address[:12] == bytes(10) + b"\xff\xff"
    return address[12:] if mapped else address


def clashes(frontends: Iterable[Frontend], node: Iterable[bytes], bound: set[Bound]) -> dict[Key, Refusal]:
    """The frontends on the node's own addresses whose port a program has, and what to say of them."""
    own = set(node)
    ports: dict[tuple[int, int], list[bytes]] = {}
    for protocol, address, port in bound:
        ports.setdefault((protocol, port), []).append(address)
    found = {}
    for one in frontends:
        if one.address not in own:
            continue
        for address in ports.get((one.protocol, one.port), ()):
            # A socket of IPv6's any address has IPv4 too, unless it says that it has not, which /proc does not tell.
            if not any(address) or address == one.address:
                why = f"a program on this node has {PROTOCOLS[one.protocol]} port {one.port}; {HINT}"
                where = f"port {one.port}/{PROTOCOLS[one.protocol]}"
                found[one.key] = Refusal(where, why, one.origin, "NodePortInUse", one.owner)
    return found


def ephemeral_overlap(ports: Iterable[int], root: str = "/proc/sys/net/ipv4") -> str | None:
    """What to say where the node takes ports for its own connections among which NodePorts are (#111682)."""
    try:
        with open(f"{root}/ip_local_port_range") as file:
            low, high = (int(word) for word in file.read().split())
        with open(f"{root}/ip_local_reserved_ports") as file:
            reserved = parse_ranges(file.read())
    except (OSError, ValueError) as error:
        raise PyrunError(f"{root}: {error}") from None
    taken = sorted(port for port in set(ports) if low <= port <= high and not _within(port, reserved))
    if not taken:
        return None
    some = ", ".join(map(str, taken[:5])) + (", …" if len(taken) > 5 else "")
    return (
        f"NodePorts {some} lie in net.ipv4.ip_local_port_range ({low}-{high}), of which connections of this node take "
        f"their ports; sysctl net.ipv4.ip_local_reserved_ports keeps them free"
    )


def parse_ranges(text: str) -> list[tuple[int, int]]:
    """1,5-7"""
    found = []
    for part in text.strip().split(","):
        if part:
            low, _, high = part.partition("-")
            found.append((int(low), int(high or low)))
    return found


def _within(port: int, ranges: list[tuple[int, int]]) -> bool:
    return any(low <= port <= high for low, high in ranges)
