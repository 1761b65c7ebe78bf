"""A small cluster's objects for the tests of DNS, and replies as dnspython reads them."""

from __future__ import annotations

from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype

from pyrun.dns.objects import Fault, Origin, Pod, Service, Slice, read_pod, read_service, read_slice
from pyrun.dns.plan import Options, plan_dns
from pyrun.dns.table import Table


def service(name: str, namespace: str = "default", **spec: Any) -> dict[str, Any]:
    return {"kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def endpoint_slice(
    service: str,
    *endpoints: dict[str, Any],
    namespace: str = "default",
    kind: str = "IPv4",
    ports: tuple[dict[str, Any], ...] = (),
    name: str = "",
) -> dict[str, Any]:
    meta = {
        "name": name or f"{service}-{kind.lower()}",
        "namespace": namespace,
        "labels": {"kubernetes.io/service-name": service},
    }
    return {
        "kind": "EndpointSlice",
        "metadata": meta,
        "addressType": kind,
        "endpoints": list(endpoints),
        "ports": list(ports),
    }


def endpoint(address: str, hostname: str = "", ready: bool | None = None) -> dict[str, Any]:
    value: dict[str, Any] = {"addresses": [address]}
    if hostname:
        value["hostname"] = hostname
    if ready is not None:
        value["conditions"] = {"ready": ready}
    return value


def pod(name: str, *addresses: str, namespace: str = "default", phase: str = "Running", **spec: Any) -> dict[str, Any]:
    status = {"phase": phase, "podIP": addresses[0], "podIPs": [{"ip": address} for address in addresses]}
    return {"kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": spec, "status": status}


HTTP = {"name": "http", "port": 80, "protocol": "TCP"}
DNS_UDP = {"name": "dns", "port": 53, "protocol": "UDP"}
CLUSTER = [
    service("web", clusterIP="10.96.0.5", ports=[HTTP, {"port": 9000, "protocol": "TCP"}, DNS_UDP]),
    service("dual", clusterIP="10.96.0.6", clusterIPs=["10.96.0.6", "fd00:96::6"], ports=[HTTP]),
    service("six", "prod", clusterIPs=["fd00:96::7"], ports=[{"name": "grpc", "port": 50051}]),
    service("db", clusterIP="None", ports=[{"name": "sql", "port": 5432}]),
    endpoint_slice(
        "db",
        endpoint("10.1.0.1", "db-0"),
        endpoint("10.1.0.2", "db-1", True),
        endpoint("10.1.0.3", "db-2", False),
        endpoint("10.1.0.4"),
        ports=({"name": "sql", "port": 5432, "protocol": "TCP"},),
    ),
    endpoint_slice(
        "db", endpoint("fd00:1::1", "db-0"), kind="IPv6", ports=({"name": "sql", "port": 5432, "protocol": "TCP"},)
    ),
    service("down", clusterIP="None", ports=[HTTP]),
    endpoint_slice("down", endpoint("10.1.0.9", "down-0", False)),
    service("early", clusterIP="None", publishNotReadyAddresses=True),
    endpoint_slice("early", endpoint("10.1.0.10", "early-0", False)),
    service("ext", type="ExternalName", externalName="www.example.com"),
    service("alias", type="ExternalName", externalName="Web.default.svc.cluster.local"),
    service("alias2", type="ExternalName", externalName="alias.default.svc.cluster.local"),
    service("dangling", type="ExternalName", externalName="nothing.default.svc.cluster.local"),
    service("loop", type="ExternalName", externalName="loop2.default.svc.cluster.local"),
    service("loop2", type="ExternalName", externalName="loop.default.svc.cluster.local"),
    service("many", clusterIP="None"),
    endpoint_slice("many", *[endpoint(f"10.2.0.{number}") for number in range(1, 51)]),
    pod("web-1", "10.1.0.20", "fd00:1::20"),
    pod("done", "10.1.0.21", phase="Succeeded"),
    pod("lonely", "10.1.0.22", namespace="quiet"),
]


def read(values: list[dict[str, Any]]) -> tuple[list[Service], list[Slice], list[Pod], list[Fault]]:
    services, slices, pods, faults = [], [], [], list[Fault]()
    for value in values:
        meta = value["metadata"]
        origin = Origin(f"{value['kind']} {meta.get('namespace', 'default')}/{meta['name']}")
        if value["kind"] == "Service":
            services.append(read_service(value, origin, faults))
        elif value["kind"] == "EndpointSlice" and (part := read_slice(value, origin, faults)):
            slices.append(part)
        elif value["kind"] == "Pod" and (found := read_pod(value, origin, faults)):
            pods.append(found)
    return services, slices, pods, faults


def table_of(values: list[dict[str, Any]], options: Options | None = None) -> Table:
    services, slices, pods, _ = read(values)
    return plan_dns(services, slices, pods, options)


def ask(name: str, kind: str, payload: int | None = 1232, **more: Any) -> bytes:
    """A query's bytes, made by dnspython."""
    edns = False if payload is None else 0
    return dns.message.make_query(name, kind, use_edns=edns, payload=payload, **more).to_wire()


def shown(reply: bytes) -> tuple[str, list[str], list[str], list[str]]:
    """rcode, answers, authority, additional: each record as "NAME TTL TYPE DATA", sorted but for chains of aliases."""
    message = dns.message.from_wire(reply)

    def lines(rrsets: Any) -> list[str]:
        found = []
        for rrset in rrsets:
            kind = dns.rdatatype.to_text(rrset.rdtype)
            found += sorted(f"{rrset.name} {rrset.ttl} {kind} {data}" for data in rrset)
        return found

    rcode = dns.rcode.to_text(message.rcode())
    return rcode, lines(message.answer), lines(message.authority), lines(message.additional)
