"""Plain dicts of a file or an API server to the values of model.py.

Whoever wrote them is not trusted: every field that is read has its type checked. What is wrong becomes a Fault with a
pointer, and the smallest part that can be left out is: an endpoint, a port, an address; at last the object.
"""

from __future__ import annotations

from ..kube.addresses import parse_address, parse_prefix
from .model import (
    CLUSTER_IP,
    EXTERNAL_NAME,
    LOAD_BALANCER,
    NODE_PORT,
    EndpointSlice,
    Fault,
    Ingress,
    Name,
    Node,
    Service,
    ServicePort,
    SliceEndpoint,
    SlicePort,
)
from .rules import SCTP, TCP, UDP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

PROTOCOLS = {"TCP": TCP, "UDP": UDP, "SCTP": SCTP}
TYPES = (CLUSTER_IP, NODE_PORT, LOAD_BALANCER, EXTERNAL_NAME)
HEADLESS = "service.kubernetes.io/headless"
PROXY_NAME = "service.kubernetes.io/service-proxy-name"
SERVICE_NAME = "kubernetes.io/service-name"
ZONE = "topology.kubernetes.io/zone"
MODE = "pyrun.io/proxy-mode"  # of a Service: nftables takes it into the kernel, userspace its SCTP out of it
AFFINITY_S = 10800
MAX_AFFINITY_S = 86400

_WORDS: dict[type, str] = {
    str: "a string",
    int: "a whole number",
    bool: "true or false",
    dict: "an object",
    list: "a list",
}


class Reader:
    """Reads fields of one object. A field of a wrong type is a fault, and as good as not there."""

    def __init__(self, origin: str, faults: list[Fault]) -> None:
        self.origin = origin
        self.faults = faults

    def fault(self, pointer: str, text: str) -> None:
        self.faults.append(Fault(self.origin, pointer, text))

    def get(self, value: dict[str, Any], key: str, kind: type, default: Any, pointer: str = "") -> Any:
        """The field, or the default where it is missing, null or of another type."""
        found = value.get(key)
        if found is None:
            return default
        if type(found) is kind:
            return found
        self.fault(f"{pointer}/{key}", f"must be {_WORDS[kind]}")
        return default

    def port(self, value: dict[str, Any], key: str, pointer: str) -> int:
        """A port, 0 where there is none."""
        found: int = self.get(value, key, int, 0, pointer)
        if not 0 <= found <= 65535:
            self.fault(f"{pointer}/{key}", f"{found} is no port")
            return 0
        return found

    def choice(self, value: dict[str, Any], key: str, choices: tuple[str, ...], pointer: str) -> str:
        """One of these, the first being the default."""
        found: str = self.get(value, key, str, choices[0], pointer)
        if found in choices or not found:
            return found or choices[0]
        self.fault(f"{pointer}/{key}", f"{found!r} is none of {', '.join(choices)}")
        return choices[0]

    def items(self, value: dict[str, Any], key: str, kind: type, pointer: str = "") -> Iterator[tuple[int, Any, str]]:
        """Index, item and pointer of each item of a list that has the right type."""
        for index, item in enumerate(self.get(value, key, list, (), pointer)):
            if type(item) is kind:
                yield index, item, f"{pointer}/{key}/{index}"
            else:
                self.fault(f"{pointer}/{key}/{index}", f"must be {_WORDS[kind]}")

    def parsed(self, text: str, parse: Callable[[str], Any], pointer: str) -> Any:
        """What parse makes of the text; None if it is wrong."""
        try:
            return parse(text)
        except ValueError as error:
            self.fault(pointer, str(error))
            return None

    def words(self, value: dict[str, Any], key: str, pointer: str = "") -> dict[str, str]:
        """A mapping of strings, such as labels."""
        found = self.get(value, key, dict, {}, pointer)
        wrong = [name for name, text in found.items() if type(text) is not str]
        for name in wrong:
            self.fault(f"{pointer}/{key}/{name.replace('~', '~0').replace('/', '~1')}", "must be a string")
        return {name: text for name, text in found.items() if type(text) is str} if wrong else found

    def name(self, value: dict[str, Any]) -> tuple[Name, dict[str, Any]] | None:
        """Namespace and name, and the metadata. None if it has no name: then there is no speaking of it."""
        metadata = self.get(value, "metadata", dict, {})
        name = self.get(metadata, "name", str, "", "/metadata")
        if not name:
            self.fault("/metadata/name", "has no name")
            return None
        return (self.get(metadata, "namespace", str, "default", "/metadata") or "default", name), metadata


def read_service(value: dict[str, Any], origin: str, faults: list[Fault]) -> Service | None:
    """A Service (v1). None if nothing can be made of it."""
    r = Reader(origin, faults)
    named = r.name(value)
    if named is None:
        return None
    (namespace, name), metadata = named
    labels = r.words(metadata, "labels", "/metadata")
    spec = r.get(value, "spec", dict, {})
    kind = r.choice(spec, "type", TYPES, "/spec")
    external_local = r.choice(spec, "externalTrafficPolicy", ("Cluster", "Local"), "/spec") == "Local"
    mode = _mode(r, metadata)
    return Service(
        namespace=namespace,
        name=name,
        origin=origin,
        type=kind,
        cluster_ips=() if kind == EXTERNAL_NAME else _cluster_ips(r, spec),
        headless=HEADLESS in labels or (kind != EXTERNAL_NAME and spec.get("clusterIP") == "None"),
        external_name=r.get(spec, "externalName", str, "", "/spec") if kind == EXTERNAL_NAME else "",
        ports=tuple(_service_ports(r, spec, kind)),
        external_ips=tuple(_external_ips(r, spec)),
        ingress=tuple(_ingress(r, value, kind)),
        source_ranges=_source_ranges(r, spec),
        internal_local=r.choice(spec, "internalTrafficPolicy", ("Cluster", "Local"), "/spec") == "Local",
        external_local=external_local,
        affinity=_affinity(r, spec),
        health_check_node_port=r.port(spec, "healthCheckNodePort", "/spec")
        if external_local and kind == LOAD_BALANCER
        else 0,
        publish_not_ready=r.get(spec, "publishNotReadyAddresses", bool, False, "/spec"),
        selector=tuple(sorted(r.words(spec, "selector", "/spec").items())),
        proxy_name=labels.get(PROXY_NAME),
        kernel=mode == "nftables",
        sockets=mode == "userspace",
    )


def _mode(r: Reader, metadata: dict[str, Any]) -> str:
    mode = r.words(metadata, "annotations", "/metadata").get(MODE, "")
    if mode not in ("", "nftables", "userspace"):
        r.fault(f"/metadata/annotations/{MODE.replace('/', '~1')}", f"{mode!r} is neither nftables nor userspace")
    return mode


def _cluster_ips(r: Reader, spec: dict[str, Any]) -> tuple[bytes, ...]:
    """Of clusterIPs, or of clusterIP where that is all there is: one a family."""
    found: dict[int, bytes] = {}
    for _, text, pointer in r.items(spec, "clusterIPs", str, "/spec"):
        if text in ("None", ""):
            return ()
        address = r.parsed(text, parse_address, pointer)
        if address is not None and found.setdefault(len(address), address) is not address:
            r.fault(pointer, "a second address of this family")
    single = r.get(spec, "clusterIP", str, "", "/spec")
    if not found and single not in ("None", "") and not spec.get("clusterIPs"):
        address = r.parsed(single, parse_address, "/spec/clusterIP")
        return () if address is None else (address,)
    return tuple(found.values())


def _service_ports(r: Reader, spec: dict[str, Any], kind: str) -> Iterator[ServicePort]:
    seen: set[tuple[str, int]] = set()
    taken: set[tuple[int, int]] = set()
    for index, item, pointer in r.items(spec, "ports", dict, "/spec"):
        name = r.get(item, "name", str, "", pointer)
        protocol = item.get("protocol") or "TCP"
        port = r.port(item, "port", pointer)
        if type(protocol) is not str or protocol not in PROTOCOLS:
            r.fault(f"{pointer}/protocol", f"{protocol!r} is none of TCP, UDP, SCTP")
        elif not port:
            if item.get("port") in (None, 0):
                r.fault(f"{pointer}/port", "has no port")
        elif (name, PROTOCOLS[protocol]) in seen:
            r.fault(f"{pointer}/name", f"a second port {name!r} of {protocol}")
        elif (port, PROTOCOLS[protocol]) in taken:
            r.fault(f"{pointer}/port", f"{port} of {protocol} is another port of this Service already")
        else:
            seen.add((name, PROTOCOLS[protocol]))
            taken.add((port, PROTOCOLS[protocol]))
            yield ServicePort(
                name,
                PROTOCOLS[protocol],
                port,
                _node_port(r, item, kind, pointer),
                _target_port(r, item, pointer),
                index,
                r.get(item, "appProtocol", str, "", pointer),
            )


def _node_port(r: Reader, item: dict[str, Any], kind: str, pointer: str) -> int:
    found = r.port(item, "nodePort", pointer)
    if found and kind not in (NODE_PORT, LOAD_BALANCER):
        r.fault(f"{pointer}/nodePort", f"a Service of type {kind} has none")
        return 0
    return found


def _target_port(r: Reader, item: dict[str, Any], pointer: str) -> int | str | None:
    found = item.get("targetPort")
    if type(found) is str:
        return int(found) if found.isdecimal() and found.isascii() and int(found[:6]) <= 65535 else found
    return r.port(item, "targetPort", pointer) or None


def _external_ips(r: Reader, spec: dict[str, Any]) -> Iterator[tuple[bytes, int]]:
    for index, text, pointer in r.items(spec, "externalIPs", str, "/spec"):
        address = r.parsed(text, parse_address, pointer)
        if address is not None:
            yield address, index


def _ingress(r: Reader, value: dict[str, Any], kind: str) -> Iterator[Ingress]:
    """What the load balancer's controller has written. One with a host name alone is for DNS, and not for us."""
    if kind == EXTERNAL_NAME:
        return
    status = r.get(value, "status", dict, {})
    balancer = r.get(status, "loadBalancer", dict, {}, "/status")
    for index, item, pointer in r.items(balancer, "ingress", dict, "/status/loadBalancer"):
        text = r.get(item, "ip", str, "", pointer)
        if text:
            address = r.parsed(text, parse_address, f"{pointer}/ip")
            mode = r.choice(item, "ipMode", ("VIP", "Proxy"), pointer)
            if address is not None:
                yield Ingress(address, mode == "VIP", index)


def _source_ranges(r: Reader, spec: dict[str, Any]) -> tuple[Any, ...] | None:
    if not spec.get("loadBalancerSourceRanges"):
        return None
    found = [
        r.parsed(text, parse_prefix, pointer)
        for _, text, pointer in r.items(spec, "loadBalancerSourceRanges", str, "/spec")
    ]
    return tuple([prefix for prefix in found if prefix is not None])


def _affinity(r: Reader, spec: dict[str, Any]) -> int:
    if r.choice(spec, "sessionAffinity", ("None", "ClientIP"), "/spec") == "None":
        return 0
    config = r.get(spec, "sessionAffinityConfig", dict, {}, "/spec")
    client = r.get(config, "clientIP", dict, {}, "/spec/sessionAffinityConfig")
    place = "/spec/sessionAffinityConfig/clientIP"
    seconds: int = r.get(client, "timeoutSeconds", int, AFFINITY_S, place)
    if not 1 <= seconds <= MAX_AFFINITY_S:
        r.fault(f"{place}/timeoutSeconds", f"{seconds} is not in 1 to {MAX_AFFINITY_S}")
        return AFFINITY_S
    return seconds


def read_slice(value: dict[str, Any], origin: str, faults: list[Fault]) -> EndpointSlice | None:
    """An EndpointSlice (discovery.k8s.io/v1). None if nothing can be made of it, and for one of host names (FQDN)."""
    r = Reader(origin, faults)
    named = r.name(value)
    if named is None:
        return None
    (namespace, name), metadata = named
    kind = value.get("addressType")
    if kind not in ("IPv4", "IPv6"):
        if kind != "FQDN":
            r.fault("/addressType", f"{kind!r} is none of IPv4, IPv6, FQDN")
        return None
    labels = r.words(metadata, "labels", "/metadata")
    size = 4 if kind == "IPv4" else 16
    return EndpointSlice(
        namespace=namespace,
        name=name,
        origin=origin,
        service=labels.get(SERVICE_NAME, ""),
        family=4 if size == 4 else 6,
        ports=tuple(_slice_ports(r, value)),
        endpoints=tuple(_endpoints(r, value, size)),
        headless=HEADLESS in labels,
        proxy_name=labels.get(PROXY_NAME),
    )


def _slice_ports(r: Reader, value: dict[str, Any]) -> Iterator[SlicePort]:
    """Ports with a number: one without stands for all ports, which no Service can name."""
    for _, item, pointer in r.items(value, "ports", dict):
        port = r.port(item, "port", pointer)
        protocol = item.get("protocol") or "TCP"
        if type(protocol) is not str or protocol not in PROTOCOLS:
            r.fault(f"{pointer}/protocol", f"{protocol!r} is none of TCP, UDP, SCTP")
        elif port:
            yield SlicePort(r.get(item, "name", str, "", pointer), PROTOCOLS[protocol], port)


def _endpoints(r: Reader, value: dict[str, Any], size: int) -> Iterator[SliceEndpoint]:
    """There may be a hundred thousand: so the reader is asked only for what is not as it should be."""

    def text(item: dict[str, Any], key: str, pointer: str) -> str:
        found = item.get(key)
        if found is None:
            return ""
        return found if type(found) is str else r.get(item, key, str, "", pointer)

    for index, item, pointer in r.items(value, "endpoints", dict):
        addresses = item.get("addresses")
        if type(addresses) is not list:
            addresses = r.get(item, "addresses", list, (), pointer)
        if not addresses or type(addresses[0]) is not str:
            r.fault(f"{pointer}/addresses", "has no address")
            continue
        address = r.parsed(addresses[0], parse_address, f"{pointer}/addresses/0")
        if address is None:
            continue
        if len(address) != size:
            r.fault(f"{pointer}/addresses/0", f"{addresses[0]!r} is not of this slice's addressType")
            continue
        conditions = r.get(item, "conditions", dict, None, pointer)
        ready, serving, terminating = _conditions(r, conditions, pointer) if conditions else (True, True, False)
        zones, nodes = _hints(r, item, pointer) if item.get("hints") else ((), ())
        yield SliceEndpoint(
            address,
            ready,
            serving,
            terminating,
            text(item, "nodeName", pointer),
            text(item, "zone", pointer),
            text(item, "hostname", pointer),
            zones,
            nodes,
            _pod(r, item, pointer) if item.get("targetRef") else None,
            index,
        )


def _conditions(r: Reader, found: dict[str, Any], pointer: str) -> tuple[bool, bool, bool]:
    """ready and serving, which one that says nothing is, each by itself; terminating."""
    ready, serving, terminating = found.get("ready"), found.get("serving"), found.get("terminating")
    if type(ready) is type(serving) is type(terminating) is bool:
        return ready, serving, terminating
    pointer += "/conditions"
    ready, serving, terminating = (
        r.get(found, key, bool, default, pointer)
        for key, default in (("ready", True), ("serving", True), ("terminating", False))
    )
    return ready, serving, terminating


def _hints(r: Reader, item: dict[str, Any], pointer: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    hints = r.get(item, "hints", dict, {}, pointer)
    zones, nodes = (
        tuple([r.get(hint, "name", str, "", place) for _, hint, place in r.items(hints, key, dict, f"{pointer}/hints")])
        for key in ("forZones", "forNodes")
    )
    return zones, nodes


def _pod(r: Reader, item: dict[str, Any], pointer: str) -> Name | None:
    target = r.get(item, "targetRef", dict, {}, pointer)
    if target.get("kind") != "Pod":
        return None
    pointer += "/targetRef"
    return r.get(target, "namespace", str, "", pointer), r.get(target, "name", str, "", pointer)


def read_node(value: dict[str, Any], origin: str, faults: list[Fault]) -> Node | None:
    """A Node (v1): its name, internal addresses, zone and pod ranges."""
    r = Reader(origin, faults)
    named = r.name(value)
    if named is None:
        return None
    (_, name), metadata = named
    spec = r.get(value, "spec", dict, {})
    status = r.get(value, "status", dict, {})
    addresses = [
        r.parsed(r.get(item, "address", str, "", pointer), parse_address, f"{pointer}/address")
        for _, item, pointer in r.items(status, "addresses", dict, "/status")
        if item.get("type") == "InternalIP"
    ]
    cidrs = [r.parsed(text, parse_prefix, pointer) for _, text, pointer in r.items(spec, "podCIDRs", str, "/spec")]
    return Node(
        name=name,
        addresses=tuple([address for address in addresses if address is not None]),
        zone=r.words(metadata, "labels", "/metadata").get(ZONE, ""),
        pod_cidrs=tuple([prefix for prefix in cidrs if prefix is not None]),
        deleting=metadata.get("deletionTimestamp") is not None,
    )
