"""What becomes of one packet by the rules, and which of them says so. PURE, and how the rules are to be read."""

from __future__ import annotations

from typing import NamedTuple

from ..kube.addresses import address_text, any_holds, port_text
from .rules import DROP, FORWARD, PASS, PROTOCOLS, REJECT, Choice, Endpoint, Frontend, Key, Rules


class Verdict(NamedTuple):
    """action: one of rules.py. endpoints: one of which gets the packet, in their order. masquerade: at least one of
    them would see the node's address as the source. hairpin: those that are the client itself, which is masqueraded
    always. rule: for people. frontend, choice: what decided; None where no frontend has the packet."""

    action: int
    endpoints: tuple[Endpoint, ...]
    masquerade: bool
    hairpin: tuple[Endpoint, ...]
    rule: str
    frontend: Frontend | None = None
    choice: Choice | None = None


def trace(rules: Rules, source: bytes, key: Key) -> Verdict:
    """The fate of the first packet from an address to a protocol, address and port."""
    protocol, address, port = key
    frontend = next((one for one in rules.frontends if one.key == key), None)
    if frontend is None:
        where = f"{port_text(address, port)}/{PROTOCOLS[protocol]}"
        if address in rules.allocated:
            return _plain(REJECT, f"a Service has {address_text(address)}, and none has {where}")
        if any_holds(rules.ranges, address):
            return _plain(DROP, f"{address_text(address)} is in the range of services, and given to none")
        return _plain(PASS, f"no Service has {where}")
    choice = choose(frontend, source)
    rule = f"{frontend.name}: {choice.why}"
    if choice.action != FORWARD:
        return Verdict(choice.action, (), False, (), rule, frontend, choice)
    endpoints = next(one.endpoints for one in rules.sets if one.key == choice.endpoints)
    hairpin = tuple([one for one in endpoints if one.address == source])
    return Verdict(FORWARD, endpoints, choice.replace_source or bool(hairpin), hairpin, rule, frontend, choice)


def choose(frontend: Frontend, source: bytes) -> Choice:
    """The first choice for a client: the last one takes all that are left."""
    return next(one for one in frontend.choices if not one.sources or any_holds(one.sources, source))


def _plain(action: int, rule: str) -> Verdict:
    return Verdict(action, (), False, (), rule)
