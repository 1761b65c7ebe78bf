"""Who gets a Service's traffic, from where, and why: what plan.py decides, with each endpoint's fate. PURE."""

from __future__ import annotations

from typing import NamedTuple

from .frontends import Around, outside_addresses, uses
from .model import EndpointSlice, Service, ServicePort
from .rules import PROTOCOLS, Frontend, Refusal
from .select import NODE, ZONE, Candidate, Selection
from .service_plan import (
    ServiceRules,
    Surroundings,
    allowed_endpoints,
    candidates_of,
    plan_service,
    select_port,
    skipped,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class Fate(NamedTuple):
    """One endpoint of one port. policies: those for which it gets traffic, "cluster" and "local"; why: half a sentence,
    why it gets none, or that it is a last resort."""

    port: str
    endpoint: Candidate
    policies: tuple[str, ...]
    why: str


class Explained(NamedTuple):
    """skipped: why nothing is done for it; "" if something is."""

    service: Service
    skipped: str
    rules: ServiceRules
    fates: tuple[Fate, ...]

    @property
    def frontends(self) -> list[Frontend]:
        return [frontend for _, frontend in self.rules.frontends]


def explain_service(service: Service, slices: Iterable[EndpointSlice], there: Surroundings) -> Explained:
    """slices: those that carry the Service's name."""
    why = skipped(service, there.options)
    if why:
        return Explained(service, why, ServiceRules(), ())
    ordered = sorted(slices, key=lambda one: one.name)
    rules = plan_service(service, ordered, there)
    fates: list[Fate] = []
    for cluster_ip in service.cluster_ips:
        here = there.families[len(cluster_ip)]
        for port in service.ports:
            fates += _fates(service, port, ordered, here)
    return Explained(service, "", rules, tuple(fates))


def _fates(service: Service, port: ServicePort, slices: list[EndpointSlice], here: Around) -> list[Fate]:
    unused: list[Refusal] = []
    usable = allowed_endpoints(slices, here, unused)
    outside, _ = outside_addresses(service, port, here)
    needs = uses(service, bool(outside))
    selection = select_port(service, port.name, port.protocol, usable, here, external=bool(outside))
    name = f"{port.name or port.port}/{PROTOCOLS[port.protocol]}"
    found = []
    for one in candidates_of(port.name, port.protocol, usable, here):
        policies = tuple(
            [word for word, some in (("cluster", selection.cluster), ("local", selection.local)) if one in some]
        )
        found.append(Fate(name, one, policies, _why(one, policies, selection, needs.cluster)))
    return found


def _why(one: Candidate, policies: tuple[str, ...], selection: Selection, uses_cluster: bool) -> str:
    if policies:
        return "terminating, as nothing is ready" if one.last_resort else ""
    if not one.ready:
        return "terminating, and others are ready" if one.last_resort else "not ready"
    if not uses_cluster:
        return "on another node, and the policy is Local"
    if selection.topology == NODE:
        return "its hints are for other nodes"
    return "its hints are for other zones" if selection.topology == ZONE else "not used"
