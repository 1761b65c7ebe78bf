"""plan_dns: from services, endpoints and pods to the table of answers. Pure.

Sources: Kubernetes DNS-Based Service Discovery 1.1.0 (kubernetes/dns, docs/specification.md), whose sections the
functions name; RFC 8020 (a name exists that has something below it), RFC 2308 (negative answers).

Beside the specification, as the resolvers before us do it: SRV at the service's own name for all of its ports, an
endpoint without a hostname is called by its address with dashes, pods of IPv6, NS and SOA at the zone's apex.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from . import wire
from .objects import Endpoint, Fault, Faults, Origin, Pod, Port, Service, Slice, Where
from .table import Entry, Node, Path, Table, Zone

VERSION = "1.1.0"
PATH_MOST = 32  # names that a resolver tries, as glibc has no bound and a kubelet has this one
MAPPED = bytes(10) + b"\xff\xff"
RECORDS_MOST = 3000  # of a name and type: what a message over TCP holds
RRType = int
OURS = Where(Origin("this server"))


@dataclass(frozen=True, slots=True)
class Options:
    """zone: of the cluster. ttl: seconds. own: addresses at which we answer, for the zone's NS. namespaces: those that
    exist without an object of ours in them. reverse: (address, bits) of ranges whose reverse zones are ours alone; what
    is in no such range and has no record is asked of upstream. pods: whether pods have names. serial: of the SOA.
    autopath: whether a pod's search path is walked here. searches: domains that pods try behind the cluster's own."""

    zone: str = "cluster.local"
    ttl: int = 5
    own: tuple[bytes, ...] = ()
    namespaces: tuple[str, ...] = ()
    reverse: tuple[tuple[bytes, int], ...] = ()
    pods: bool = True
    serial: int = 1
    autopath: bool = False
    searches: tuple[str, ...] = ()


def plan_dns(
    services: Iterable[Service], slices: Iterable[Slice], pods: Iterable[Pod] = (), options: Options | None = None
) -> Table:
    """The table for these objects, whatever their order. WireError when the zone is no name."""
    draft = _Draft(options or Options())
    draft.apex()
    by_service: dict[tuple[str, str], list[Slice]] = {}
    for part in slices:
        by_service.setdefault((part.namespace, part.service), []).append(part)
    for service in sorted(services, key=lambda s: (s.namespace, s.name)):
        draft.namespace(service.namespace)
        if service.external is not None:
            draft.external(service)
        elif service.headless:
            parts = by_service.get((service.namespace, service.name), [])
            draft.headless(service, sorted(parts, key=lambda p: p.origin.object))
        else:
            draft.cluster_ip(service)
    for pod in sorted(pods, key=lambda p: (p.namespace, p.name)):
        draft.namespace(pod.namespace)
        if draft.options.pods:
            draft.pod(pod)
        if draft.options.autopath and pod.searches is not None:
            draft.client(pod, pod.searches)
    for namespace in draft.options.namespaces:
        draft.namespace(namespace)
    return draft.table()


class _Draft:
    """The table while it grows."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.zone = wire.lower(wire.name_of(options.zone))
        self.records: dict[bytes, dict[RRType, dict[bytes, Entry]]] = {}
        self.targets: dict[bytes, bytes] = {}
        self.faults = Faults()
        self.clients: dict[bytes, Path | None] = {}  # None: pods that would try different names have the same address
        self.paths: dict[tuple[str, tuple[str, ...]], Path] = {}

    def name(self, *labels: str) -> bytes:
        """The name of these labels in the zone. WireError."""
        own = [wire.label_of(label.lower()) for label in labels]
        return wire.join(own + wire.labels_of(self.zone), ".".join([*labels, self.options.zone]))

    def add(self, name: bytes, kind: RRType, data: bytes, origin: Where) -> None:
        entries = self.records.setdefault(name, {}).setdefault(kind, {})
        if data in entries:
            return
        if len(entries) >= RECORDS_MOST:
            self.faults.append(Fault(origin, f"{wire.text_of(name)} has {RECORDS_MOST} records already"))
            return
        entries[data] = Entry(data, origin)

    def exists(self, name: bytes) -> None:
        self.records.setdefault(name, {})

    def add_address(self, name: bytes, address: bytes, origin: Where) -> None:
        self.add(name, wire.A if len(address) == 4 else wire.AAAA, address, origin)

    def apex(self) -> None:
        """The zone itself, and §2.2: dns-version."""
        server = self.name("ns", "dns")
        self.add(self.zone, wire.SOA, self.soa(self.zone), OURS)
        self.add(self.name("dns-version"), wire.TXT, wire.txt_data(VERSION.encode()), OURS)
        self.exists(self.name("svc"))
        if self.options.own:
            self.add(self.zone, wire.NS, server, OURS)
        for address in self.options.own:
            self.add_address(server, address, OURS)

    def soa(self, zone: bytes) -> bytes:
        mailbox = self.name("hostmaster")
        return wire.soa_data(self.name("ns", "dns"), mailbox, self.options.serial, self.options.ttl)

    def namespace(self, namespace: str) -> None:
        try:
            self.exists(self.name(namespace, "svc"))
            if self.options.pods:
                self.exists(self.name(namespace, "pod"))
        except wire.WireError:
            pass  # what is in it says so

    def cluster_ip(self, service: Service) -> None:
        """§2.3: a service with addresses of its own."""
        if not service.addresses:
            return
        try:
            name = self.name(service.name, service.namespace, "svc")
        except wire.WireError as error:
            self.faults.append(Fault(service.origin.at("/metadata/name"), str(error)))
            return
        for address in service.addresses:
            origin = service.origin.at("/spec/clusterIP")
            self.add_address(name, address, origin)
            self.add(wire.reverse_name(address), wire.PTR, name, origin)
        for number, port in enumerate(service.ports):
            self.srv(name, name, port, service.origin.at(f"/spec/ports/{number}"))

    def srv(self, name: bytes, target: bytes, port: Port, origin: Where) -> None:
        """§2.3.2, §2.4.2: priority 0, weight 100; the port's own name only where it has one."""
        data = struct.pack("!3H", 0, 100, port.number) + target
        self.add(name, wire.SRV, data, origin)
        if not port.name:
            return
        try:
            labels = [wire.label_of(f"_{port.name}".lower()), wire.label_of(f"_{port.protocol}")]
            self.add(wire.join(labels + wire.labels_of(name), port.name), wire.SRV, data, origin)
        except wire.WireError as error:
            self.faults.append(Fault(origin, str(error)))

    def headless(self, service: Service, slices: list[Slice]) -> None:
        """§2.4. Without a ready endpoint the name does not exist."""
        for part in slices:
            for endpoint in part.endpoints:
                if not (endpoint.ready or service.not_ready_too):
                    continue
                origin = part.origin.at(endpoint.pointer)
                try:
                    self.endpoint(service, part, endpoint, origin)
                except wire.WireError as error:
                    self.faults.append(Fault(origin, str(error)))

    def endpoint(self, service: Service, part: Slice, endpoint: Endpoint, origin: Where) -> None:
        name = self.name(service.name, service.namespace, "svc")
        own = self.name(endpoint.hostname or dashed(endpoint.address), service.name, service.namespace, "svc")
        self.add_address(name, endpoint.address, origin)
        self.add_address(own, endpoint.address, origin)
        if endpoint.hostname:  # §2.4.3
            self.add(wire.reverse_name(endpoint.address), wire.PTR, own, origin)
        for port in part.ports:
            self.srv(name, own, port, origin)

    def external(self, service: Service) -> None:
        """§2.5: a CNAME."""
        origin = service.origin.at("/spec/externalName")
        try:
            name = self.name(service.name, service.namespace, "svc")
            target = wire.lower(wire.name_of(service.external or ""))
            if target == wire.ROOT:
                raise wire.WireError("externalName is empty")
        except wire.WireError as error:
            self.faults.append(Fault(origin, str(error)))
            return
        if name not in self.targets:
            self.targets[name] = target
            self.add(name, wire.CNAME, target, origin)

    def pod(self, pod: Pod) -> None:
        """§2.6, deprecated: the pod's address with dashes."""
        for address in pod.addresses:
            origin = pod.origin.at("/status/podIPs")
            try:
                self.add_address(self.name(dashed(address), pod.namespace, "pod"), address, origin)
            except wire.WireError as error:
                self.faults.append(Fault(origin, str(error)))

    def client(self, pod: Pod, searches: tuple[str, ...]) -> None:
        """The names that its resolver tries, as a kubelet writes them into its resolv.conf."""
        key = pod.namespace, searches
        if key not in self.paths:
            try:
                names = [self.name(pod.namespace, "svc"), self.name("svc"), self.zone]
            except wire.WireError:
                return  # nobody can ask for a name in such a namespace
            for word in (*self.options.searches, *searches):
                try:
                    names.append(wire.lower(wire.name_of(word)))
                except wire.WireError as error:
                    self.faults.append(Fault(pod.origin.at("/spec/dnsConfig/searches"), str(error)))
            self.paths[key] = Path(names[0], tuple(dict.fromkeys([*names[1:], wire.ROOT]))[:PATH_MOST])
        for address in pod.addresses:
            mapped = address if len(address) == 16 else MAPPED + address
            if self.clients.setdefault(mapped, self.paths[key]) != self.paths[key]:
                self.clients[mapped] = None

    def table(self) -> Table:
        zones = {self.zone, *(zone for prefix in self.options.reverse for zone in wire.reverse_zones(*prefix))}
        for zone in zones:
            self.exists(zone)
            self.add(zone, wire.SOA, self.soa(zone), OURS)
        for name in list(self.records):
            above = wire.parents(name)
            within = next((place for place, one in enumerate((name, *above)) if one in zones), 0)
            for parent in above[:within]:
                self.exists(parent)
        nodes = {}
        for name in sorted(self.records):
            kinds = self.records[name]
            records = {kind: tuple(sorted(kinds[kind].values(), key=lambda e: e.data)) for kind in sorted(kinds)}
            nodes[name] = Node(records, self.targets.get(name))
        longest = sorted(zones, key=lambda zone: (-len(zone), zone))
        clients = {address: path for address, path in self.clients.items() if path is not None}
        apexes = tuple(Zone(zone, self.soa(zone)) for zone in longest)
        return Table(apexes, nodes, self.options.ttl, tuple(self.faults), clients, self.faults.more)


def dashed(address: bytes) -> str:
    """The address as a label: 10-1-2-3, or 2001-db8--1."""
    return str(ipaddress.ip_address(address)).replace(".", "-").replace(":", "-")
