"""What DNS needs of Kubernetes' objects: services, endpoints and pods, as small values made of plain dicts.

Sources: Service, Pod v1 and EndpointSlice discovery.k8s.io/v1. A fault is a Fault with its JSON pointer, and only the
part that has it is left out.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

FAULTS_MOST = 10_000
SERVICE_NAME = "kubernetes.io/service-name"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an object stands. object: "Service default/web". place: gives FILE:LINE of a JSON pointer, for one that
    is in a file."""

    object: str
    place: Callable[[str], str] | None = field(default=None, compare=False)

    def at(self, pointer: str) -> Where:
        return Where(self, pointer)


@dataclass(frozen=True, slots=True)
class Where:
    """A value in an object: as text FILE:LINE OBJECT POINTER, which is made only when somebody reads it."""

    origin: Origin
    pointer: str = ""

    def __str__(self) -> str:
        place = self.origin.place(self.pointer) if self.origin.place else ""
        return " ".join([word for word in (place, self.origin.object, self.pointer) if word])


@dataclass(frozen=True, slots=True)
class Port:
    name: str
    protocol: str  # "tcp", "udp", "sctp"
    number: int


@dataclass(frozen=True, slots=True)
class Service:
    """addresses: of its clusterIPs, 4 or 16 bytes each, none of a headless one. external: the externalName."""

    namespace: str
    name: str
    addresses: tuple[bytes, ...] = ()
    headless: bool = False
    external: str | None = None
    ports: tuple[Port, ...] = ()
    not_ready_too: bool = False
    origin: Origin = field(default=Origin(""), compare=False)


@dataclass(frozen=True, slots=True)
class Endpoint:
    address: bytes
    hostname: str
    ready: bool
    pointer: str = ""


@dataclass(frozen=True, slots=True)
class Slice:
    """An EndpointSlice."""

    namespace: str
    service: str
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[Port, ...] = ()
    origin: Origin = field(default=Origin(""), compare=False)


@dataclass(frozen=True, slots=True)
class Pod:
    """searches: what its resolver is to try beside the cluster's own domains; None where it does not try those, or
    where its address is not its own."""

    namespace: str
    name: str
    addresses: tuple[bytes, ...] = ()
    searches: tuple[str, ...] | None = None
    origin: Origin = field(default=Origin(""), compare=False)


@dataclass(frozen=True, slots=True)
class Fault:
    """What an object asks for and does not get."""

    origin: Where
    why: str


class Faults(list[Fault]):
    """As many as are named; more: how many there are beside these, which take no memory."""

    more = 0

    def append(self, fault: Fault) -> None:
        if len(self) < FAULTS_MOST:
            super().append(fault)
        else:
            self.more += 1


def read_service(value: Mapping[str, Any], origin: Origin, faults: list[Fault]) -> Service:
    meta, spec = value.get("metadata") or {}, value.get("spec") or {}
    namespace, name = meta.get("namespace") or "default", meta.get("name") or ""
    if spec.get("type") == "ExternalName":
        return Service(namespace, name, external=str(spec.get("externalName") or ""), origin=origin)
    texts = spec.get("clusterIPs") or [spec.get("clusterIP") or ""]
    headless = texts[0] == "None"
    addresses = []
    for number, text in enumerate(texts):
        if headless or not text:
            continue
        pointer = f"/spec/clusterIPs/{number}" if spec.get("clusterIPs") else "/spec/clusterIP"
        addresses += list(_address(text, origin.at(pointer), faults))
    ports = tuple(_ports(spec.get("ports") or (), "/spec/ports", origin, faults))
    too = bool(spec.get("publishNotReadyAddresses"))
    return Service(namespace, name, tuple(addresses), headless, None, ports, too, origin)


def read_slice(value: Mapping[str, Any], origin: Origin, faults: list[Fault]) -> Slice | None:
    """None for one that belongs to no service, or has no addresses (FQDN)."""
    meta = value.get("metadata") or {}
    service = (meta.get("labels") or {}).get(SERVICE_NAME)
    if service and not isinstance(service, str):
        faults.append(Fault(origin.at("/metadata/labels"), f"{SERVICE_NAME} is no text"))
        return None
    if not service or value.get("addressType") not in ("IPv4", "IPv6"):
        return None
    size = 4 if value["addressType"] == "IPv4" else 16
    endpoints = []
    for number, endpoint in enumerate(value.get("endpoints") or ()):
        pointer = f"/endpoints/{number}"
        conditions = endpoint.get("conditions") or {}
        ready = conditions.get("ready") is not False  # nil is true
        if not isinstance(hostname := endpoint.get("hostname") or "", str):
            faults.append(Fault(origin.at(f"{pointer}/hostname"), f"{hostname!r} is no name"))
            continue
        for place, text in enumerate(endpoint.get("addresses") or [""]):
            where = origin.at(f"{pointer}/addresses/{place}")
            for address in _address(text, where, faults):
                if len(address) == size:
                    endpoints.append(Endpoint(address, hostname, ready, pointer))
                else:
                    faults.append(Fault(where, f"no address of {value['addressType']}"))
    ports = tuple(_ports(value.get("ports") or (), "/ports", origin, faults))
    return Slice(meta.get("namespace") or "default", service, tuple(endpoints), ports, origin)


def read_pod(value: Mapping[str, Any], origin: Origin, faults: list[Fault]) -> Pod | None:
    """None for a pod that has ended."""
    meta, status = value.get("metadata") or {}, value.get("status") or {}
    if status.get("phase") in ("Succeeded", "Failed"):
        return None
    texts = [entry.get("ip") for entry in status.get("podIPs") or ()] or [status.get("podIP")]
    addresses = [a for text in texts if text for a in _address(text, origin.at("/status/podIPs"), faults)]
    searches = _searches(value.get("spec") or {})
    return Pod(meta.get("namespace") or "default", meta.get("name") or "", tuple(addresses), searches, origin)


def _searches(spec: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Of dnsConfig; ClusterFirst is the policy where none is said."""
    if spec.get("hostNetwork") or (spec.get("dnsPolicy") or "ClusterFirst") != "ClusterFirst":
        return None
    given = (spec.get("dnsConfig") or {}).get("searches") or ()
    return tuple(word for word in given if isinstance(word, str))


def _ports(values: Any, pointer: str, origin: Origin, faults: list[Fault]) -> Iterator[Port]:
    for number, value in enumerate(values):
        port = value.get("port")
        if port is None:
            continue  # of an EndpointSlice: every port
        if not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 65536:
            faults.append(Fault(origin.at(f"{pointer}/{number}/port"), f"{port!r} is no port"))
            continue
        if not isinstance(name := value.get("name") or "", str):
            faults.append(Fault(origin.at(f"{pointer}/{number}/name"), f"{name!r} is no name"))
            continue
        yield Port(name, str(value.get("protocol") or "TCP").lower(), port)


def _address(text: Any, where: Where, faults: list[Fault]) -> Iterator[bytes]:
    try:
        if not isinstance(text, str) or "%" in text:  # a zone (fe80::1%eth0) is no address's, but a node's
            raise ValueError
        address = ipaddress.ip_address(text)
    except ValueError:
        faults.append(Fault(where, f"{text!r} is no IP address"))
        return
    yield address.packed
