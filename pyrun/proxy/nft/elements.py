"""A frontend as elements of the maps, and the chains that these name. Pure."""

from __future__ import annotations

from zlib import crc32

from ..rules import DROP, FORWARD, REJECT
from . import messages as m
from .layout import (
    ALLOCATED,
    KEEPING,
    OWN,
    REFUSE,
    SERVICES,
    VARIANTS,
    BySource,
    Forward,
    Keep,
    native,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..rules import Choice, EndpointSet, Frontend

    Chain = Forward | BySource | Keep
    Element = tuple[str, bytes]  # map, key

NAMES = (SERVICES, KEEPING, OWN, ALLOCATED)  # filled from here, with those of chains
MAX_ENDPOINTS = 1 << 16


class Elements:
    """found: (map, key) → data as messages.element() takes it; of OWN the key is the address alone. chains: those that
    the verdicts name."""

    __slots__ = ("chains", "found")

    def __init__(self) -> None:
        self.found: dict[Element, bytes] = {}
        self.chains: list[Chain] = []


def frontend_key(protocol: int, address: bytes, port: int) -> bytes:
    """A frontend in the maps' keys."""
    return address + bytes((protocol, 0, 0, 0)) + port.to_bytes(2, "big") + b"\0\0"


def elements_of(
    frontend: Frontend, sets: Mapping[str, EndpointSet], *, forward: bool = True, own: frozenset[bytes] = frozenset()
) -> Elements:
    """forward: connections are given to endpoints here; else they pass, as the data plane takes them. own: as of
    Rules: what has no endpoint there is let pass to the node's own program."""
    made = Elements()
    key = frontend_key(*frontend.key)
    if len(frontend.choices) == 1:
        made.found[SERVICES, key] = _verdict(made, frontend, key, 0, sets, forward, own)
        return made
    by_source = BySource(tuple(choice.sources for choice in frontend.choices[:-1]))
    made.chains.append(by_source)
    made.found[SERVICES, key] = m.verdict(m.GOTO, by_source.name)
    for number in range(len(frontend.choices)):
        made.found[by_source.name, key + native(number)] = _verdict(made, frontend, key, number, sets, forward, own)
    return made


def _verdict(
    made: Elements,
    frontend: Frontend,
    key: bytes,
    number: int,
    sets: Mapping[str, EndpointSet],
    forward: bool,
    own: frozenset[bytes],
) -> bytes:
    choice = frontend.choices[number]
    if choice.action == DROP:
        return m.verdict(m.DROP)
    if not forward and choice.action == FORWARD:
        return m.verdict(m.ACCEPT)
    endpoints = sets[choice.endpoints].endpoints if choice.action == FORWARD and choice.endpoints else ()
    if choice.action == REJECT or not endpoints:
        return m.verdict(m.ACCEPT) if frontend.address in own else m.verdict(m.GOTO, REFUSE)
    endpoints = endpoints[:MAX_ENDPOINTS]
    found = made.found
    chain = _chain(frontend, choice, number, len(endpoints), key)
    name = chain.name
    for turn, endpoint in enumerate(endpoints, number << 16):
        target = endpoint.address + endpoint.port.to_bytes(2, "big") + b"\0\0"
        found[name, key + native(turn)] = m.value(target)
        found[OWN, endpoint.address] = b""
    if frontend.affinity and (KEEPING, key) not in found:
        keep = Keep(frontend.affinity)
        made.chains.append(keep)
        found[KEEPING, key] = m.verdict(m.JUMP, keep.name)
    made.chains.append(chain)
    return m.verdict(m.GOTO, name)


def _chain(frontend: Frontend, choice: Choice, number: int, count: int, key: bytes) -> Forward:
    variant = crc32(key) % VARIANTS if count > 1 else 0
    return Forward(count, number, variant, choice.replace_source, bool(frontend.affinity))
