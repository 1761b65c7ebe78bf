"""Which servers are asked for which names: resolv.conf(5) and what is written on the command line. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..errors import PyrunError
from . import wire

Address = tuple[str, int]  # as text, and the port
# Who is answered where nobody says otherwise: loopback, and the addresses that pods and nodes have (RFC 1918, 6598,
# 3927, 4193, link-local).
PRIVATE = (
    *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16"),
    *("::1/128", "fc00::/7", "fe80::/10"),
)


@dataclass(frozen=True, slots=True)
class Servers:
    """zones: servers of names at and below one, in lower case; the longest that fits decides. The root's are asked for
    all others."""

    zones: Mapping[bytes, tuple[Address, ...]] = field(default_factory=dict)

    def of(self, name: bytes) -> tuple[Address, ...]:
        for zone in (name, *wire.parents(name)):
            if zone in self.zones:
                return self.zones[zone]
        return ()

    def all(self) -> list[Address]:
        return sorted({address for addresses in self.zones.values() for address in addresses})


def read_resolv_conf(text: str) -> tuple[list[Address], list[str]]:
    """The name servers in a resolv.conf, and a line for each that is none."""
    found, faults = list[Address](), []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        try:
            ipaddress.ip_address(words[1])
        except ValueError:
            faults.append(f"line {number}: {words[1]} is no IP address")
            continue
        found.append((words[1], 53))
    return found, faults


def read_searches(text: str) -> tuple[str, ...]:
    """The domains of a resolv.conf's last search or domain line."""
    found: tuple[str, ...] = ()
    for line in text.splitlines():
        words = line.split()
        if words and words[0] in ("search", "domain"):
            found = tuple(words[1:])
    return found


def read_address(text: str, port: int = 53) -> Address:
    """IP, IP:PORT or [IPv6]:PORT. PyrunError."""
    host, written = text, ""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        written = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, written = text.partition(":")
    try:
        address = ipaddress.ip_address(host)
        number = int(written) if written else port
        if not 0 <= number < 65536:
            raise ValueError
    except ValueError:
        raise PyrunError(f"{text} is no address: IP, IP:PORT or [IPv6]:PORT")
    return str(address), number


def read_upstreams(words: Iterable[str]) -> Servers | None:
    """Of --upstream: ADDRESS,… for all names, or ZONE=ADDRESS,… for those of a zone (a stub domain, conditional
    forwarding). None without one for all names. PyrunError."""
    zones: dict[bytes, tuple[Address, ...]] = {}
    for word in words:
        zone, sign, addresses = word.rpartition("=")
        try:
            name = wire.lower(wire.name_of(zone if sign else "."))
        except wire.WireError as error:
            raise PyrunError(f"--upstream {error}")
        zones[name] = zones.get(name, ()) + tuple(read_address(one) for one in addresses.split(",") if one)
    return Servers(zones)


def without(servers: Servers, own: Iterable[Address]) -> tuple[Servers, list[Address]]:
    """The servers but for ourselves, and which of them were we."""
    ours = set(own)
    kept = {zone: tuple(a for a in addresses if a not in ours) for zone, addresses in servers.zones.items()}
    return Servers({zone: addresses for zone, addresses in kept.items() if addresses}), [
        address for address in servers.all() if address in ours
    ]
