"""What turns out only as the rules are carried out: what is not served for now, why, and since when.

A refusal stands as long as it is found; what concerns no single Service, such as a data plane that can't be started, is
a hurdle. One thread writes both, others read.
"""

from __future__ import annotations

import errno
import os
from datetime import UTC, datetime

from ..kube.addresses import address_text, port_text, prefix_text
from .rules import ACTIONS, FORWARD, PROTOCOLS, Frontend, Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from .explain import Explained
    from .messages import Counters
    from .model import EndpointSlice
    from .rules import EndpointSet, Key, Rules


class Standing:
    """Seconds are those since 1970."""

    def __init__(self) -> None:
        self._refused: dict[Refusal, float] = {}
        self._hurdles: dict[str, tuple[str, float]] = {}

    def set(self, refused: Iterable[Refusal], now: float) -> None:
        """These stand now, and no others."""
        self._refused = {one: self._refused.get(one, now) for one in refused}

    def set_hurdle(self, what: str, why: str, now: float) -> None:
        """why: "" once it is overcome."""
        hurdles = dict(self._hurdles)
        _, since = hurdles.pop(what, ("", now))
        self._hurdles = hurdles | {what: (why, since)} if why else hurdles

    def refused(self) -> list[dict[str, Any]]:
        """Those that stand: who is served less, which part, why, since when."""
        return [self.row(one) for one in self._refused]

    def row(self, one: Refusal) -> dict[str, Any]:
        """since: None of one that the objects alone say."""
        since = self._refused.get(one)
        row = {"service": "/".join(one.owner), "reason": one.reason, "subject": one.subject, "why": one.why}
        return row | {"origin": one.origin, "since": time_text(since) if since is not None else None}

    def hurdles(self) -> list[dict[str, str]]:
        return [{"what": what, "why": why, "since": time_text(at)} for what, (why, at) in self._hurdles.items()]


def time_text(seconds: float) -> str:
    """As RFC 3339 has it."""
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")


def without_socket(counters: Counters | None, frontends: Iterable[Frontend]) -> dict[Key, Refusal]:
    """The frontends whose socket the data plane can't have, and tries again by and by."""
    wrong = {(one.protocol, one.address, one.port): one.error for one in (counters.frontends if counters else ())}
    return {one.key: _no_socket(one, wrong[one.key]) for one in frontends if wrong.get(one.key)}


def _no_socket(one: Frontend, number: int) -> Refusal:
    where = f"{port_text(one.address, one.port)}/{PROTOCOLS[one.protocol]}"
    why = f"its socket is not to be had: {os.strerror(number).lower()}"
    if number == errno.EADDRINUSE:
        why = (
            f"a program on this node has {PROTOCOLS[one.protocol]} port {one.port} on all addresses; have it listen at "
            f"one of its own, or stop it"
        )
    return Refusal(where, why, one.origin, "AddressInUse", one.owner)


# --- the list ---------------------------------------------------------------------------------------------------------


def frontend_row(one: Frontend, sets: Mapping[str, EndpointSet]) -> dict[str, Any]:
    """As JSON, without its place."""
    title, _, kind = one.name.rpartition(" ")
    service, _, port = title.partition(":")
    choices: list[dict[str, Any]] = [
        {
            "sources": [prefix_text(prefix) for prefix in choice.sources],
            "action": ACTIONS[choice.action],
            "endpoints": _texts(sets[choice.endpoints]) if choice.endpoints is not None else [],
            "masquerade": choice.action == FORWARD and choice.replace_source,
            "why": choice.why,
        }
        for choice in one.choices
    ]
    return {
        "service": service,
        "servicePort": port,
        "kind": kind,
        "protocol": PROTOCOLS[one.protocol],
        "address": address_text(one.address),
        "port": one.port,
        "endpoints": list(dict.fromkeys(each for choice in choices for each in choice["endpoints"])),
        "affinity": one.affinity,
        "kernel": one.kernel,
        "choices": choices,
    }


def _texts(found: EndpointSet) -> list[str]:
    return [port_text(each.address, each.port) for each in found.endpoints]


def listing(
    rules: Rules, unserved: Mapping[Key, Refusal], refused: Iterable[Refusal], standing: Standing
) -> dict[str, Any]:
    """frontends: those of the objects, and why where one is not served, made one at a time, as they may be many; all
    refusals; what stands in all their way."""
    sets = {one.key: one for one in rules.sets}

    def row(one: Frontend) -> dict[str, Any]:
        why = unserved.get(one.key)
        return frontend_row(one, sets) | {
            "origin": one.origin,
            "unserved": standing.row(why) if why is not None else None,
        }

    ordered = sorted(rules.frontends, key=lambda one: (one.name, len(one.address), one.address, one.port))
    rows = map(row, ordered)
    return {"frontends": rows, "refused": [standing.row(one) for one in refused], "hurdles": standing.hurdles()}


def service_row(made: Explained, slices: Iterable[EndpointSlice]) -> dict[str, Any]:
    """As JSON. pod: NAMESPACE/NAME, "" where the slice names none."""
    service = made.service
    pods = {one.address: "/".join(one.pod) for each in slices for one in each.endpoints if one.pod is not None}
    return {
        "service": "/".join(service.id),
        "type": service.type,
        "clusterIPs": [address_text(address) for address in service.cluster_ips],
        "selector": dict(service.selector),
        "skipped": made.skipped,
        "endpoints": [
            {
                "port": fate.port,
                "endpoint": port_text(fate.endpoint.address, fate.endpoint.port),
                "pod": pods.get(fate.endpoint.address, ""),
                "ready": fate.endpoint.ready,
                "local": fate.endpoint.local,
                "policies": list(fate.policies),
                "why": fate.why,
            }
            for fate in made.fates
        ],
    }
