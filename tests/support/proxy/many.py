"""Rules of many services, each with endpoints of its own."""

from __future__ import annotations

import ipaddress

from pyrun.proxy.rules import FORWARD, TCP, Choice, Endpoint, EndpointSet, Frontend, Rules

RANGE = (ipaddress.ip_address("10.96.0.0").packed, 12)


def many(services: int, endpoints: int, shift: int) -> Rules:
    """Each service has one frontend; shift: which endpoints out of its block it has."""
    first = int(ipaddress.ip_address("10.128.0.0"))
    frontends, sets, allocated = [], [], []
    for number in range(services):
        address = (int.from_bytes(RANGE[0], "big") + 256 + number).to_bytes(4, "big")
        base = first + number * (endpoints + 1) + shift
        some = tuple([Endpoint((base + i).to_bytes(4, "big"), 8080) for i in range(endpoints)])
        choice = Choice((), FORWARD, f"s{number}")
        frontends.append(Frontend(f"default/s{number}", TCP, address, 80, (choice,)))
        sets.append(EndpointSet(f"s{number}", some))
        allocated.append(address)
    return Rules(tuple(frontends), tuple(sets), (RANGE,), allocated=tuple(allocated))
