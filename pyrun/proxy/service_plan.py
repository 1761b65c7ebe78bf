"""What one Service and its EndpointSlices add to the rules. PURE. plan.py puts all of them together."""

from __future__ import annotations

from typing import NamedTuple

from ..kube.addresses import address_text
from .forbid import forbidden_endpoint, forbidden_frontend
from .frontends import Around, around, outside_addresses, plan_port, uses
from .model import EXTERNAL_NAME, EndpointSlice, Node, Options, Service, SliceEndpoint
from .rules import EndpointSet, Frontend, HealthCheck, Refusal
from .select import Candidate, Selection, select, unique

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class ServiceRules(NamedTuple):
    """What one Service adds to the rules. frontends: each with its rank, of two that want one key the lower wins.
    allocated: its cluster IPs."""

    frontends: tuple[tuple[int, Frontend], ...] = ()
    sets: tuple[EndpointSet, ...] = ()
    health: HealthCheck | None = None
    refused: tuple[Refusal, ...] = ()
    allocated: tuple[bytes, ...] = ()


NOTHING = ServiceRules()


class Surroundings(NamedTuple):
    """The node and what an administrator decides, for both families."""

    node: Node
    options: Options
    families: dict[int, Around]

    @classmethod
    def of(cls, node: Node, options: Options) -> Surroundings:
        return cls(node, options, {size: around(node, options, size) for size in (4, 16)})


def skipped(service: Service, options: Options) -> str:
    """Why a Service is none of the proxy's business; "" if it is."""
    if service.type == EXTERNAL_NAME:
        return "an ExternalName is DNS alone"
    if service.headless:
        return "headless: clients find its endpoints by DNS"
    if service.proxy_name != options.proxy_name:
        return f"its label service-proxy-name gives it to {service.proxy_name!r}"
    return ""


def plan_service(service: Service, slices: Iterable[EndpointSlice], there: Surroundings) -> ServiceRules:
    """The rules of one Service. slices: those that carry its name, in any order."""
    if skipped(service, there.options):
        return NOTHING
    if not service.cluster_ips:
        why, place = "has none, and nothing here hands them out", f"{service.origin} /spec/clusterIP"
        refusal = Refusal("clusterIP", why, place, "NoClusterIP", service.id)
        return ServiceRules(refused=(refusal,))
    ordered = sorted(
        [one for one in slices if not one.headless and one.proxy_name == there.options.proxy_name], key=_name
    )
    frontends: list[tuple[int, Frontend]] = []
    sets: list[EndpointSet] = []
    refused: list[Refusal] = []
    ready = 0
    for cluster_ip in service.cluster_ips:
        here = there.families[len(cluster_ip)]
        why = forbidden_frontend(cluster_ip, there.node, there.options, cluster=True)
        if why:
            place = f"{service.origin} /spec/clusterIP"
            refused.append(Refusal(address_text(cluster_ip), why, place, "ForbiddenClusterIP", service.id))
            continue
        usable = allowed_endpoints(ordered, here, refused)
        for port in service.ports:
            outside, kept_out = outside_addresses(service, port, here)
            refused += kept_out
            selection = select_port(service, port.name, port.protocol, usable, here, external=bool(outside))
            found = plan_port(service, port, cluster_ip, outside, selection, here)
            frontends += found.frontends
            sets += found.sets
        if service.health_check_node_port:
            ready = max(
                ready, len({e.address for _, some in usable for e in some if e.ready and e.node == there.node.name})
            )
    health = None
    if service.health_check_node_port:
        health = HealthCheck(service.health_check_node_port, service.namespace, service.name, ready)
    allocated = tuple({frontend.address: None for rank, frontend in frontends if rank == 0})
    return ServiceRules(tuple(frontends), tuple(sets), health, tuple(dict.fromkeys(refused)), allocated)


def _name(one: EndpointSlice) -> str:
    return one.name


Usable = list[tuple[EndpointSlice, list[SliceEndpoint]]]


def allowed_endpoints(slices: list[EndpointSlice], here: Around, refused: list[Refusal]) -> Usable:
    """The endpoints of a family that traffic may go to at all; others are added to `refused`."""
    found: Usable = []
    for one in slices:
        if (4 if one.family == 4 else 16) != here.size:
            continue
        allowed = []
        for endpoint in one.endpoints:
            why = forbidden_endpoint(endpoint, one, here.node, here.options)
            if why:
                place = f"{one.origin} /endpoints/{endpoint.nth}/addresses/0"
                text = address_text(endpoint.address)
                refused.append(Refusal(text, why, place, "ForbiddenEndpoint", one.service_id))
            else:
                allowed.append(endpoint)
        found.append((one, allowed))
    return found


def select_port(
    service: Service, name: str, protocol: int, usable: Usable, here: Around, *, external: bool
) -> Selection:
    """The endpoints of one port, found in each slice by the port's name and protocol."""
    needs = uses(service, external)
    candidates = candidates_of(name, protocol, usable, here)
    return select(
        candidates, uses_cluster=needs.cluster, uses_local=needs.local, node=here.node.name, zone=here.node.zone
    )


def candidates_of(name: str, protocol: int, usable: Usable, here: Around) -> list[Candidate]:
    own = here.node.name
    found = []
    for one, endpoints in usable:
        for port in one.ports:
            if port.name == name and port.protocol == protocol:
                found += [
                    Candidate(
                        e.address,
                        port.port,
                        e.ready,
                        e.serving,
                        e.terminating,
                        e.node == own,
                        e.zone_hints,
                        e.node_hints,
                        f"{one.origin} /endpoints/{e.nth}",
                    )
                    for e in endpoints
                ]
    return unique(found)
